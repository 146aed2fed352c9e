import json

from abstractllm_client import ChatMessage, Reasoning, Role, Text, Tool, ToolChoice, ToolChoiceMode, ToolResult
from tests.interop.runners.python import report
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    asked = task.input
    tool = Tool(**asked["tool"])
    with task.connect("echo") as echo, task.connect("mirror") as mirror:
        answer = echo.complete(asked["prompt"], tools=[tool], provider_options={"script": asked["script"]})
        (call,) = answer.tool_calls
        auto = json.loads(mirror.generate(asked["prompt"], tools=[tool]))
        required = mirror.generate(asked["prompt"], tools=[tool], tool_choice=ToolChoice(mode=ToolChoiceMode.REQUIRED))
        named = mirror.generate(asked["prompt"], tools=[tool], tool_choice=ToolChoice(name=tool.name))
        signed = Reasoning(answer.reasoning, provider_state=bytes.fromhex(asked["state"]))
        conversation = [
            ChatMessage(Role.USER, (Text(asked["prompt"]),)),
            ChatMessage(Role.ASSISTANT, (signed, call)),
            ChatMessage(Role.TOOL, (ToolResult(call.id, asked["result"]),)),
        ]
        return {
            "call": report.part(call)["tool_call"],
            "finish_reason": str(answer.finish_reason),
            "auto": {"tools": auto["tools"], "tool_choice": auto["tool_choice"]},
            "required": json.loads(required)["tool_choice"],
            "named": json.loads(named)["tool_choice"],
            "returned": json.loads(mirror.generate(conversation, tools=[tool]))["messages"],
        }
