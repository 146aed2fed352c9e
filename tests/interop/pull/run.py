from collections.abc import Callable

from abstractllm_client import AbstractLLMError, ClearedModels
from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    model = task.input["model"]
    with task.connect(task.input["llm"]) as llm:
        reports = list(llm.pull_model())
        *_, last = reports
        done = [report.bytes_done for report in reports]
        listed = llm.list_cached_models()
        dry_run = llm.clear_model_cache(model, dry_run=True)
        still_listed = len(llm.list_cached_models())
        return {
            "progress": {
                "first_is_not_done": not reports[0].done,
                "last": {"file": last.file, "done": last.done, "is_whole": last.bytes_done == last.bytes_total},
                "files": "model.safetensors" in {report.file for report in reports},
                "never_back": done == sorted(done),
            },
            "listed": [
                {
                    "name": one.name,
                    "revisions": len(one.revisions),
                    "has_size": one.size_bytes > 0,
                    "used_by": list(one.used_by),
                    "partial": one.partial,
                }
                for one in listed
            ],
            "no_target": failure(llm.clear_model_cache),
            "not_listed": failure(lambda: list(llm.pull_model("org/other"))),
            "dry_run": cleared(dry_run),
            "still_listed": still_listed,
            "removed": cleared(llm.clear_model_cache(model)),
            "left": len(llm.list_cached_models()),
        }


def cleared(models: ClearedModels) -> object:
    return {"removed": list(models.removed), "frees": models.freed_bytes > 0}


def failure(act: Callable[[], object]) -> object:
    try:
        return str(act())
    except AbstractLLMError as error:
        return {"class": type(error).__name__, "reason": str(error.reason)}
