from tests.interop.runners.python import report
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    inputs = task.input
    with task.connect(inputs["llm"]) as llm:
        script = {"script": inputs["script"]}
        return {
            "events": [report.event(event) for event in llm.stream(inputs["prompt"], provider_options=script)],
            "texts": list(llm.generate(inputs["prompt"], stream=True, provider_options={"reply": inputs["reply"]})),
            "whole": report.completion(llm.complete(inputs["prompt"], provider_options=script)),
        }
