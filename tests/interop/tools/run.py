import json

from abstractllm_client import ChatMessage, Reasoning, Role, Text, Tool, ToolChoice, ToolChoiceMode, ToolResult
from tests.interop.runners.python import report
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    inputs = task.input
    tool = Tool(**inputs["tool"])
    with task.connect("echo") as echo, task.connect("mirror") as mirror:
        answer = echo.complete(inputs["prompt"], tools=[tool], provider_options={"script": inputs["script"]})
        (call,) = answer.tool_calls
        auto = json.loads(mirror.generate(inputs["prompt"], tools=[tool]))
        required = mirror.generate(inputs["prompt"], tools=[tool], tool_choice=ToolChoice(mode=ToolChoiceMode.REQUIRED))
        named = mirror.generate(inputs["prompt"], tools=[tool], tool_choice=ToolChoice(name=tool.name))
        signed = Reasoning(answer.reasoning, provider_state=bytes.fromhex(inputs["state"]))
        conversation = [
            ChatMessage(Role.USER, (Text(inputs["prompt"]),)),
            ChatMessage(Role.ASSISTANT, (signed, call)),
            ChatMessage(Role.TOOL, (ToolResult(call.id, inputs["result"]),)),
        ]
        return {
            "call": report.part(call)["tool_call"],
            "finish_reason": str(answer.finish_reason),
            "auto": {"tools": auto["tools"], "tool_choice": auto["tool_choice"]},
            "required": json.loads(required)["tool_choice"],
            "named": json.loads(named)["tool_choice"],
            "returned": json.loads(mirror.generate(conversation, tools=[tool]))["messages"],
        }
