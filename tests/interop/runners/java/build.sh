#!/bin/sh
# Builds the runner in a folder, with the Java client: build.sh FOLDER; FOLDER/classpath then names what it runs with.
set -e
here=$(cd "$(dirname "$0")" && pwd)
suite=$here/../..
folder=$1
client=$(sh "$suite/../clients/java_client.sh")
mkdir -p "$folder/lib"
cp "$client"/*.jar "$client"/lib/*.jar "$folder/lib"
javac -Xlint:all -Werror --release 17 -d "$folder/classes" -cp "$folder/lib/*" \
  "$here"/*.java "$here"/interop/*.java "$suite"/*/Run.java
echo "$folder/classes:$folder/lib/*" > "$folder/classpath"
