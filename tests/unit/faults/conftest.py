"""A tiny model, and batch loops with it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from abstractllm.providers.huggingface.worker.model import LoadedModel
from tests.unit.fault_harness import FaultHarness, load, running
from tests.unit.tiny_models import build


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "llama", "llama", max_position_embeddings=512)


@pytest.fixture
def loaded(directory: Path) -> LoadedModel:
    return load(directory)


@pytest.fixture(scope="module")
def shared_harness(directory: Path) -> Iterator[FaultHarness]:
    with running(load(directory)) as harness:
        yield harness


@pytest.fixture
def harness(shared_harness: FaultHarness) -> FaultHarness:
    """A batch loop in which nothing has failed yet; its model stays as it is."""
    shared_harness.failed.clear()
    return shared_harness
