#!/bin/sh
# Shows what a failed call tells: sh errors.sh [HOST:PORT]
. "$(dirname "$0")/call.sh"
call GenerationService/Generate '{"prompt": "Hi", "parameters": {"temperature": 5}}' "$@"
