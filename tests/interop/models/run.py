from typing import Any

from tests.interop.runners.python.main import Task


def run(task: Task) -> object:
    inputs = task.input
    with task.connect(inputs["llm"]) as llm, task.connect(inputs["local"]) as local:
        infos = {info.name: info for info in llm.list_llms()}
        one = infos[inputs["local"]]
        return {
            "llms": sorted(infos),
            "defaults": [info.name for info in infos.values() if info.is_default],
            "local": {
                "provider": one.provider,
                "model": one.model,
                "state": str(one.state),
                "device": one.device,
                "has_memory": bool(one.memory_bytes),
                "running": one.running,
                "queued": one.queued,
            },
            "spare": str(infos["spare"].state),
            "capabilities": short(llm.get_capabilities()),
            "local_capabilities": short(local.get_capabilities()),
            "tokens": llm.count_tokens(inputs["prompt"]),
        }


def short(capabilities: dict[str, Any]) -> dict[str, Any]:
    return {
        "tools": capabilities["tools"],
        "regex": capabilities["regex"],
        "streaming": capabilities["streaming"],
        "has_window": capabilities["context_window"] is not None,
        "parameters": sorted(capabilities["parameters"]),
    }
