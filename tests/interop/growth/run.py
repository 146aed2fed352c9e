from tests.interop.runners.python import report
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    with task.connect(server="recorder") as llm:
        whole = llm.complete("hi")
        return {
            "events": [report.event(event) for event in llm.stream("hi")],
            "joined": "".join(llm.generate("hi", stream=True)),
            "whole": {
                "text": whole.text,
                "finish_reason": report.finish_reason(whole.finish_reason),
                "parts": report.message(whole.message)["parts"],
            },
        }
