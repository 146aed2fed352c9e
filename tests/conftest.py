"""What every test shares: the repository's root, and the markers for what a machine may lack."""

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_hub import TOKEN, FakeHub, serving_hub

# Tests that were started in the background may be deaf to Ctrl-C, and so would be the programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root folder of the repository."""
    return ROOT


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


def pytest_addoption(parser: pytest.Parser) -> None:
    """Lets the tests in `tests/gpu` be tried on a CPU."""
    parser.addoption("--device", choices=("cuda", "cpu"), default="cuda", help="where the tests in tests/gpu run")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips `gpu` tests without a CUDA device, and `real_key("NAME")` tests without that variable."""
    gpu_tests = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_tests and config.getoption("--device") == "cuda" and not _cuda_is_available():
        for item in gpu_tests:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
    for item in items:
        marker = item.get_closest_marker("real_key")
        if marker and not os.environ.get(marker.args[0]):
            item.add_marker(pytest.mark.skip(reason=f"{marker.args[0]} is not set"))


def _cuda_is_available() -> bool:
    import torch  # takes seconds: only where a test needs the answer

    return torch.cuda.is_available()
