#!/bin/sh
# Builds the program in a folder, with the Java client: build.sh FOLDER; FOLDER/classpath then names what it runs with.
set -e
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../../../..
folder=$1
client=$(sh "$root/tests/clients/java_client.sh")
mkdir -p "$folder/lib"
# A program that wants gRPC's weighted round robin adds grpc-xds; here, so that both agree on versions.
sed 's|^  <dependencies>|&<dependency><groupId>io.grpc</groupId><artifactId>grpc-xds</artifactId></dependency>|' \
  "$root/clients/java/pom.xml" > "$folder/pom.xml"
grep -q grpc-xds "$folder/pom.xml"
mvn --batch-mode --no-transfer-progress --quiet -f "$folder" \
  dependency:copy-dependencies -DincludeScope=test -DoutputDirectory="$folder/lib"
cp "$client"/*.jar "$folder/lib"
javac -Xlint:all -Werror --release 17 -d "$folder/classes" -cp "$folder/lib/*" "$here/Main.java"
echo "$folder/classes:$folder/lib/*" > "$folder/classpath"
