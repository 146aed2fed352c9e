"""Fixtures of every test: the repository's root, and the markers for what a machine may lack."""

import gc
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.fake_hub import TOKEN, FakeHub, serving_hub

if TYPE_CHECKING:
    from tests.pull_process import ForkedHub

# Tests that were started in the background may be deaf to Ctrl-C, and so would be the programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A server that nobody has stopped logs itself while its memory is freed: a record that is kept, as caplog keeps those
# of DEBUG, refers to that memory, and the next pass of the garbage collector ends the process.
logging.getLogger("grpc._cython.cygrpc").setLevel(logging.INFO)
# What is imported and collected stays until the end: passes of the collector over it are a third of the collection.
gc.disable()

# As in engine processes: threads of OpenMP that spin while they wait take the processors from those they wait for.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[1]
_TOGETHER = {
    "tests/behaviour": "behaviour",
    "tests/clients": "clients",
    "tests/interop": "clients",
    "tests/ray": "ray",
}
"""Folders whose tests share servers, or what the clients' tools build."""
_LONG = {
    "tests/server/test_load_unload.py": 90,
    "tests/unit/test_model_memory_engines.py": 60,
    "tests/unit/test_huggingface_engine.py": 50,
    "tests/server/test_frozen_engine.py": 45,
    "tests/deploy/test_image_slim.py": 40,
    "tests/server/test_config_swap.py": 40,
    "tests/unit/test_model_memory_races.py": 35,
    "tests/unit/test_pull_kills.py": 35,
    "tests/deploy/helm/test_sidecar_pod.py": 35,
    "tests/unit/test_transformers_versions.py": 35,
    "tests/deploy/helm/test_service_pod.py": 30,
    "tests/deploy/test_release.py": 30,
    "tests/unit/test_pull_engine.py": 30,
    "tests/deploy/test_image_cpu.py": 30,
    "tests/unit/test_huggingface_reasoning.py": 30,
    "tests/balancing/test_spread.py": 60,
}
"""Seconds of files whose few tests take long: they begin early, lest one process has the last of them to itself."""


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def demo_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server whose default LLM is the demo model."""
    log = tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "abstractllm_cli", "serve", "--port", "0"]
    with log.open("w") as output, subprocess.Popen(command, stderr=output) as server:
        try:
            while not (match := re.search(r"listening on (\S+)", log.read_text())):
                assert server.poll() is None, log.read_text()
                time.sleep(0.1)
            yield match[1]
        finally:
            server.terminate()
            server.wait(60)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Takes back what a test, or a command that it runs in this process, sets up of logging."""
    logger = logging.getLogger("abstractllm")
    level, handlers, propagate = logger.level, logger.handlers[:], logger.propagate
    yield
    logger.handlers[:] = handlers
    logger.propagate = propagate
    logger.setLevel(level)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A hub of models on the loopback interface, which the processes of this test ask, with a token."""
    with serving_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield hub


@pytest.fixture(scope="module")
def forking_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator["ForkedHub"]:
    """A hub whose downloads are forks of one process; see `forked`."""
    from tests.pull_process import forked_hub  # imports what a download needs: only where one is made

    with forked_hub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture
def forked(forking_hub: "ForkedHub", monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """A hub without a model, for tests that need no process of their own for a download."""
    return forking_hub.emptied(monkeypatch)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Lets the tests in `tests/gpu` be tried on a CPU."""
    parser.addoption("--device", choices=("cuda", "cpu"), default="cuda", help="where the tests in tests/gpu run")


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Lets reports of tests that deal with text that is none travel between the processes that run the tests."""
    return _without_lone_surrogates((yield))


def _without_lone_surrogates(data: Any) -> Any:
    match data:
        case str():
            return data.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {key: _without_lone_surrogates(value) for key, value in data.items()}
        case list() | tuple():
            return type(data)(map(_without_lone_surrogates, data))
        case _:
            return data


def _scope(nodeid: str) -> str:
    """Returns what a test goes to a process with: its file, or a group of folders."""
    file = nodeid.partition("::")[0]
    return next((group for folder, group in _TOGETHER.items() if file.startswith(f"{folder}/")), file)


class _Together(LoadScopeScheduling):
    """Deals tests out to processes: each file goes to one of them, as does what shares more."""

    def _split_scope(self, nodeid: str) -> str:
        return _scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Together:
    """Called where several processes run the tests."""
    config.option.loadscopereorder = False  # `pytest_collection_modifyitems` orders them
    return _Together(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Orders the tests, and skips `gpu` tests without a CUDA device and `real_key("NAME")` tests without that variable.

    What takes long comes first: groups of folders, files of few long tests, then files by the number of their tests.
    """
    if hasattr(config, "workerinput"):
        tests = Counter(_scope(item.nodeid) for item in items)
        groups = set(_TOGETHER.values())
        weights = {scope: (scope in groups, _LONG.get(scope, 0), count) for scope, count in tests.items()}
        items.sort(key=lambda item: weights[_scope(item.nodeid)], reverse=True)
    gpu_tests = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_tests and config.getoption("--device") == "cuda" and not _cuda_is_available():
        for item in gpu_tests:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
    for item in items:
        marker = item.get_closest_marker("real_key")
        if marker and not os.environ.get(marker.args[0]):
            item.add_marker(pytest.mark.skip(reason=f"{marker.args[0]} is not set"))


def pytest_collection_finish() -> None:
    """Lets the garbage collector run for the tests, without a look at what stays."""
    gc.freeze()
    gc.enable()


def _cuda_is_available() -> bool:
    import torch  # takes seconds: only where a test needs the answer

    return torch.cuda.is_available()
