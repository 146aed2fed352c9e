from tests.interop.runners.python import report
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    inputs = task.input
    with task.connect(inputs["llm"]) as llm:
        whole = llm.complete(inputs["prompt"], inputs["system_prompt"])
        cut = llm.complete(inputs["prompt"], max_tokens=inputs["max_tokens"])
        stopped = llm.complete(inputs["prompt"], stop=inputs["stop"])
        return {
            "text": llm.generate(inputs["prompt"]),
            "whole": report.completion(whole),
            "cut": {"text": cut.text, "finish_reason": str(cut.finish_reason)},
            "stopped": {
                "text": stopped.text,
                "finish_reason": str(stopped.finish_reason),
                "stop_sequence": stopped.stop_sequence,
            },
            "timing_is_set": whole.timing.total is not None and whole.timing.total > 0,
        }
