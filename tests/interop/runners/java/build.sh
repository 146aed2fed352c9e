#!/bin/sh
# Builds the Java client and the runner in a folder: build.sh FOLDER; FOLDER/classpath then names what it runs with.
set -e
here=$(cd "$(dirname "$0")" && pwd)
suite=$here/../..
folder=$1
# A copy, as the client's own tests may be building at the same time.
mkdir -p "$folder/clients/java"
cp -r "$suite/../../proto" "$folder"
cp -r "$suite/../../clients/java/pom.xml" "$suite/../../clients/java/LICENSE" "$suite/../../clients/java/src" \
  "$folder/clients/java"
mvn --batch-mode --no-transfer-progress --quiet -f "$folder/clients/java" \
  -Dmaven.test.skip -Dmaven.javadoc.skip -Dmaven.source.skip \
  package dependency:copy-dependencies -DincludeScope=test -DoutputDirectory="$folder/lib"
cp "$folder"/clients/java/target/abstractllm-client-0.1.0.jar "$folder/lib"
javac -Xlint:all -Werror --release 17 -d "$folder/classes" -cp "$folder/lib/*" \
  "$here"/*.java "$here"/interop/*.java "$suite"/*/Run.java
echo "$folder/classes:$folder/lib/*" > "$folder/classpath"
