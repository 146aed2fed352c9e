#!/bin/sh
# Builds the Node client that the runner imports: what its lock file names, and dist/.
set -e
cd "$(dirname "$0")/../../../../clients/node"
[ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --silent
npm run --silent build
