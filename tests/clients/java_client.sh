#!/bin/sh
# Builds the Java client, unless these sources have been built before, and prints the folder of the jar and of lib/, all
# that its tests need. One at a time: several processes of tests may ask for it, and Maven is slow to start.
set -e
root=$(cd "$(dirname "$0")/../.." && pwd)
sources=$(cd "$root" && find proto clients/java/pom.xml clients/java/LICENSE clients/java/src -type f | LC_ALL=C sort |
  xargs cksum | cksum | tr ' ' '-')
folder=$root/build/java-client/$sources
lock="${TMPDIR:-/tmp}/abstractllm-java-build-$(id -u)"
waited=0
until mkdir "$lock" 2>/dev/null || [ $waited -ge 300 ]; do
  sleep 1
  waited=$((waited + 1))
done
trap 'rmdir "$lock"' EXIT
if [ ! -d "$folder" ]; then
  rm -rf "$root/build/java-client"
  # A copy, as the client's own tests may be building at the same time.
  draft=$root/build/java-client/draft
  mkdir -p "$draft/clients/java"
  cp -r "$root/proto" "$draft"
  cp -r "$root/clients/java/pom.xml" "$root/clients/java/LICENSE" "$root/clients/java/src" "$draft/clients/java"
  mvn --batch-mode --no-transfer-progress --quiet -f "$draft/clients/java" \
    -Dmaven.test.skip -Dmaven.javadoc.skip -Dmaven.source.skip \
    package dependency:copy-dependencies -DincludeScope=test -DoutputDirectory="$draft/lib" >&2
  mv "$draft/clients/java/target/abstractllm-client-0.1.0.jar" "$draft"
  rm -r "$draft/clients" "$draft/proto"
  mv "$draft" "$folder"
fi
echo "$folder"
