"""Weights in eight and four bits, which bitsandbytes computes with on a CPU, too."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from abstractllm.errors import ConfigurationError
from abstractllm.providers.huggingface.config import HuggingFaceConfig
from abstractllm.providers.huggingface.protocol.messages import Conversation, Delta, Generate, Sampling
from abstractllm.providers.huggingface.worker import loading
from abstractllm.providers.huggingface.worker.loading import load_model
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.request import EngineRequest
from abstractllm.providers.huggingface.worker.sequential import generate
from tests.unit.tiny_models import build

pytestmark = [
    pytest.mark.filterwarnings("ignore:MatMul8bitLt:UserWarning"),
    pytest.mark.filterwarnings("ignore:You passed `quantization_config`:UserWarning"),
]


def load(directory: Path, **config: Any) -> LoadedModel:
    settings = HuggingFaceConfig.parse({"model": str(directory), "threads": 1, **config}).load_settings()
    return load_model(settings, lambda phase, fraction=None: None)


def answer(loaded: LoadedModel) -> list[int]:
    tokens: list[int] = []

    def take(message: Any) -> None:
        if isinstance(message, Delta):
            tokens.extend(logprob.token_id for logprob in message.logprobs)

    sampling = Sampling(temperature=0.0, top_logprobs=0, logit_bias=dict.fromkeys(loaded.ends, -100.0))
    request = EngineRequest(Generate(1, Conversation(()), sampling), prompt=tuple(range(5, 15)), max_tokens=12)
    generate(loaded, request, take)
    return tokens


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose layers are large enough for blocks of 64 weights to matter."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    return build(folder, "llama", hidden_size=128, intermediate_size=256, head_dim=64)


@pytest.mark.parametrize(
    ("config", "name", "share"),
    [
        ({"load_in_8bit": True}, "int8", 0.25),
        ({"quantization": "int8"}, "int8", 0.25),
        ({"load_in_4bit": True}, "int4", 0.125),
        ({"quantization": "int4"}, "int4", 0.125),
    ],
    ids=str,
)
def test_weights_take_a_fraction_of_the_memory_and_answer(
    directory: Path, config: dict[str, Any], name: str, share: float
) -> None:
    whole, small = load(directory), load(directory, **config)
    assert (whole.description.quantization, small.description.quantization) == ("", name)
    # Linear layers shrink from 32 bits to 8 or 4; embeddings, norms and the head keep theirs.
    layers = sum(
        parameter.numel() * 4
        for key, parameter in whole.model.named_parameters()
        if "layers" in key and "norm" not in key
    )
    saved = whole.description.memory_bytes - small.description.memory_bytes
    assert saved == pytest.approx(layers * (1 - share), rel=0.02)
    assert len(answer(small)) == 12


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_a_checkpoint_that_comes_quantized_is_taken_as_it_is(directory: Path, tmp_path: Path, name: str) -> None:
    quantized = load(directory, quantization=name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized.model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(directory).save_pretrained(tmp_path)
    for quantization in ("none", name):
        loaded = load(tmp_path, quantization=quantization)
        assert loaded.description.quantization == name
        assert loaded.description.memory_bytes == quantized.description.memory_bytes
        assert answer(loaded) == answer(quantized)
    other = "int4" if name == "int8" else "int8"
    with pytest.raises(ConfigurationError, match=f"{other} is asked for, but the checkpoint comes in {name}") as caught:
        load(tmp_path, quantization=other)
    assert caught.value.field == "quantization"


def test_without_its_package_quantization_is_refused(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="int4 needs the package bitsandbytes: pip install") as caught:
        load(directory, load_in_4bit=True)
    assert caught.value.field == "quantization"
