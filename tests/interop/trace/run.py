from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    inputs = task.input
    metadata = {"traceparent": inputs["traceparent"], "tracestate": inputs["tracestate"], "x-other": inputs["other"]}
    # A function is asked at each call, as a tracer's context differs from call to call.
    with task.connect(server="recorder", metadata=lambda: metadata) as llm:
        return {"answer": llm.generate("hi"), "arrived": task.ask("metadata", names=list(metadata))}
