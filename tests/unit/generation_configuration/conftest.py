"""A tiny model, whose generation configuration each test may change."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from abstractllm.providers.huggingface.worker.loading import load_model
from abstractllm.providers.huggingface.worker.model import LoadedModel
from tests.unit.configured_models import settings
from tests.unit.tiny_models import build


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "llama", "llama", max_position_embeddings=512, seed=2)


@pytest.fixture(scope="module")
def model(directory: Path) -> LoadedModel:
    return load_model(settings(directory), lambda *_, **__: None)


@pytest.fixture
def loaded(model: LoadedModel) -> Iterator[LoadedModel]:
    """The model, whose generation configuration may be changed."""
    config, rules = model.model.generation_config, model.rules
    yield model
    model.model.generation_config, model.rules = config, rules
