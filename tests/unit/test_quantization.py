"""Weights in eight and four bits, which bitsandbytes computes with on a CPU, too."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from abstractllm.errors import ConfigurationError
from abstractllm.providers.huggingface.config import HuggingFaceConfig
from abstractllm.providers.huggingface.protocol.messages import Conversation, Delta, Generate, Sampling, Turn
from abstractllm.providers.huggingface.worker.checkpoint import precision
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
    request = EngineRequest(
        Generate(1, Conversation((Turn("user", "hello"),)), sampling), prompt=tuple(range(5, 15)), max_tokens=12
    )
    generate(loaded, request, take)
    return tokens


def weight_of(loaded: LoadedModel) -> torch.Tensor:
    """Returns a layer's weight as it is computed with, whatever form the CPU has it in."""
    layer = loaded.model.model.layers[0].mlp.down_proj
    with torch.no_grad():
        return torch.as_tensor(layer(torch.eye(layer.in_features, dtype=loaded.model.dtype))).float().T


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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_four_bits_are_nf4_and_computed_in_the_models_own_precision(directory: Path, dtype: str) -> None:
    whole, small = load(directory, dtype="float32"), load(directory, quantization="int4", dtype=dtype)
    layer = small.model.model.layers[0].mlp.down_proj
    assert layer.compute_dtype is getattr(torch, dtype)
    original = whole.model.model.layers[0].mlp.down_proj.weight
    assert (weight_of(small) - original).norm() / original.norm() < 0.10  # FP4 is 0.12 off


def test_under_auto_four_bits_are_computed_in_the_checkpoints_precision(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    load(directory, dtype="bfloat16").model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(directory).save_pretrained(tmp_path)
    small = load(tmp_path, quantization="int4")
    assert small.model.model.layers[0].mlp.down_proj.compute_dtype is torch.bfloat16


def test_scales_are_quantized_too_where_that_is_asked_for(directory: Path) -> None:
    once, twice = (load(directory, quantization="int4", double_quantization=double) for double in (False, True))
    difference = (weight_of(twice) - weight_of(once)).norm() / weight_of(once).norm()
    assert 0.0001 < difference < 0.02
    assert len(answer(twice)) == 12
    with pytest.raises(ConfigurationError, match="double_quantization needs quantization: int4"):
        load(directory, quantization="int8", double_quantization=True)


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
    monkeypatch.setattr(precision.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="int4 needs the package bitsandbytes: pip install") as caught:
        load(directory, load_in_4bit=True)
    assert caught.value.field == "quantization"
