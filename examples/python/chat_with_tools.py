"""Lets a model call a function of this program, and answer with what it returned.

    python chat_with_tools.py [HOST:PORT] [LLM]

The LLM must take tools: a hosted one, or a local model whose chat template has a place for them.
"""

import json
import sys

from abstractllm_client import ChatMessage, RemoteLLM, Role, Text, Tool, ToolCall, ToolResult

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = Tool("weather", "Tells the weather in a city", json.dumps(PARAMETERS))


def weather(city: str) -> str:
    """Answers a call of the tool, which the model can ask for."""
    return f"It is sunny in {city}."


messages = [ChatMessage(Role.USER, (Text("What is the weather in Paris?"),))]
with RemoteLLM(*(sys.argv[1:] or ["127.0.0.1:50051"])) as llm:
    while True:
        answer = llm.complete(messages, tools=[WEATHER])
        calls = [part for part in answer.message.parts if isinstance(part, ToolCall)]
        if not calls:
            break
        messages.append(answer.message)
        for call in calls:
            print(f"calls {call.name} with {call.arguments_json}")
            result = ToolResult(call.id, weather(**json.loads(call.arguments_json)))
            messages.append(ChatMessage(Role.TOOL, (result,)))
print(answer.text)
