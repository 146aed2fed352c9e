"""Asks for an answer that a JSON schema describes: whatever the model writes, it is valid.

python json_schema.py [HOST:PORT] [LLM]
"""

import json
import sys

from abstractllm_client import JsonSchemaFormat, RemoteLLM

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "inhabitants": {"type": "integer", "minimum": 0}},
    "required": ["city", "inhabitants"],
    "additionalProperties": False,
}

with RemoteLLM(*(sys.argv[1:] or ["127.0.0.1:50051"])) as llm:
    text = llm.generate(
        "What is the capital of France?",
        temperature=0,
        max_tokens=100,
        response_format=JsonSchemaFormat(name="capital", schema_json=json.dumps(SCHEMA)),
    )
    answer = json.loads(text)
    print(answer["city"], answer["inhabitants"])
