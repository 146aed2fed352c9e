from abstractllm_client import AbstractLLMError
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    asked = task.input
    options = {"delay": asked["delay"], "reply": "word " * asked["words"]}
    found: dict[str, object] = {}
    with task.connect(asked["llm"], provider_options=options, timeout=asked["timeout"]) as llm:
        try:
            llm.generate("hi")
        except AbstractLLMError as error:
            found["whole"] = short(error)
        pieces: list[str] = []
        try:
            pieces.extend(llm.generate("hi", stream=True))
        except AbstractLLMError as error:
            came = error.partial_text
            # `extend` keeps what came before the failure.
            found["streamed"] = short(error) | {
                "partial_is_what_came": came == "".join(pieces),
                "something_came": bool(pieces),
            }
    return found


def short(error: AbstractLLMError) -> dict[str, object]:
    return {"class": type(error).__name__, "reason": str(error.reason), "retryable": error.retryable}
