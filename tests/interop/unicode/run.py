import json

from abstractllm_client import ChatMessage, Role, Text
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    with task.connect("echo") as echo, task.connect("mirror") as mirror:
        return [
            {
                "whole": echo.generate(text),
                "joined": "".join(echo.generate(text, stream=True)),
                "chat": echo.generate([ChatMessage(Role.USER, (Text(text),))]),
                "system": json.loads(mirror.generate("hi", text))["messages"][0]["parts"][0]["text"],
            }
            for text in task.input["texts"]
        ]
