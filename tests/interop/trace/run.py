from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    asked = task.input
    metadata = {"traceparent": asked["traceparent"], "tracestate": asked["tracestate"], "x-other": asked["other"]}
    # A function is asked at each call, as a tracer's context differs from call to call.
    with task.connect(server="recorder", metadata=lambda: metadata) as llm:
        return {"answer": llm.generate("hi"), "arrived": task.ask("metadata", names=list(metadata))}
