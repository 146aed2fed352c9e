#!/bin/sh
# Asks a question: sh ask.sh [HOST:PORT]
# With buf in the place of grpcurl: GRPCURL=buf sh ask.sh
. "$(dirname "$0")/call.sh"
call GenerationService/Generate '{"prompt": "What is the capital of France?", "parameters": {"temperature": 0}}' "$@"
