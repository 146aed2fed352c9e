from abstractllm_client import AbstractLLMError
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    inputs = task.input
    options = {"delay": inputs["delay"], "reply": "word " * inputs["words"]}
    errors: dict[str, object] = {}
    with task.connect(inputs["llm"], provider_options=options, timeout=inputs["timeout"]) as llm:
        try:
            llm.generate("hi")
        except AbstractLLMError as error:
            errors["whole"] = short(error)
        pieces: list[str] = []
        try:
            pieces.extend(llm.generate("hi", stream=True))
        except AbstractLLMError as error:
            came = error.partial_text
            # `extend` keeps what came before the failure.
            errors["streamed"] = short(error) | {
                "partial_is_what_came": came == "".join(pieces),
                "something_came": bool(pieces),
            }
    return errors


def short(error: AbstractLLMError) -> dict[str, object]:
    return {"class": type(error).__name__, "reason": str(error.reason), "retryable": error.retryable}
