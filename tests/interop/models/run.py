from typing import Any

from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    asked = task.input
    with task.connect(asked["llm"]) as llm, task.connect(asked["local"]) as local:
        found = {info.name: info for info in llm.list_llms()}
        one = found[asked["local"]]
        return {
            "llms": sorted(found),
            "defaults": [info.name for info in found.values() if info.is_default],
            "local": {
                "provider": one.provider,
                "model": one.model,
                "state": str(one.state),
                "device": one.device,
                "has_memory": bool(one.memory_bytes),
                "running": one.running,
                "queued": one.queued,
            },
            "spare": str(found["spare"].state),
            "capabilities": short(llm.get_capabilities()),
            "local_capabilities": short(local.get_capabilities()),
            "tokens": llm.count_tokens(asked["prompt"]),
        }


def short(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "tools": found["tools"],
        "regex": found["regex"],
        "streaming": found["streaming"],
        "has_window": found["context_window"] is not None,
        "parameters": sorted(found["parameters"]),
    }
