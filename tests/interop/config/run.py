from typing import Any

from abstractllm_client import AbstractLLMError
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    inputs = task.input
    with task.connect(inputs["llm"]) as llm:
        before, etag = llm.get_config_and_etag()
        checked = llm.set_config(temperature=inputs["temperature"], validate_only=True)
        unchanged = llm.get_config_and_etag() == (before, etag)
        changed = llm.set_config(temperature=inputs["temperature"], system_prompt=inputs["system_prompt"], etag=etag)
        new_etag = llm.get_config_and_etag()[1]

        def failure(**change: Any) -> object:
            try:
                return llm.set_config(**change)
            except AbstractLLMError as error:
                return {"class": type(error).__name__, "reason": str(error.reason), "field": error.field}

        stale = failure(temperature=0.75, etag=etag)
        wrong = failure(temperature=inputs["wrong"])
        cleared = llm.set_config(system_prompt=None)
        restored = llm.set_config(system_prompt=before["system_prompt"], temperature=before["temperature"])
        return {
            "before": short(before),
            "checked": short(checked),
            "unchanged": unchanged,
            "changed": short(changed),
            "new_etag": bool(new_etag) and new_etag != etag,
            "cleared": short(cleared),
            "stale": stale,
            "wrong": wrong,
            "restored": short(restored),
        }


def short(config: dict[str, Any]) -> dict[str, Any]:
    return {name: config[name] for name in ("model", "system_prompt", "temperature") if name in config}
