"""Fixtures of the behaviours: the servers, the hub, the runners; and the table at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.clients.toolchains import require
from tests.fake_hub import FakeHub, serving_hub
from tests.interop.languages import LANGUAGES, ROOT
from tests.interop.runner import Runner
from tests.interop.servers import HUB_MODEL, World

RESULTS: dict[tuple[str, str], str] = {}
"""By behaviour and language: `ok`, `FAILED` or `skipped`."""


@pytest.fixture(scope="package")
def hub() -> Iterator[FakeHub]:
    with serving_hub() as hub:
        hub.add(HUB_MODEL)
        yield hub


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory, hub: FakeHub) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        for name, value in {"HF_ENDPOINT": hub.url, "HF_HOME": str(home / "hub"), "HOME": str(home)}.items():
            patch.setenv(name, value)
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        world = World(tmp_path_factory.mktemp("servers"))
        world.start()
        yield world
        world.stop()


@pytest.fixture(scope="package")
def runner_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Runner]]:
    """Starts each language's runner once."""
    runners: dict[str, Runner] = {}

    def find(name: str) -> Runner:
        if name not in runners:
            require(name)
            folder = tmp_path_factory.mktemp(name)
            runners[name] = Runner(LANGUAGES[name].build(folder), ROOT, folder / "log")
        return runners[name]

    yield find
    for runner in runners.values():
        with suppress(ProcessLookupError):
            runner.stop()


def pytest_runtest_logreport(report: Any) -> None:
    """Notes how each behaviour went in each language."""
    properties = dict(report.user_properties)
    if "interop" in properties and (report.when == "call" or report.outcome != "passed"):
        words = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}
        RESULTS[tuple(properties["interop"])] = words[report.outcome]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints the table of language x behaviour."""
    if not RESULTS:
        return
    languages = [name for name in LANGUAGES if any(language == name for _, language in RESULTS)]
    terminalreporter.section("language x behaviour")
    terminalreporter.write_line(f"{'':16}" + "".join(f"{name:>10}" for name in languages))
    for behaviour in sorted({behaviour for behaviour, _ in RESULTS}):
        words = [RESULTS.get((behaviour, name), "-") for name in languages]
        terminalreporter.write_line(f"{behaviour:16}" + "".join(f"{word:>10}" for word in words))


os.environ.setdefault("GRPC_VERBOSITY", "NONE")
