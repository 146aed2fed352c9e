from tests.interop.runners.python import report
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    asked = task.input
    with task.connect(asked["llm"]) as llm:
        script = {"script": asked["script"]}
        return {
            "events": [report.event(event) for event in llm.stream(asked["prompt"], provider_options=script)],
            "texts": list(llm.generate(asked["prompt"], stream=True, provider_options={"reply": asked["reply"]})),
            "whole": report.completion(llm.complete(asked["prompt"], provider_options=script)),
        }
