from abstractllm_client import AbstractLLMError, RemoteLLM
from tests.interop.runners.python import report
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    inputs = task.input
    with task.connect("echo", request_id=inputs["request_id"]) as llm:

        def failing(reason: str) -> object:
            step = {"error": reason, "message": "synthetic", "upstream_status": inputs["upstream_status"]}
            if reason in inputs["retryable"]:
                step["retry_after"] = inputs["retry_after"]
            return step

        events: list[str] = []
        breaking = {"error": "PROVIDER_UNAVAILABLE", "upstream_status": inputs["upstream_status"]}
        script = {"script": [{"text": inputs["before"]}, breaking]}
        try:
            events.extend(report.event(event)["type"] for event in llm.stream("hi", provider_options=script))
            broken = None
        except AbstractLLMError as error:
            broken = report.error(error)
        with task.connect("nobody", request_id=inputs["request_id"]) as nobody:
            return {
                "whole": [
                    error_of(llm, provider_options={"script": [failing(reason)]}) for reason in inputs["reasons"]
                ],
                "broken": {"events": events, "error": broken},
                "temperature": error_of(llm, temperature=5.0),
                "nobody": error_of(nobody),
                "option": error_of(llm, provider_options={"unheard_of": 1}),
            }


def error_of(llm: RemoteLLM, **parameters: object) -> object:
    try:
        return llm.generate("hi", **parameters)
    except AbstractLLMError as error:
        return report.error(error)
