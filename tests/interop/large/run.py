import hashlib
import json

from abstractllm_client import AbstractLLMError, RemoteLLM
from tests.interop.runners.python import report
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    inputs = task.input
    prompt = inputs["letter"] * inputs["prompt_bytes"]
    with task.connect("mirror") as mirror, task.connect("echo") as echo:
        answer = echo.generate(inputs["letter"] * inputs["answer_bytes"]).encode()
        return {
            "arrived": json.loads(mirror.generate(prompt))["messages"][0]["parts"][0]["text"],
            "came_back": {"size": len(answer), "sha256": hashlib.sha256(answer).hexdigest()},
            "streamed": sum(map(len, echo.generate(prompt, stream=True))),
            "request_refused": refusal(echo, inputs["letter"] * inputs["too_many_bytes"]),
            "answer_refused": refusal(echo, prompt),
        }


def refusal(llm: RemoteLLM, prompt: str) -> object:
    try:
        return llm.generate(prompt)
    except AbstractLLMError as error:
        return report.error(error)
