"""Too little memory while tokens are generated: the step is made smaller, and at most the largest request fails."""

from pathlib import Path
from typing import Any

import pytest
import torch

from abstractllm.providers.huggingface.protocol.messages import (
    Conversation,
    Turn,
)
from abstractllm.providers.huggingface.worker.batching import row_settings, sampler
from abstractllm.providers.huggingface.worker.batching.random_numbers import uniforms
from abstractllm.providers.huggingface.worker.batching.row_settings import RowSettings
from abstractllm.providers.huggingface.worker.batching.sampling_state import SamplingState
from abstractllm.providers.huggingface.worker.generation_errors import is_out_of_memory
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.request import failure_message
from abstractllm.providers.huggingface.worker.sampling_settings import SamplingSettings
from tests.unit.fault_harness import (
    BAD_SEED,
    CPU_MEMORY,
    CUDA_MEMORY,
    FaultHarness,
    ask_neighbours,
    is_bad,
    load,
    running,
)
from tests.unit.test_batching import MEBIBYTE
from tests.unit.tiny_models import build
from tests.waiting import wait_until


@pytest.mark.parametrize("error", [CUDA_MEMORY, CPU_MEMORY, MemoryError()], ids=lambda error: type(error).__name__)
def test_a_step_that_needs_too_much_memory_is_made_smaller_and_nobody_fails(
    loaded: LoadedModel, error: Exception
) -> None:
    """A step with more than four requests, or with more than 24 tokens of prompts, finds no memory."""
    with running(loaded) as harness:
        wanted = harness.answer(*ask_neighbours(harness))
        refused: list[int] = []

        def refuse(module: Any, arguments: Any, options: dict[str, Any]) -> None:
            requests = len(options["cu_seq_lens_q"]) - 1
            if requests > 4:
                refused.append(requests)
                raise error

        hook = loaded.model.register_forward_pre_hook(refuse, with_kwargs=True)
        try:
            assert harness.answer(*ask_neighbours(harness)) == wanted
        finally:
            hook.remove()
        assert refused
        assert harness.failed == {}
        assert harness.answer(*ask_neighbours(harness)) == wanted
        wait_until(harness.is_empty)


@pytest.mark.parametrize("changes", [{}, {"layer_types": ["sliding_attention", "full_attention"]}], ids=str)
def test_the_one_request_that_finds_no_memory_fails_and_the_others_answer(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    sliding = {"use_sliding_window": True, "sliding_window": 24, **changes} if changes else {}
    loaded = load(build(tmp_path / "model", "qwen3", max_position_embeddings=512, **sliding))
    with running(loaded, max_batch_size=16) as harness:
        wanted = harness.answer(*ask_neighbours(harness))
        long_prompt = "one two three four five six seven " * 12
        enough = len(loaded.prompt_builder.encode(Conversation((Turn("user", long_prompt),)))) - 5

        def refuse(module: Any, arguments: Any, options: dict[str, Any]) -> None:
            if int(options["position_ids"].max()) > enough:
                raise CUDA_MEMORY

        hook = loaded.model.register_forward_pre_hook(refuse, with_kwargs=True)
        try:
            first, large, last = ask_neighbours(harness), harness.submit(long_prompt), ask_neighbours(harness)
            failure = harness.failure(large)
            assert (failure.reason, harness.answer(*first), harness.answer(*last)) == ("OVERLOADED", wanted, wanted)
        finally:
            hook.remove()
        assert failure.message.endswith("CUDA out of memory. Tried to allocate 20.00 GiB.")
        assert list(harness.failed) == [large.message.id]
        assert harness.answer(harness.submit(long_prompt, temperature=0.0))[0][2] > 0
        wait_until(harness.is_empty)


def test_a_request_gives_way_and_goes_on_where_it_was(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """While two requests run, the larger one cannot: it waits for the other's end, and its text is the same."""
    wishes: list[dict[str, Any]] = [
        {"temperature": 1.0, "seed": 3, "max_tokens": 60},
        {"temperature": 0.0, "max_tokens": 20, "presence_penalty": 1.0},
    ]
    with running(loaded, max_batch_size=4, cache_bytes=8 * MEBIBYTE) as harness:
        wanted = [harness.answer(harness.submit(f"hello {index}", **wish))[0] for index, wish in enumerate(wishes)]
        counted = harness.engine.counters.evictions

        def refuse(module: Any, arguments: Any, options: dict[str, Any]) -> None:
            if len(options["cu_seq_lens_q"]) > 2 and int(options["position_ids"].max()) > 20:
                raise CUDA_MEMORY

        hook = loaded.model.register_forward_pre_hook(refuse, with_kwargs=True)
        try:
            requests = [harness.submit(f"hello {index}", **wish) for index, wish in enumerate(wishes)]
            assert harness.answer(*requests) == wanted
        finally:
            hook.remove()
        assert harness.engine.counters.evictions > counted
        assert harness.failed == {}


def test_too_little_memory_in_the_sampler_fails_at_most_its_request(
    harness: FaultHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = harness.answer(*ask_neighbours(harness))

    def method(name: str) -> Any:
        real = sampler.METHODS[name]

        def greedy_for_memory(logits: torch.Tensor, rows: RowSettings) -> Any:
            if len(rows.states) > 1 or is_bad(rows.states[0]):
                raise CUDA_MEMORY
            return real(logits, rows)

        return greedy_for_memory

    for name in sampler.METHODS:
        monkeypatch.setitem(sampler.METHODS, name, method(name))
    first = ask_neighbours(harness)
    bad = harness.submit("hello", temperature=1.0, seed=BAD_SEED)
    assert (harness.failure(bad).reason, harness.answer(*first)) == ("OVERLOADED", wanted)
    assert list(harness.failed) == [bad.message.id]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CUDA_MEMORY, "OVERLOADED"),
        (CPU_MEMORY, "OVERLOADED"),
        (MemoryError(), "OVERLOADED"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "OVERLOADED"),
        (torch.AcceleratorError("CUDA error: out of memory"), "OVERLOADED"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "INTERNAL"),
        (ValueError("out of memory"), "INTERNAL"),
    ],
    ids=repr,
)
def test_too_little_memory_is_told_from_faults(error: Exception, reason: str) -> None:
    assert failure_message(1, error).reason == reason
    assert is_out_of_memory(error) == (reason == "OVERLOADED")


def test_a_model_recovers_from_too_little_memory_but_not_from_a_broken_device(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(True))
    loaded.recover(ValueError("a fault of the software"))
    assert not freed
    loaded.recover(CUDA_MEMORY)
    assert freed == [True]
    with pytest.raises(torch.AcceleratorError):
        loaded.recover(torch.AcceleratorError("CUDA error: an illegal memory access was encountered"))


def test_what_a_sampler_had_no_memory_for_is_made_anew_by_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch may then be the same: the request that gave way had only begun."""
    logits = torch.eye(8)[:3] * 5
    states = [SamplingState(SamplingSettings(temperature=0.0), seed=0) for _ in logits]
    batch = sampler.BatchSampler()
    assert batch.sample(logits.clone(), states).take() == [0, 1, 2]

    def fail(*_: Any) -> None:
        raise CUDA_MEMORY

    with monkeypatch.context() as patched:
        patched.setattr(sampler, "_groups", fail)
        with pytest.raises(torch.OutOfMemoryError):
            batch.sample(logits[1:].clone(), states[1:])
    assert batch.sample(logits[1:].clone(), states[1:]).take() == [1, 2]


def test_random_numbers_that_had_no_memory_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    state = SamplingState(SamplingSettings(), seed=7)
    rows = RowSettings([state], 8, torch.device("cpu"))
    rows.numbers()

    def fail(*_: Any) -> None:
        raise CUDA_MEMORY

    state.sampled = 100
    with monkeypatch.context() as patched:
        patched.setattr(row_settings, "to_device", fail)
        with pytest.raises(torch.OutOfMemoryError):
            rows.numbers()
    for state.sampled in (100, 101):
        assert rows.numbers().item() == uniforms([7], [state.sampled])[0]
