import json

from abstractllm_client import ChatMessage, Image, Role, Text
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    inputs = task.input
    data = bytes(range(inputs["byte_cycle"])) * inputs["times"]
    question = ChatMessage(Role.USER, (Text(inputs["prompt"]), Image(data, inputs["mime_type"])))
    with task.connect("mirror") as llm:
        return json.loads(llm.generate([question]))["messages"][0]
