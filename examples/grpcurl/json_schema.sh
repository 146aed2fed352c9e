#!/bin/sh
# Holds an answer to a JSON schema: sh json_schema.sh [HOST:PORT]
. "$(dirname "$0")/call.sh"
schema=$(printf %s '{"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"], "additionalProperties": false}' | sed 's|"|\\"|g')
call GenerationService/Generate "{
  \"prompt\": \"What is the capital of France?\",
  \"parameters\": {\"temperature\": 0, \"max_tokens\": 100},
  \"response_format\": {\"json_schema\": {\"schema_json\": \"$schema\"}}
}" "$@"
