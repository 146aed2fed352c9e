"""Fused kernels in the place of a model's norms, positions and activations: put in, checked, and taken out again.

The kernels need a GPU. A stand-in for their package replaces the same methods and functions, as Liger does.
"""

from __future__ import annotations

import sys
from types import MethodType, ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.models.llama import modeling_llama

from abstractllm.providers.huggingface.protocol.messages import Load
from abstractllm.providers.huggingface.worker.batching import fused_kernels, start
from abstractllm.providers.huggingface.worker.batching.engine import BatchEngine
from abstractllm.providers.huggingface.worker.batching.fused_kernels import FusedKernels
from abstractllm.providers.huggingface.worker.model import LoadedModel
from tests.unit.architectures import ARCHITECTURES, model_of, tokenizer

PATCHES = "liger_kernel.transformers.monkey_patch"
IDS = torch.tensor([[5, 6, 7, 8]])


class Liger:
    """Stands in for the package; `shift` makes its norms wrong."""

    def __init__(self, patch: pytest.MonkeyPatch, shift: float = 0.0) -> None:
        self.shift = shift
        self.calls = 0
        self.options: dict[str, Any] = {}
        self.error: Exception | None = None
        module = ModuleType(PATCHES)
        names = {"MODEL_TYPE_TO_APPLY_LIGER_FN": {"llama": None}, "_apply_liger_kernel_to_instance": self.apply}
        vars(module).update(names)
        for name in ("liger_kernel", "liger_kernel.transformers"):
            patch.setitem(sys.modules, name, ModuleType(name))
        patch.setitem(sys.modules, PATCHES, module)
        patch.setattr(fused_kernels, "find_spec", lambda name: name == "liger_kernel")
        patch.setattr(fused_kernels, "version", lambda name: "1.2.3")

    def apply(self, model: Any, **options: Any) -> None:
        self.options = options
        rotate = modeling_llama.apply_rotary_pos_emb

        def fused_rotation(*arguments: Any, **keywords: Any) -> Any:
            self.calls += 1
            return rotate(*arguments, **keywords)

        def fused_norm(module: Any, hidden: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return type(module).forward(module, hidden) + self.shift

        vars(modeling_llama)["apply_rotary_pos_emb"] = fused_rotation
        vars(modeling_llama)["LlamaRMSNorm"] = torch.nn.Identity
        for layer in model.model.layers:
            layer.input_layernorm.in_place = True
            vars(layer.input_layernorm)["forward"] = MethodType(fused_norm, layer.input_layernorm)
        if self.error:
            raise self.error


def llama() -> LoadedModel:
    return LoadedModel(model_of(ARCHITECTURES[0]), tokenizer(), Load(model="", is_directory=True, cache_dir=""))


def is_unchanged(model: Any) -> bool:
    names = {name for module in model.modules() for name in vars(module)}
    is_original = modeling_llama.apply_rotary_pos_emb.__module__ == modeling_llama.__name__
    return is_original and modeling_llama.LlamaRMSNorm is not torch.nn.Identity and not names & {"forward", "in_place"}


def started(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> tuple[BatchEngine, FusedKernels]:
    """Starts the loop as on a GPU with half precision, where kernels may be used."""
    seen: list[FusedKernels] = []

    def kernels(model: Any, *, wanted: bool) -> FusedKernels:
        seen.append(FusedKernels(model, wanted=wanted))
        if wanted:
            seen[0].left_out = ""
        return seen[0]

    monkeypatch.setattr(start, "FusedKernels", kernels)
    load = Load(model="", is_directory=True, cache_dir="", kv_cache_bytes=4 << 20, max_batch_size=4, **settings)
    engine = start.start(loaded, load, send=lambda _: None, end=lambda *_: None, crash=lambda: None)
    assert engine is not None, loaded.description.note
    engine.stop()
    return engine, seen[0]


def test_kernels_that_answer_as_the_model_does_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    liger, loaded = Liger(monkeypatch), llama()
    try:
        _, kernels = started(loaded, monkeypatch)
        assert liger.calls
        assert not is_unchanged(loaded.model)
        assert str(kernels) == "fused kernels of liger-kernel 1.2.3"
        assert liger.options == {"cross_entropy": False, "fused_linear_cross_entropy": False, "swiglu": True}
    finally:
        kernels.undo()
    assert is_unchanged(loaded.model)


def test_a_model_that_answers_otherwise_with_them_runs_without_and_is_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    liger, loaded = Liger(monkeypatch, shift=0.5), llama()
    with torch.no_grad():
        before = loaded.model(IDS).logits
    _, kernels = started(loaded, monkeypatch)
    assert liger.calls
    assert is_unchanged(loaded.model)
    assert "no fused kernels: the answer to a prompt of" in str(kernels)
    with torch.no_grad():
        assert torch.equal(loaded.model(IDS).logits, before)


def test_a_package_that_fails_half_way_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    liger, loaded = Liger(monkeypatch), llama()
    liger.error = ImportError("cannot import name 'LlamaMLP'")
    _, kernels = started(loaded, monkeypatch)
    assert is_unchanged(loaded.model)
    assert str(kernels) == "no fused kernels: ImportError: cannot import name 'LlamaMLP'"


def test_they_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    liger, loaded = Liger(monkeypatch), llama()
    _, kernels = started(loaded, monkeypatch, fused_kernels=False)
    assert not liger.calls
    assert is_unchanged(loaded.model)
    assert str(kernels) == "no fused kernels: switched off"


def test_a_mixture_keeps_its_own_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    liger, loaded = Liger(monkeypatch), llama()
    loaded.model.config.num_local_experts = 4
    kernels = FusedKernels(loaded.model, wanted=True)
    kernels.apply()
    kernels.undo()
    assert not liger.options["swiglu"]


def test_the_reason_why_they_are_not_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    Liger(monkeypatch)

    def reason(device: str = "cuda", dtype: torch.dtype = torch.bfloat16, kind: str = "llama") -> str:
        stub = type("Stub", (), {"__module__": "transformers.models.llama.modeling_llama"})()
        stub.device, stub.dtype, stub.config = torch.device(device), dtype, SimpleNamespace(model_type=kind)
        return FusedKernels(stub, wanted=True).left_out

    assert reason() == ""
    assert reason(device="cpu") == "not on cpu"
    assert reason(dtype=torch.float32) == "not in float32"
    assert reason(kind="lfm2") == "liger-kernel has none for lfm2"
    monkeypatch.setattr(fused_kernels, "find_spec", lambda name: None)
    assert reason() == "liger-kernel is not installed"
