import json

from abstractllm_client import ChatMessage, Image, Role, Text
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    asked = task.input
    data = bytes(range(asked["byte_cycle"])) * asked["times"]
    question = ChatMessage(Role.USER, (Text(asked["prompt"]), Image(data, asked["mime_type"])))
    with task.connect("mirror") as llm:
        return json.loads(llm.generate([question]))["messages"][0]
