import json

from abstractllm_client import ChatMessage, Role, Text
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    inputs = task.input
    messages = [
        ChatMessage(Role.SYSTEM, (Text(inputs["system"]),)),
        ChatMessage(Role.USER, (Text(inputs["user"]),)),
        ChatMessage(Role.ASSISTANT, (Text(inputs["assistant"]),)),
        ChatMessage(Role.USER, (Text(inputs["then"]),)),
    ]
    with task.connect(inputs["llm"]) as llm, task.connect("local") as local:
        return {
            "plain": json.loads(llm.generate(messages))["messages"],
            "replaced": json.loads(llm.generate(messages, inputs["system_prompt"]))["messages"],
            "removed": json.loads(llm.generate(messages, ""))["messages"],
            "answer": local.generate([ChatMessage(Role.USER, (Text(inputs["question"]),))], temperature=0),
        }
