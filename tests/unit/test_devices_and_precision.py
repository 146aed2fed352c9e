"""The devices that a model is loaded to, and the precision of its weights there; the GPUs here are pretended ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from abstractllm.errors import ConfigurationError
from abstractllm.providers.huggingface.config import HuggingFaceConfig
from abstractllm.providers.huggingface.engine import memory_estimate
from abstractllm.providers.huggingface.protocol.messages import Load
from abstractllm.providers.huggingface.worker import loading
from abstractllm.providers.huggingface.worker.batching.start import start
from abstractllm.providers.huggingface.worker.checkpoint.precision import (
    check_devices,
    first_device,
    halve_on_gpu,
    precision,
)
from abstractllm.providers.huggingface.worker.model import LoadedModel
from tests.unit.architectures import ARCHITECTURES, model_of, tokenizer
from tests.unit.tiny_models import build


def settings(**config: Any) -> Load:
    return HuggingFaceConfig.parse({"model": "org/tiny", **config}).load_settings()


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("device_map", ["cuda:2", "cuda:17", "cuda:x", {"": 2}, {"model": 0, "lm_head": "cuda:5"}])
def test_a_gpu_that_is_not_there_is_named(device_map: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no cuda:\w+; this machine has cuda:0 to cuda:1") as caught:
        check_devices(settings(device_map=device_map))
    assert caught.value.field == "device_map"


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("device_map", "first"),
    [
        (None, "cuda:0"),
        ("auto", "cuda:0"),
        ("balanced_low_0", "cuda:0"),
        ("cuda", "cuda:0"),
        ("cuda:1", "cuda:1"),
        ({"": 1}, "cuda:1"),
        ({"model": "cpu", "lm_head": "cuda:1"}, "cuda:1"),
        ({"": "cpu"}, "cpu"),
        ("cpu", "cpu"),
        ({"model": "cpu", "lm_head": "disk"}, "cpu"),
    ],
)
def test_devices_that_are_there_are_taken(device_map: Any, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_devices(settings(device_map=device_map))
    assert first_device(settings(device_map=device_map)) == first
    current: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    loading._placement(settings(device_map=device_map))
    assert current == ([] if first == "cpu" else [first])


@pytest.mark.parametrize("device_map", ["gpu", "nonsense", {"": "cuda0"}, "1"])
def test_what_is_no_device_is_refused(device_map: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_devices(settings(device_map=device_map))
    assert caught.value.field == "device_map"


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("stored", "config", "expected"),
    [
        ("float32", {}, torch.bfloat16),
        ("float32", {"device_map": "cuda:1"}, torch.bfloat16),
        ("float32", {"dtype": "float32"}, "float32"),
        ("bfloat16", {}, "auto"),
        ("float16", {}, "auto"),
        (None, {}, torch.bfloat16),  # then the file says it
    ],
)
def test_on_a_gpu_float32_becomes_bfloat16_under_auto_and_says_so(
    tmp_path: Path, stored: str | None, config: dict[str, Any], expected: Any
) -> None:
    build(tmp_path, "llama")
    model_config = AutoConfig.from_pretrained(tmp_path)
    model_config.dtype = getattr(torch, stored) if stored else None
    options, note = precision(settings(**config), model_config, [tmp_path / "model.safetensors"])
    assert options["dtype"] == expected
    assert ("dtype: float32 keeps them" in note) == (expected is torch.bfloat16)


@pytest.mark.usefixtures("two_gpus")
def test_four_bits_of_a_float32_checkpoint_are_computed_in_bfloat16_on_a_gpu(tmp_path: Path) -> None:
    model_config = AutoConfig.from_pretrained(build(tmp_path, "llama"))
    options, _ = precision(settings(quantization="int4"), model_config, [])
    assert options["quantization_config"].bnb_4bit_compute_dtype is torch.bfloat16
    options, _ = precision(settings(quantization="int4", dtype="float16"), model_config, [])
    assert options["quantization_config"].bnb_4bit_compute_dtype is torch.float16


def test_a_gpu_without_bfloat16_keeps_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    model_config = AutoConfig.from_pretrained(build(tmp_path, "llama"))
    assert precision(settings(), model_config, []) == ({"dtype": "auto"}, "")


@pytest.mark.usefixtures("two_gpus")
def test_float32_that_shows_after_loading_alone_is_halved_then() -> None:
    taken: list[torch.dtype] = []
    model = SimpleNamespace(dtype=torch.float32, device=torch.device("cuda:0"), to=taken.append)
    assert "bfloat16" in halve_on_gpu(model, settings())
    assert taken == [torch.bfloat16]
    for other in ({"dtype": torch.float16}, {"device": torch.device("cpu")}, {"hf_quantizer": object()}):
        assert halve_on_gpu(SimpleNamespace(**{**vars(model), **other}), settings()) == ""
    assert halve_on_gpu(model, settings(dtype="float32")) == ""


def test_the_remark_stands_beside_the_reason_for_one_request_at_a_time() -> None:
    architecture = next(each for each in ARCHITECTURES if each.name == "GPT-J")
    load = Load(model="", is_directory=True, cache_dir="")
    loaded = LoadedModel(model_of(architecture), tokenizer(), load, "used in bfloat16")
    assert start(loaded, load, send=lambda _: None, end=lambda _: None, crash=lambda: None) is None
    assert loaded.description.note.startswith("used in bfloat16; requests are answered one at a time: ")


def test_the_estimate_of_an_adapter_is_that_of_its_model(tmp_path: Path) -> None:
    base = build(tmp_path / "base", "llama")
    (tmp_path / "adapter").mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": str(base)}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    assert memory_estimate.expected_bytes(settings(model=str(tmp_path / "adapter"))) == memory_estimate.expected_bytes(
        settings(model=str(base))
    )


def test_the_estimate_follows_the_precision_and_the_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = str(build(tmp_path, "llama"))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(memory_estimate, "has_bfloat16", lambda: False)
    monkeypatch.setattr(memory_estimate, "has_nvidia_gpu", lambda: True)

    def bytes_of(**config: Any) -> int:
        return memory_estimate.expected_bytes(settings(model=directory, max_batch_size=1, **config))

    whole = bytes_of(dtype="float32")
    assert bytes_of() == bytes_of(device_map="auto") == bytes_of(device_map={"": 0}) == whole // 2
    assert bytes_of(device_map="cpu") == bytes_of(device_map={"": "cpu"}) == whole
    monkeypatch.setattr(memory_estimate, "has_nvidia_gpu", lambda: False)
    assert bytes_of() == bytes_of(device_map="auto") == whole
