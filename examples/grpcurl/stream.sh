#!/bin/sh
# Prints an answer's events as they come: sh stream.sh [HOST:PORT]
. "$(dirname "$0")/call.sh"
call GenerationService/StreamGenerate '{"prompt": "Count from 1 to 5.", "parameters": {"temperature": 0}}' "$@"
