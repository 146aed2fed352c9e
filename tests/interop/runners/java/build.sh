#!/bin/sh
# Builds the Java client and the runner into a folder: build.sh FOLDER; FOLDER/classpath then names what it runs with.
set -e
here=$(cd "$(dirname "$0")" && pwd)
suite=$here/../..
client=$suite/../../clients/java
folder=$1
mvn --batch-mode --no-transfer-progress --quiet -f "$client" -DskipTests -Dmaven.javadoc.skip -Dmaven.source.skip \
  package dependency:copy-dependencies -DincludeScope=test -DoutputDirectory="$folder/lib"
cp "$client"/target/abstractllm-client-0.1.0.jar "$folder/lib"
javac -Xlint:all -Werror --release 17 -d "$folder/classes" -cp "$folder/lib/*" \
  "$here"/*.java "$here"/interop/*.java "$suite"/*/Run.java
echo "$folder/classes:$folder/lib/*" > "$folder/classpath"
