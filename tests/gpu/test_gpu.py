"""Tests that only a GPU can run: half precision, flash attention, CUDA graphs, memory that comes back.

One command, on a machine with a CUDA device, and without flash attention as well as with it installed:

    .venv/bin/python -m pytest tests/gpu

`--device cpu` runs what does not need CUDA on a CPU, to try the tests themselves.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import torch

from abstractllm import create_llm
from abstractllm.providers.huggingface import HuggingFaceProvider
from abstractllm.providers.huggingface.protocol.messages import Conversation, Generate, Load, Sampling
from abstractllm.providers.huggingface.worker.batching import attention
from abstractllm.providers.huggingface.worker.batching.fused_kernels import FusedKernels
from abstractllm.providers.huggingface.worker.batching.sampler import BatchSampler, sample
from abstractllm.providers.huggingface.worker.batching.sampling_state import SamplingState, TokenCounts
from abstractllm.providers.huggingface.worker.batching.start import start
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.request import EngineRequest
from abstractllm.providers.huggingface.worker.sampling_settings import SamplingSettings
from tests import decode_case
from tests.unit.architectures import ARCHITECTURES, model_of, tokenizer
from tests.unit.test_architectures import HANG, NEW_TOKENS, Followers, answered_together, new_request
from tests.unit.tiny_models import build

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

PROMPTS = [list(range(2, 2 + length)) for length in (1, 9, 40, 100, 150, 200)]
NEAR_TIE = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.02}
"""The most that two tokens' logits may lie apart, as a share of their spread, for rounding to decide between them."""
LARGER = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64, "initializer_range": 0.06}


APPLIED: list[FusedKernels] = []
"""Kernels that a test has put into its model, and into transformers' own functions."""


class RecordedKernels(FusedKernels):
    """Fused kernels that are taken out again."""

    def apply(self) -> None:
        APPLIED.append(self)
        super().apply()


def take_out_kernels() -> None:
    while APPLIED:
        APPLIED.pop().undo()


@pytest.fixture(autouse=True)
def own_operations(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Gives every model its own operations back."""
    monkeypatch.setattr("abstractllm.providers.huggingface.worker.batching.start.FusedKernels", RecordedKernels)
    yield
    take_out_kernels()


def large(name: str, device: torch.device, dtype: torch.dtype) -> LoadedModel:
    """A model with heads of 64, which the kernels of a GPU take."""
    architecture = next(each for each in ARCHITECTURES if each.name == name)
    model = model_of(architecture, **LARGER).to(device, dtype)
    return LoadedModel(model, tokenizer(), Load(model="", is_directory=True, cache_dir=""))


def batched(loaded: LoadedModel, **settings: Any) -> list[list[int]]:
    """The greedy tokens of all prompts at once."""
    load = Load(model="", is_directory=True, cache_dir="", kv_cache_bytes=64 << 20, max_batch_size=8, **settings)
    original_attention = loaded.model.config._attn_implementation
    try:
        return answered_together(loaded, load, PROMPTS)
    finally:
        take_out_kernels()
        loaded.model.set_attn_implementation(original_attention)


def alone(loaded: LoadedModel) -> list[list[int]]:
    answers = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt], device=loaded.model.device)
        options = {"do_sample": False, "max_new_tokens": NEW_TOKENS, "pad_token_id": 0, "eos_token_id": 1}
        tokens = loaded.model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, len(prompt) :].tolist()
        answers.append([token for token in tokens if token != 1])
    return answers


@torch.no_grad()
def assert_same_but_for_near_ties(loaded: LoadedModel, answers: list[list[int]], wanted: list[list[int]]) -> None:
    """At the first difference of two answers, the logits, computed again, hold both tokens for equally likely."""
    for prompt, ours, theirs in zip(PROMPTS, answers, wanted, strict=True):
        ours, theirs = [*ours, 1], [*theirs, 1]  # the end token, which none of them has
        same = next((place for place, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None)
        if same is None or same >= NEW_TOKENS:
            continue
        ids = torch.tensor([prompt + theirs[:same]], device=loaded.model.device)
        logits = loaded.model(ids).logits[0, -1].float()
        gap = (logits[ours[same]] - logits[theirs[same]]).abs() / logits.std()
        assert gap <= NEAR_TIE[loaded.model.dtype], f"new token {same} of a prompt of {len(prompt)}: {gap:.3g}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["Llama", "Qwen3", "Mistral", "Gemma 2", "Gemma 3", "GPT-OSS"])
def test_answers_in_a_batch_are_those_of_generate(device: torch.device, name: str, dtype: torch.dtype) -> None:
    loaded = large(name, device, dtype)
    assert_same_but_for_near_ties(loaded, batched(loaded), alone(loaded))


@pytest.mark.parametrize("name", ["Llama", "Mistral", "Gemma 3"])
def test_every_attention_gives_the_same_answers(
    device: torch.device, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = large(name, device, torch.bfloat16)
    wanted = alone(loaded)
    for each in attention.candidates(loaded.model, cuda_graphs=None):
        monkeypatch.setattr(
            "abstractllm.providers.huggingface.worker.batching.start.candidates", lambda *_, only=each: [only]
        )
        assert_same_but_for_near_ties(loaded, batched(loaded), wanted)


@pytest.mark.parametrize("name", ["Llama", "Qwen3", "Mistral", "Gemma 2", "Gemma 3", "GPT-OSS"])
def test_captured_answers_are_those_of_the_plain_loop(device: torch.device, name: str) -> None:
    if device.type == "cpu":
        pytest.skip("CUDA graphs need CUDA")
    loaded = large(name, device, torch.bfloat16)
    wanted = batched(loaded, cuda_graphs=False)
    assert_same_but_for_near_ties(loaded, batched(loaded, cuda_graphs=True), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("cuda_graphs", [None, False], ids=["captured", "plain"])
def test_answers_of_steps_that_overlap_are_those_of_steps_that_do_not(
    device: torch.device, dtype: torch.dtype, cuda_graphs: bool | None
) -> None:
    loaded = large("Llama", device, dtype)
    wanted = batched(loaded, cuda_graphs=cuda_graphs, overlap_steps=False)
    for _ in range(3):
        answers = batched(loaded, cuda_graphs=cuda_graphs)
        assert "steps overlap" in loaded.description.note or device.type == "cpu"
        assert_same_but_for_near_ties(loaded, answers, wanted)


@pytest.mark.parametrize("name", ["Llama", "Qwen3", "Qwen3-MoE", "Mistral", "Gemma 2", "Gemma 3", "GPT-OSS"])
def test_fused_kernels_give_the_same_answers(device: torch.device, name: str) -> None:
    if device.type == "cpu":
        pytest.skip("liger-kernel needs a GPU")
    pytest.importorskip("liger_kernel")
    loaded = large(name, device, torch.bfloat16)
    wanted = batched(loaded, fused_kernels=False)
    loaded.description = msgspec.structs.replace(loaded.description, note="")
    answers = batched(loaded)
    assert "fused kernels of liger-kernel" in loaded.description.note
    assert_same_but_for_near_ties(loaded, answers, wanted)


def test_a_model_takes_no_more_than_its_share_of_the_device(device: torch.device) -> None:
    if device.type == "cpu":
        pytest.skip("a share of a GPU needs one")
    loaded = large("Llama", device, torch.bfloat16)
    _, total = torch.cuda.mem_get_info(device)
    settings: dict[str, Any] = {"gpu_memory_utilization": 0.1, "max_batch_size": 4096, "cuda_graphs": False}
    load = Load(model="", is_directory=True, cache_dir="", **settings)
    # So many tokens that the share bounds the cache, and not the most that requests can hold.
    loaded.description = msgspec.structs.replace(loaded.description, context_window=8192)
    engine = start(loaded, load, send=lambda _: None, end=lambda _: None, crash=lambda: None)
    assert engine is not None
    engine.stop()
    assert 0.05 * total < engine.cache_bytes
    assert torch.cuda.memory_reserved(device) < 0.1 * total


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [*decode_case.SHAPES, (32, 8, 128)], ids=str)
def test_the_pages_are_read_in_place(device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    if device.type == "cpu":
        pytest.skip("tests/unit/test_paged_decode.py tries the kernel on a CPU")
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    for options in decode_case.OPTIONS:
        case = decode_case.DecodeCase(*shape, lengths=(1, 0, 5, 17, 130, 64, 1000), dtype=dtype, device=device)
        decode_case.check(shape, options, case, tolerance)


def test_nothing_is_captured_while_serving(device: torch.device) -> None:
    if device.type == "cpu":
        pytest.skip("CUDA graphs need CUDA")
    loaded = large("Llama", device, torch.bfloat16)
    followers = Followers()
    load = Load(model="", is_directory=True, cache_dir="", kv_cache_bytes=64 << 20, max_batch_size=8)
    engine = start(loaded, load, send=followers.take_all, end=followers.end, crash=followers.crash)
    assert engine is not None
    assert loaded.model.config._attn_implementation == attention.IN_PLACE_ATTENTION
    assert engine.graph_sizes is not None
    assert engine.graph_sizes.captured == [1, 2, 4, 8]
    runner = engine._manager.processor.model_runner
    runner._capture_graph = lambda *arguments: pytest.fail("a graph was captured")
    try:
        for index, prompt in enumerate(PROMPTS):
            engine.submit(new_request(index, prompt))
        followers.wait(len(PROMPTS))
    finally:
        engine.stop()
    assert engine.failure is None


def test_the_sampler_takes_on_the_device_the_tokens_that_it_takes_on_a_cpu(device: torch.device) -> None:
    def states() -> list[SamplingState]:
        cuts: list[dict[str, Any]] = [{}, {"top_k": 20}, {"top_p": 0.9}, {"min_p": 0.1}, {"temperature": 0.0}]
        cuts.append({"top_p": 0.99, "top_k": 300})
        return [SamplingState(SamplingSettings(**cuts[index % len(cuts)]), seed=index) for index in range(1200)]

    logits = torch.randn(1200, 4000, generator=torch.Generator().manual_seed(0)) * 2
    pairs = zip(sample(logits.clone(), states()), sample(logits.to(device), states()), strict=True)
    # Sums in another order may move an edge between two tokens onto the other side of a random number.
    assert sum(ours != theirs for ours, theirs in pairs) <= 5


def test_step_after_step_the_sampler_changes_logits_on_the_device_as_on_a_cpu(device: torch.device) -> None:
    wishes: list[dict[str, Any]] = [
        {"repetition_penalty": 1.3, "top_k": 20},
        {"presence_penalty": 0.5, "frequency_penalty": 0.25, "logit_bias": {7: 3.0, 11: -2.0}},
        {"logit_bias": {3: 5.0}, "temperature": 0.0},
        {"temperature": 0.0},
        {"top_p": 0.9, "repetition_penalty": 1.1},
    ]

    def states() -> list[SamplingState]:
        made = []
        for index in range(60):
            settings = SamplingSettings(**wishes[index % len(wishes)])
            counts = TokenCounts(range(index, index + 50)) if settings.has_penalties else None
            made.append(SamplingState(settings, seed=index, counts=counts, top_logprobs=3 if index % 2 else None))
        return made

    batches = [(states(), torch.device("cpu"), BatchSampler()), (states(), device, BatchSampler())]
    generator = torch.Generator().manual_seed(1)
    different = 0
    for step in range(40):
        logits = torch.randn(60, 500, generator=generator) * 3
        if step == 20:  # some requests have ended
            batches = [(kept[::2], place, sampler) for kept, place, sampler in batches]
        rows = logits[::2] if step >= 20 else logits
        ours, theirs = (sampler.sample(rows.clone().to(place), kept).take() for kept, place, sampler in batches)
        different += sum(one != other for one, other in zip(ours, theirs, strict=True))
        for one, other in zip(batches[0][0], batches[1][0], strict=True):
            assert (one.logprobs is None) == (other.logprobs is None)
            assert one.error is other.error is None
    assert different <= 60  # one that differs has another history from then on


def test_cancelled_requests_leave_the_device_idle(device: torch.device) -> None:
    loaded = large("Llama", device, torch.bfloat16)
    followers = Followers()
    load = Load(model="", is_directory=True, cache_dir="", kv_cache_bytes=64 << 20, max_batch_size=32)
    engine = start(loaded, load, send=followers.take_all, end=followers.end, crash=followers.crash)
    assert engine is not None
    requests = []
    sampling = Sampling(temperature=1.0, logit_bias={1: -100.0})
    try:
        for number in range(32):
            requests.append(
                EngineRequest(Generate(number, Conversation(()), sampling), prompt=tuple(range(2, 20)), max_tokens=200)
            )
            engine.submit(requests[-1])
        began = time.perf_counter()
        for request in requests:
            request.cancelled = True
        followers.wait(len(requests))
        print(f"32 requests cancelled, all over after {1000 * (time.perf_counter() - began):.0f} ms")
        deadline = time.monotonic() + HANG
        while (
            engine._manager.processor.scheduler.active_requests or engine._manager.processor.scheduler.waiting_requests
        ):
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        engine.stop()


def in_use(device: torch.device) -> int:
    """Bytes that are taken on the device, or, on a CPU, by this process and those it has started."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(device)
        return total - free
    this = psutil.Process()
    return sum(process.memory_info().rss for process in (this, *this.children(recursive=True)))


def opened(directory: Path) -> HuggingFaceProvider:
    llm = create_llm("huggingface", model=str(directory), temperature=0, kv_cache_bytes=256 << 20)
    assert isinstance(llm, HuggingFaceProvider)
    return llm


def test_two_models_share_the_device_and_give_their_memory_back(device: torch.device, tmp_path: Path) -> None:
    directories = [build(tmp_path / kind, kind, hidden_size=256, head_dim=64) for kind in ("llama", "qwen3")]
    before = in_use(device)
    first, second = map(opened, directories)
    try:
        wanted = first.generate("hello", max_tokens=8)
        one = in_use(device)
        second.generate("hello", max_tokens=8)
        both = in_use(device)
        assert before < one < both
        assert first.generate("hello", max_tokens=8) == wanted
    finally:
        first.close()
        second.close()
    assert in_use(device) - before <= 0.02 * (both - before)
