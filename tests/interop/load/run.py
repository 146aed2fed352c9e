from collections.abc import Iterable

from abstractllm_client import AbstractLLMError, LoadProgress, RemoteLLM
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    with task.connect(task.input["llm"], temperature=0) as llm, task.connect("echo") as echo:
        reports = list(llm.load_model())
        ready = state_of(llm)
        answer = llm.generate("What is the capital of France?")
        stream = llm.stream(task.input["prompt"], logit_bias={4: -100.0}, max_tokens=2000)
        next(stream)
        in_use = failure(llm.unload_model())
        stream.close()  # type: ignore[attr-defined]
        *_, last = llm.unload_model(force=True)
        return {
            "loading": {
                "states": sorted({str(report.state) for report in reports}),
                "fractions_are_fractions": all(is_fraction(report) for report in reports),
            },
            "ready": ready,
            "answer": answer,
            "in_use": in_use,
            "unloading": str(last.state),
            "after": state_of(llm),
            "unsupported": failure(echo.unload_model()),
        }


def state_of(llm: RemoteLLM) -> str:
    (state,) = (str(info.state) for info in llm.list_llms() if info.name == llm.llm)
    return state


def is_fraction(report: LoadProgress) -> bool:
    return report.fraction is None or 0 <= report.fraction <= 1


def failure(reports: Iterable[object]) -> object:
    try:
        return len(list(reports))
    except AbstractLLMError as error:
        return {"class": type(error).__name__, "reason": str(error.reason)}
