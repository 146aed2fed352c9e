import threading

from abstractllm_client import AbstractLLMError
from tests.interop.runners.python import report
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    inputs = task.input
    options = {"delay": inputs["delay"], "reply": "word " * inputs["words"]}
    llm = task.connect(inputs["llm"])

    # Before its first event is asked for: nothing is sent.
    llm.stream("never sent", provider_options=options).close()  # type: ignore[attr-defined]

    stream = llm.stream("after the first event", provider_options=options)
    first = [report.event(next(stream))["type"]]
    stream.close()  # type: ignore[attr-defined]

    midway = 0
    for _ in llm.stream("in the middle", provider_options=options):
        midway += 1
        if midway == inputs["after_more_events"]:
            break

    # While a call waits for its answer, from another thread: the client is closed.
    timer = threading.Timer(0.3, llm.close)
    timer.start()
    try:
        llm.generate("whole", provider_options=options)
        ended = None
    except AbstractLLMError as error:
        ended = {"class": type(error).__name__, "reason": str(error.reason)}
    timer.join()
    return {"first": first, "midway": midway, "error": ended}
