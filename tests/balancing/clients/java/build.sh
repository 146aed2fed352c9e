#!/bin/sh
# Builds the Java client and the program in a folder: build.sh FOLDER; FOLDER/classpath then names what it runs with.
set -e
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../../../..
folder=$1
# A copy, as the client's own tests may be building at the same time.
mkdir -p "$folder/clients/java"
cp -r "$root/proto" "$folder"
cp -r "$root/clients/java/LICENSE" "$root/clients/java/src" "$folder/clients/java"
# A program that wants gRPC's weighted round robin adds grpc-xds; here, so that both agree on versions.
sed 's|^  <dependencies>|&<dependency><groupId>io.grpc</groupId><artifactId>grpc-xds</artifactId></dependency>|' \
  "$root/clients/java/pom.xml" > "$folder/clients/java/pom.xml"
grep -q grpc-xds "$folder/clients/java/pom.xml"
mvn --batch-mode --no-transfer-progress --quiet -f "$folder/clients/java" \
  -Dmaven.test.skip -Dmaven.javadoc.skip -Dmaven.source.skip \
  package dependency:copy-dependencies -DincludeScope=test -DoutputDirectory="$folder/lib"
cp "$folder"/clients/java/target/abstractllm-client-0.1.0.jar "$folder/lib"
javac -Xlint:all -Werror --release 17 -d "$folder/classes" -cp "$folder/lib/*" "$here/Main.java"
echo "$folder/classes:$folder/lib/*" > "$folder/classpath"
