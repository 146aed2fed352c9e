"""The memory that the batch loop's cache may take, and the attention that it runs with."""

import gc
import warnings
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.generation.continuous_batching import cache

from abstractllm.errors import ConfigurationError, ModelLoadError
from abstractllm.providers.huggingface import machine
from abstractllm.providers.huggingface.config import HuggingFaceConfig
from abstractllm.providers.huggingface.protocol.messages import Load
from abstractllm.providers.huggingface.worker.batching import attention, padded_attention, sizes, start
from abstractllm.providers.huggingface.worker.batching import engine as engine_module
from abstractllm.providers.huggingface.worker.batching.engine import BatchEngine
from abstractllm.providers.huggingface.worker.batching.equivalence_check import CheckFailedError
from abstractllm.providers.huggingface.worker.loading import load_model
from abstractllm.providers.huggingface.worker.model import LoadedModel
from tests.unit.architectures import ARCHITECTURES, model_of, tokenizer

MEBIBYTE = 1 << 20


def loaded(name: str, **changes: Any) -> LoadedModel:
    architecture = next(each for each in ARCHITECTURES if each.name == name)
    return LoadedModel(model_of(architecture, **changes), tokenizer(), Load(model="", is_directory=True, cache_dir=""))


def started(model: LoadedModel, **settings: Any) -> BatchEngine | None:
    load = Load(model="", is_directory=True, cache_dir="", **settings)
    return start.start(model, load, send=lambda _: None, end=lambda *_: None, crash=lambda: None)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("Llama", {}),
        ("Mistral", {}),
        ("Gemma 3", {"num_hidden_layers": 5, "layer_types": ["sliding_attention"] * 4 + ["full_attention"]}),
    ],
)
@pytest.mark.parametrize("budget", [MEBIBYTE // 4, MEBIBYTE, 64 * MEBIBYTE])
def test_the_cache_takes_no_more_than_its_budget(name: str, changes: dict[str, Any], budget: int) -> None:
    model = loaded(name, **changes)
    engine = started(model, kv_cache_bytes=budget, max_batch_size=32)
    assert engine is not None
    taken = engine._manager.cache.cache_tensor.nbytes
    engine.stop()
    assert taken <= budget
    # 32 full windows of 256 tokens need up to 5 MiB; a smaller budget is used but for what does not fill a sector.
    needed = 32 * 256 * 2 * 2 * 8 * 4 * model.model.config.num_hidden_layers
    assert taken > 0.7 * min(budget, needed)
    assert model.description.longest <= 256


def test_a_budget_that_holds_nothing_is_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigurationError, match=r"kv_cache_bytes: 1000 bytes are too few .* at least 24576") as caught:
        started(loaded("Llama"), kv_cache_bytes=1000)
    assert (caught.value.field, caught.value.limit, caught.value.requested) == ("kv_cache_bytes", 24576, 1000)


def test_a_budget_that_is_not_there_is_refused_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "free_bytes", lambda device: MEBIBYTE)
    with pytest.raises(ConfigurationError, match=r"would take \d+ bytes, and 1048576 are free on cpu") as caught:
        started(loaded("Llama"), kv_cache_bytes=8 * MEBIBYTE, max_batch_size=32)
    assert (caught.value.field, caught.value.limit) == ("kv_cache_bytes", MEBIBYTE)
    requested = caught.value.requested
    assert isinstance(requested, int) and MEBIBYTE < requested <= 8 * MEBIBYTE


def test_a_mask_that_is_never_made_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers counts one of all tokens of a step against all of the cache, of the memory of the current device."""
    device = torch.device("cpu")
    monkeypatch.setattr(cache, "get_device_and_memory_breakdown", lambda: (device, 16 * MEBIBYTE, 0, 0))
    model = loaded("Llama")
    engine = started(model, kv_cache_bytes=8 * MEBIBYTE, max_batch_size=32)
    assert engine is not None, model.description.note
    assert engine.cache_bytes > 2 * MEBIBYTE
    engine.stop()


@pytest.mark.parametrize("breaks", ["warmup", "step"])
def test_too_little_memory_beside_a_configured_cache_is_refused(breaks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*arguments: Any, **options: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    if breaks == "warmup":
        monkeypatch.setattr(engine_module._Manager, "warmup", run_out)
    else:
        monkeypatch.setattr(padded_attention, "scaled_dot_product_attention", run_out)
    with pytest.raises(
        ConfigurationError, match="beside a cache of 4194304 bytes there is too little memory"
    ) as caught:
        started(loaded("Llama"), kv_cache_bytes=4 * MEBIBYTE, max_batch_size=4)
    assert caught.value.field == "kv_cache_bytes"


def test_the_memory_is_that_of_the_models_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {0: 1000 * MEBIBYTE, 1: 500 * MEBIBYTE}
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[device.index], 0))
    assert [sizes.default_cache_bytes(torch.device("cuda", index)) for index in free] == [
        400 * MEBIBYTE,
        200 * MEBIBYTE,
    ]


class Gpu:
    """A GPU of 1,000 MiB, on which weights take 200, and others what is neither free nor taken by the weights."""

    def __init__(self, patch: pytest.MonkeyPatch, free: int = 800) -> None:
        patch.setattr(torch.cuda, "empty_cache", lambda: None)
        patch.setattr(torch.cuda, "mem_get_info", lambda device: (free * MEBIBYTE, 1000 * MEBIBYTE))
        patch.setattr(torch.cuda, "memory_reserved", lambda device: 200 * MEBIBYTE)
        model = loaded("Llama").model
        self.model = SimpleNamespace(device=torch.device("cuda", 0), dtype=torch.bfloat16, config=model.config)
        self.step_bytes = sizes._step_bytes(self.model, 8)

    def cache_bytes(self, attention_name: str = attention.IN_PLACE_ATTENTION, **settings: Any) -> int:
        load = Load(model="", is_directory=True, cache_dir="", **settings)
        return sizes.configured_cache_bytes(self.model, load, 8, attention=attention_name)


def test_a_share_of_the_gpu_holds_weights_cache_graphs_and_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch)
    graphs = sizes.most_graph_bytes(gpu.model.device)
    assert graphs == 50 * MEBIBYTE
    half = gpu.cache_bytes(gpu_memory_utilization=0.5)
    assert half + 200 * MEBIBYTE + graphs + gpu.step_bytes == 500 * MEBIBYTE
    assert gpu.cache_bytes(gpu_memory_utilization=0.5, cuda_graphs=False) == half + graphs
    assert gpu.cache_bytes(attention.PAGED_ATTENTION, gpu_memory_utilization=0.5) == half + graphs


def test_the_share_is_bounded_by_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch, free=300)
    assert gpu.cache_bytes(gpu_memory_utilization=0.9) == 250 * MEBIBYTE - gpu.step_bytes


def test_a_configured_cache_comes_before_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch)
    assert gpu.cache_bytes(gpu_memory_utilization=0.5, kv_cache_bytes=10 * MEBIBYTE) == 10 * MEBIBYTE
    assert gpu.cache_bytes() == 320 * MEBIBYTE


def test_a_share_that_leaves_nothing_for_the_cache_is_refused_with_all_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch)
    with pytest.raises(ConfigurationError, match=r"gpu_memory_utilization: 0\.2 of the 1048576000 bytes") as caught:
        gpu.cache_bytes(gpu_memory_utilization=0.2)
    assert caught.value.field == "gpu_memory_utilization"
    assert caught.value.requested == 200 * MEBIBYTE
    assert isinstance(caught.value.limit, int)
    assert caught.value.limit > 250 * MEBIBYTE
    assert "The weights take 209715200" in caught.value.message


def test_a_share_of_a_gpu_is_refused_on_a_cpu() -> None:
    with pytest.raises(ConfigurationError, match="gpu_memory_utilization: the model is on cpu") as caught:
        started(loaded("Llama"), gpu_memory_utilization=0.5)
    assert caught.value.field == "gpu_memory_utilization"


def test_what_a_batch_on_a_gpu_runs_with_is_told() -> None:
    engine: Any = SimpleNamespace(graph_sizes=None, overlaps=True)
    gpu: Any = SimpleNamespace(device=torch.device("cuda"))
    kernels = start.FusedKernels(gpu, wanted=False)
    told = start._summary(gpu, attention.PAGED_ATTENTION, {"flash_attention_2": "it failed"}, kernels, engine)
    assert told == (
        "attention abstractllm_paged (not flash_attention_2: it failed); no fused kernels: switched off; "
        "no CUDA graphs; steps overlap"
    )


@pytest.mark.parametrize(("name", "tokens"), [(attention.PAGED_ATTENTION, 16), ("flash_attention_2", 256)])
def test_pages_are_of_the_size_that_the_documentation_names(name: str, tokens: int) -> None:
    config = sizes.batching_config(
        loaded("Llama").model, 4, 64 * MEBIBYTE, window=256, attention=name, cuda_graphs=False
    )
    assert config.page_size == tokens
    page = Path(__file__).parents[2] / "docs" / "providers" / "huggingface.md"
    assert "whole pages of 16 tokens; of 256 where a flash attention package is used" in page.read_text("utf-8")


def test_without_memory_to_spare_requests_are_answered_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "default_cache_bytes", lambda device: 1000)
    model = loaded("Llama")
    assert started(model) is None
    assert "one at a time" in model.description.note
    assert "at least 24576" in model.description.note


@pytest.mark.parametrize("version", [1, 2])
def test_the_default_follows_the_memory_of_the_container(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path if version == 2 else tmp_path / "memory"
    folder.mkdir(exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    limit, used = (folder / name for name in names)
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {100 * MEBIBYTE}\nactive_file {50 * MEBIBYTE}\n")
    monkeypatch.setattr(machine, "_CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(sizes.psutil, "virtual_memory", lambda: SimpleNamespace(available=64 << 30))
    cpu = torch.device("cpu")
    used.write_text(f"{350 * MEBIBYTE}\n")
    limit.write_text(f"{1000 * MEBIBYTE}\n")
    assert sizes.default_cache_bytes(cpu) == 200 * MEBIBYTE
    limit.write_text(f"{100_000 * MEBIBYTE}\n")
    assert sizes.default_cache_bytes(cpu) == 512 * MEBIBYTE
    limit.write_text("max\n")
    assert sizes.default_cache_bytes(cpu) == 512 * MEBIBYTE
    monkeypatch.setattr(sizes.psutil, "virtual_memory", lambda: SimpleNamespace(available=400 * MEBIBYTE))
    assert sizes.default_cache_bytes(cpu) == 100 * MEBIBYTE


def test_a_model_that_cannot_generate_at_all_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("Llama")
    monkeypatch.setattr(model.model, "forward", lambda *arguments, **options: 1 / 0)
    with pytest.raises(ModelLoadError, match="cannot generate"):
        started(model)


def test_only_attention_that_is_installed_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def model(device: str, dtype: torch.dtype, flash: bool = True, name: str = "Mistral") -> Any:
        config = loaded(name).model.config  # Mistral has a sliding window
        return SimpleNamespace(device=torch.device(device), dtype=dtype, _supports_flash_attn=flash, config=config)

    monkeypatch.setattr(attention, "is_flash_attn_2_available", lambda: True)
    monkeypatch.setattr(attention, "find_spec", lambda name: name == "triton")
    half, in_place, paged = torch.bfloat16, attention.IN_PLACE_ATTENTION, attention.PAGED_ATTENTION
    assert attention.candidates(model("cpu", half), False) == [paged]
    assert attention.candidates(model("cuda", torch.float32), False) == [paged]
    assert attention.candidates(model("cuda", half, flash=False), False) == [in_place, paged]
    assert attention.candidates(model("cuda", half), False) == [in_place, paged]
    assert attention.candidates(model("cuda", half, name="Llama"), False) == ["flash_attention_2", in_place, paged]
    assert attention.candidates(model("cuda", half, name="Llama"), True) == ["flash_attention_2", in_place]
    for name in ("Llama", "Gemma 2", "GPT-OSS"):
        assert attention.candidates(model("cuda", half, flash=False, name=name), None) == [in_place, paged]
    for name in ("Lfm2", "Llama 4", "Qwen3-Next"):  # whose layers no batch knows
        assert in_place in attention.candidates(model("cuda", half, name=name), None)
    assert attention.left_out(model("cuda", half), None) == {
        "flash_attention_3": "its package is not installed",
        "flash_attention_2": "it does not read pages in place with a sliding window",
    }
    assert attention.left_out(model("cpu", half), None)[in_place] == "not on cpu"
    assert attention.left_out(model("cuda", torch.float32), None)["flash_attention_2"] == "not in float32"
    monkeypatch.setattr(attention, "find_spec", lambda name: None)
    assert attention.candidates(model("cuda", half), None) == ["flash_attention_2", paged]
    assert attention.candidates(model("cuda", half, flash=False), None) == [paged]
    assert attention.left_out(model("cuda", half), None)[in_place] == "Triton is not installed"


def test_cuda_graphs_on_a_cpu_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="cuda_graphs"):
        started(loaded("Llama"), cuda_graphs=True)


@pytest.mark.parametrize("name", ["Gemma 2", "GPT-OSS"])
def test_where_a_kernel_fails_the_next_implementation_is_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(attention, "in_place_attention", failing)
    names = [attention.IN_PLACE_ATTENTION, attention.PAGED_ATTENTION]
    monkeypatch.setattr(start, "candidates", lambda model, cuda_graphs: names)
    model = loaded(name)
    engine = started(model, kv_cache_bytes=4 * MEBIBYTE, max_batch_size=4)
    assert engine is not None
    assert model.model.config._attn_implementation == attention.PAGED_ATTENTION
    assert model.description.note == ""
    engine.stop()


def test_a_loop_that_failed_holds_no_memory_when_the_next_one_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    caches: list[weakref.ref[torch.Tensor]] = []
    held: list[int] = []

    class NotedEngine(BatchEngine):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            held.append(sum(reference() is not None for reference in caches))
            super().__init__(*arguments, **options)
            caches.append(weakref.ref(self._manager.cache.cache_tensor))

    def failing(*_: Any) -> None:
        raise CheckFailedError("wrong")

    monkeypatch.setattr(start, "BatchEngine", NotedEngine)
    monkeypatch.setattr(start, "run_probes", failing)
    monkeypatch.setattr(start, "candidates", lambda *_: [attention.PAGED_ATTENTION] * 3)
    gc.disable()  # it may come at any time
    try:
        assert started(loaded("Llama"), kv_cache_bytes=4 * MEBIBYTE, max_batch_size=4) is None
    finally:
        gc.enable()
    assert held == [0, 0, 0]
    assert not any(reference() is not None for reference in caches)


@pytest.mark.parametrize("quantization", ["none", "int8", "int4"])
def test_the_demo_model_is_answered_in_batches_whatever_its_precision(quantization: str) -> None:
    settings = HuggingFaceConfig.parse({"quantization": quantization, "kv_cache_bytes": 8 * MEBIBYTE}).load_settings()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bitsandbytes tells of its casts
        model = load_model(settings, lambda phase, fraction=None: None)
        engine = start.start(model, settings, send=lambda _: None, end=lambda *_: None, crash=lambda: None)
    assert engine is not None, model.description.note
    engine.stop()


def test_end_tokens_do_not_cut_the_check_short() -> None:
    model = loaded("Llama")
    model.model.generation_config.eos_token_id = list(range(len(tokenizer())))
    engine = started(model, kv_cache_bytes=4 * MEBIBYTE, max_batch_size=4)
    assert engine is not None, model.description.note
    engine.stop()
