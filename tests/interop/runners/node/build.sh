#!/bin/sh
# Builds the Node client that the runner imports: what its lock file names, and dist/. One at a time, as several
# processes of tests may ask for it.
set -e
cd "$(dirname "$0")/../../../../clients/node"
lock="${TMPDIR:-/tmp}/abstractllm-node-build-$(id -u)"
waited=0
until mkdir "$lock" 2>/dev/null || [ $waited -ge 300 ]; do
  sleep 1
  waited=$((waited + 1))
done
trap 'rmdir "$lock"' EXIT
[ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --silent
npm run --silent build
