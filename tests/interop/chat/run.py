import json

from abstractllm_client import ChatMessage, Role, Text
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    asked = task.input
    messages = [
        ChatMessage(Role.SYSTEM, (Text(asked["system"]),)),
        ChatMessage(Role.USER, (Text(asked["user"]),)),
        ChatMessage(Role.ASSISTANT, (Text(asked["assistant"]),)),
        ChatMessage(Role.USER, (Text(asked["then"]),)),
    ]
    with task.connect(asked["llm"]) as llm, task.connect("local") as local:
        return {
            "plain": json.loads(llm.generate(messages))["messages"],
            "replaced": json.loads(llm.generate(messages, asked["system_prompt"]))["messages"],
            "removed": json.loads(llm.generate(messages, ""))["messages"],
            "answer": local.generate([ChatMessage(Role.USER, (Text(asked["question"]),))], temperature=0),
        }
