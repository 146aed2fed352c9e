from tests.interop.runners.python import report
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    asked = task.input
    with task.connect(asked["llm"]) as llm:
        whole = llm.complete(asked["prompt"], asked["system_prompt"])
        cut = llm.complete(asked["prompt"], max_tokens=asked["max_tokens"])
        stopped = llm.complete(asked["prompt"], stop=asked["stop"])
        return {
            "text": llm.generate(asked["prompt"]),
            "whole": report.completion(whole),
            "cut": {"text": cut.text, "finish_reason": str(cut.finish_reason)},
            "stopped": {
                "text": stopped.text,
                "finish_reason": str(stopped.finish_reason),
                "stop_sequence": stopped.stop_sequence,
            },
            "timing_is_set": whole.timing.total is not None and whole.timing.total > 0,
        }
