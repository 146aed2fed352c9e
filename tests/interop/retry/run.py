import json

from abstractllm_client import AbstractLLMError
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    inputs = task.input
    with task.connect("flaky", timeout=60) as llm:

        def answer(name: str, wanted: object = None) -> str:
            try:
                return llm.generate(json.dumps(wanted or inputs[name]), request_id=name)
            except AbstractLLMError as error:
                return str(error.reason)

        outcomes = {
            "overloaded": answer("overloaded"),
            "unavailable": list(llm.generate(json.dumps(inputs["unavailable"]), stream=True, request_id="unavailable")),
            "always": answer("always"),
            "quota": answer("quota"),
            "invalid": answer("invalid"),
            "large": answer("large", inputs["overloaded"] | {"padding": "x" * inputs["padding"]}),
        }
    with task.connect(server="restarted", timeout=60) as llm:
        before = llm.generate("before")
        task.ask("restart", seconds=inputs["down"])
        return outcomes | {"restarted": [before, llm.generate("after")]}
