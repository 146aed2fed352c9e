"""The servers of the interop suite, with every LLM on Ray Serve."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from abstractllm.interface import AbstractLLMInterface
from abstractllm.providers.ray import RayProvider
from abstractllm.registry import LLMRegistry
from tests.interop.servers import HUB_MODEL, World

REPLICA = {"ray_address": "local", "num_cpus": 0.1, "drain_timeout": 5}


class Diary:
    """The lines that a `RecordingProvider` has written since they were last cleared."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        return iter([json.loads(line) for line in lines[self._read :]])

    def clear(self) -> None:
        """Forgets what was written."""
        self._read += len(list(self))


class Requests:
    """The requests of a diary, as a scripted LLM has them."""

    def __init__(self, diary: Diary) -> None:
        self._diary = diary

    def __iter__(self) -> Iterator[SimpleNamespace]:
        return iter([SimpleNamespace(**line) for line in self._diary if "prompt" in line])

    def clear(self) -> None:
        """Forgets them."""
        self._diary.clear()


class Attempts(Requests):
    """The number of requests by their ids."""

    def __eq__(self, other: object) -> bool:
        counts: dict[str, int] = {}
        for request in self:
            counts[request.request_id] = counts.get(request.request_id, 0) + 1
        return counts == other

    __hash__ = None  # type: ignore[assignment]


class Recorded:
    """An LLM on Ray Serve, and what its one replica has written down, in the place of a scripted LLM."""

    def __init__(self, llm: RayProvider, diary: Path) -> None:
        self._llm = llm
        self._diary, self._releases = Diary(diary), Diary(diary)
        self.requests = Requests(self._diary)

    @property
    def released(self) -> int:
        """Requests that are over."""
        return sum("released" in line for line in self._releases)

    @released.setter
    def released(self, count: int) -> None:
        assert count == 0
        self._releases.clear()

    @property
    def running(self) -> int:
        """Requests that this server has."""
        return self._llm.running

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return self._llm.queued


class Counted:
    """A local model on Ray Serve, with the counters of its replicas' engines, asked for now."""

    def __init__(self, world: RayWorld, llm: RayProvider) -> None:
        self._world, self._llm = world, llm

    @property
    def counters(self) -> SimpleNamespace:
        """The sums of the engines' counters."""
        reports = self._world.run(self._llm._replicas.ask_all("report", [0, 0]))
        return SimpleNamespace(
            steps=sum(report["statistics"].steps for report in reports),
            active=sum(report["statistics"].batch_size for report in reports),
            running=sum(report["running"] + report["queued"] for report in reports),
        )

    @property
    def running(self) -> int:
        """Requests that this server has."""
        return self._llm.running

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return self._llm.queued


class RayWorld(World):
    """All servers, as the other clients' suite has them, in front of replicas."""

    def _make_llms(self) -> dict[str, AbstractLLMInterface[Any]]:
        self.cache = self.folder / "cache"
        hub_variables = {name: self._variable(name) for name in ("HF_ENDPOINT", "HF_HOME", "HOME")}
        lines: dict[str, dict[str, Any]] = {
            "echo": {"serves": "recording", "diary": str(self.folder / "echo")},
            "mirror": {"serves": "mirror"},
            "flaky": {"serves": "flaky", "diary": str(self.folder / "flaky")},
            "local": {"model": "demo", "threads": 1, "replicas": 2},
            "spare": {"model": "demo", "threads": 1},
            "hub": {
                "model": HUB_MODEL,
                "load_at_start": False,
                "cache_dir": str(self.cache),
                "runtime_env": {"env_vars": hub_variables},
            },
            "settings": {"serves": "scripted", "temperature": 0.5, "system_prompt": "Be brief."},
        }
        llms = {name: RayProvider(REPLICA | line) for name, line in lines.items()}
        self.echo: Any = Recorded(llms["echo"], self.folder / "echo")
        self.mirror: Any = llms["mirror"]
        self.flaky: Any = llms["flaky"]
        self.attempts: Any = Attempts(Diary(self.folder / "flaky"))
        self.local: Any = Counted(self, llms["local"])
        return dict(llms)

    def _make_echo(self) -> LLMRegistry:
        return LLMRegistry({"echo": RayProvider(REPLICA | {"serves": "scripted", "application": "echo-for-all"})})

    def _variable(self, name: str) -> str:
        import os

        return os.environ[name]
