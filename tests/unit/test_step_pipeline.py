"""Steps that begin before the tokens of the one before are known: the same answers, and nothing is kept."""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from abstractllm.providers.huggingface.protocol.messages import Load
from abstractllm.providers.huggingface.worker.batching import row_settings, sampler, start
from abstractllm.providers.huggingface.worker.batching.group_inputs import GroupInputs, Sequences
from abstractllm.providers.huggingface.worker.batching.sampler import BatchSampler, SampledStep
from abstractllm.providers.huggingface.worker.batching.scheduling import BatchRequest
from abstractllm.providers.huggingface.worker.model import LoadedModel
from tests.unit.fault_harness import CUDA_MEMORY, FaultHarness, ask_neighbours, load, poison, running
from tests.unit.test_batching import MIXED
from tests.unit.tiny_models import build
from tests.waiting import wait_until

WISHES = [(f"hello number {index} " * (1 + index % 5), MIXED[index % len(MIXED)]) for index in range(20)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "llama", "llama", max_position_embeddings=512)


@pytest.fixture
def loaded(directory: Path) -> LoadedModel:
    return load(directory)


@pytest.fixture
def overlapped(loaded: LoadedModel) -> Iterator[FaultHarness]:
    with running(loaded, overlaps=True) as harness:
        yield harness


@pytest.fixture(scope="module")
def wanted(directory: Path) -> list[tuple[str, str, int]]:
    """Returns the answers of requests one after another, by steps that do not overlap."""
    with running(load(directory), overlaps=False) as harness:
        return [harness.answer(harness.submit(prompt, **sampling))[0] for prompt, sampling in WISHES]


class Order:
    """Notes the forward passes, and when their tokens are taken."""

    def __init__(self, harness: FaultHarness, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[str] = []
        self.rows: list[int] = []
        """The requests of which each step samples a token."""
        take, sample = SampledStep.take, BatchSampler.sample
        compute = harness.engine._manager._pipeline._compute

        def noted_take(*arguments: Any) -> Any:
            self.events.append("take")
            return take(*arguments)

        def noted_sample(batch_sampler: BatchSampler, logits: Any, states: list[Any]) -> Any:
            self.rows.append(len(states))
            return sample(batch_sampler, logits, states)

        def noted_compute(*arguments: Any) -> Any:
            self.events.append("forward")
            return compute(*arguments)

        monkeypatch.setattr(SampledStep, "take", noted_take)
        monkeypatch.setattr(BatchSampler, "sample", noted_sample)
        monkeypatch.setattr(harness.engine._manager._pipeline, "_compute", noted_compute)


@pytest.mark.parametrize("overlaps", [True, False])
def test_a_step_begins_before_the_tokens_of_the_one_before_are_read(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, overlaps: bool
) -> None:
    with running(loaded, overlaps=overlaps) as harness:
        order = Order(harness, monkeypatch)
        assert harness.answer(harness.submit("hello", temperature=0.0, max_tokens=6))[0][2] == 6
        wait_until(harness.is_empty)
    # No step begins after one that must be the last.
    expected = ["forward", *["forward", "take"] * 5, "take"] if overlaps else ["forward", "take"] * 6
    assert order.events == expected
    assert order.rows == [1] * 6


def test_a_request_that_has_ended_gets_no_further_token(
    overlapped: FaultHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = Order(overlapped, monkeypatch)
    stopped = overlapped.submit("hello", temperature=0.0, stop=("e", "a", "o", " "), max_tokens=60)
    longer = overlapped.submit("hello", temperature=1.0, seed=3, max_tokens=60)
    overlapped.answer(stopped, longer)
    wait_until(overlapped.is_empty)
    tokens = stopped.output_tokens + longer.output_tokens
    assert sum(order.rows) == tokens
    assert order.events.count("forward") <= 1 + max(stopped.output_tokens, longer.output_tokens) + 1


def test_every_kind_of_request_gets_what_it_would_have_got_alone(
    overlapped: FaultHarness, wanted: list[tuple[str, str, int]]
) -> None:
    assert overlapped.answer(*[overlapped.submit(prompt, **sampling) for prompt, sampling in WISHES]) == wanted
    late = []
    for prompt, sampling in WISHES:
        late.append(overlapped.submit(prompt, **sampling))
        time.sleep(0.004)
    assert overlapped.answer(*late) == wanted
    held = [overlapped.submit_with_format("hello", "[a-z]{1,5}", seed=seed, temperature=1.0) for seed in range(6)]
    free = overlapped.submit(WISHES[0][0], **WISHES[0][1])
    texts = [text for text, _, _ in overlapped.answer(*held)]
    assert all(text.isalpha() and text.islower() and len(text) <= 5 for text in texts)
    assert overlapped.answer(free) == wanted[:1]
    wait_until(overlapped.is_empty)


def test_tokens_that_are_chosen_again_replace_the_ones_that_were_carried_over(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    again: list[int] = []
    choose = sampler.METHODS["open"]

    def noted(logits: Any, rows: Any) -> Any:
        again.append(len(rows.states))
        return choose(logits, rows)

    # So few that what a nucleus or min-p keeps is more, again and again.
    monkeypatch.setattr(row_settings, "MOST_LIKELY", 2)
    monkeypatch.setitem(sampler.METHODS, "open", noted)
    with running(loaded, overlaps=False) as plain:
        wanted = [plain.answer(plain.submit(prompt, **sampling))[0] for prompt, sampling in WISHES]
    counted = sum(again)
    assert counted > 10
    with running(loaded, overlaps=True) as harness:
        assert harness.answer(*[harness.submit(prompt, **sampling) for prompt, sampling in WISHES]) == wanted
        wait_until(harness.is_empty)
    assert sum(again) == 2 * counted


def test_evictions_in_flight_change_no_text(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    evicted: list[str] = []
    real = BatchRequest.create_equivalent_initial_request

    def evict(request: BatchRequest) -> BatchRequest:
        evicted.append(request.request_id)
        return real(request)

    monkeypatch.setattr(BatchRequest, "create_equivalent_initial_request", evict)
    wishes = [(f"tell {index} me", MIXED[index % len(MIXED)]) for index in range(8)]
    with running(loaded, overlaps=False) as roomy:
        wanted = roomy.answer(*[roomy.submit(prompt, max_tokens=120, **sampling) for prompt, sampling in wishes])
    page = 2 * 16 * loaded.model.config.num_key_value_heads * loaded.model.config.head_dim * 4
    cache_bytes = page * loaded.model.config.num_hidden_layers * 28
    with running(loaded, max_batch_size=8, cache_bytes=cache_bytes, overlaps=True) as narrow:
        answers = narrow.answer(*[narrow.submit(prompt, max_tokens=120, **sampling) for prompt, sampling in wishes])
        assert answers == wanted
        assert len(evicted) > 3
        wait_until(narrow.is_empty)


def test_whatever_is_cancelled_in_flight_is_released(
    overlapped: FaultHarness, wanted: list[tuple[str, str, int]]
) -> None:
    generator = random.Random(1)
    requests = []
    for index in range(90):
        prompt = "a long prompt " * generator.randint(1, 30)
        requests.append(overlapped.submit(prompt, max_tokens=generator.randint(1, 60)))
        if index % 3 == 0:
            generator.choice(requests).cancelled = True
            time.sleep(generator.random() * 0.01)
    for request in requests[::2]:
        request.cancelled = True
    overlapped.answer(*requests)
    assert (overlapped.released, overlapped.failed) == (90, {})
    wait_until(overlapped.is_empty)
    assert overlapped.answer(*[overlapped.submit(prompt, **sampling) for prompt, sampling in WISHES]) == wanted


def test_a_cancelled_request_ends_within_two_steps(overlapped: FaultHarness) -> None:
    request = overlapped.submit("hello", temperature=0.0, max_tokens=400)
    overlapped.wait_until(lambda: request.output_tokens > 3)
    request.cancelled = True
    steps = overlapped.engine.counters.steps
    overlapped.answer(request)
    assert overlapped.engine.counters.steps <= steps + 2
    wait_until(overlapped.is_empty)


def test_too_little_memory_in_flight_makes_steps_smaller(overlapped: FaultHarness) -> None:
    wanted = overlapped.answer(*ask_neighbours(overlapped))
    refused: list[int] = []

    def refuse(module: Any, arguments: Any, options: dict[str, Any]) -> None:
        requests = len(options["cu_seq_lens_q"]) - 1
        if requests > 4:
            refused.append(requests)
            raise CUDA_MEMORY

    hook = overlapped.loaded.model.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        assert overlapped.answer(*ask_neighbours(overlapped)) == wanted
    finally:
        hook.remove()
    assert refused
    assert overlapped.failed == {}
    wait_until(overlapped.is_empty)


@pytest.mark.parametrize("overlaps", [True, False])
def test_too_little_memory_for_the_inputs_makes_steps_smaller(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, overlaps: bool
) -> None:
    with running(loaded, overlaps=overlaps) as harness:
        wanted = harness.answer(*ask_neighbours(harness))
        refused: list[int] = []
        prepare = GroupInputs.prepare

        def refuse(group: GroupInputs, sequences: Sequences, size: int) -> None:
            if len(sequences.ids) > 4:
                refused.append(len(sequences.ids))
                raise CUDA_MEMORY
            prepare(group, sequences, size)

        monkeypatch.setattr(GroupInputs, "prepare", refuse)
        assert harness.answer(*ask_neighbours(harness)) == wanted
        assert refused
        assert harness.failed == {}
        wait_until(harness.is_empty)


@pytest.mark.parametrize("overlaps", [True, False])
def test_the_loop_does_not_wait_with_messages_that_are_to_be_sent(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, overlaps: bool
) -> None:
    with running(loaded, overlaps=overlaps) as harness:
        kept: list[int] = []
        wake_up = harness.engine._manager._wake_up_loop
        wait = wake_up.wait

        def noted_wait(timeout: float | None = None) -> bool:
            kept.append(0 if wake_up.is_set() else len(harness.engine._outbox))
            return wait(timeout)

        monkeypatch.setattr(wake_up, "wait", noted_wait)
        harness.answer(harness.submit("hello", temperature=0.0, max_tokens=6))
        wait_until(harness.is_empty)
        rounds = len(kept)
        wait_until(lambda: len(kept) > rounds)
        assert not any(kept)


def test_an_overflow_in_flight_fails_one_request(loaded: LoadedModel) -> None:
    poison(loaded)
    with running(loaded, overlaps=True) as harness:
        wanted = harness.answer(*ask_neighbours(harness))
        first, bad, last = ask_neighbours(harness), harness.submit("hello 🙂 world"), ask_neighbours(harness)
        assert "the model's logits are not finite" in harness.failure(bad).message
        assert (harness.answer(*first), harness.answer(*last)) == (wanted, wanted)
        wait_until(harness.is_empty)


def test_a_model_that_fails_with_overlapping_steps_is_tried_without(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[bool, bool]] = []

    def start_with(trial: Any, name: str, kernels: Any, *, overlaps: bool) -> tuple[Any, str]:
        tried.append((kernels is not None, overlaps))
        return (None, "wrong") if overlaps else (object(), "")

    monkeypatch.setattr(start._Trial, "start_with", start_with)
    kernels = SimpleNamespace(left_out="")
    model = SimpleNamespace(device=torch.device("cuda"))
    loaded: Any = SimpleNamespace(model=model)
    for overlap_steps, expected in ((True, [(True, True), (False, True), (False, False)]), (False, [(True, False)])):
        tried.clear()
        settings = Load(model="", is_directory=True, cache_dir="", overlap_steps=overlap_steps)
        ignored: Any = None
        trial = start._Trial(loaded, settings, (), ignored, ignored, kernels)
        assert trial.start_fastest("any")[0] is not None
        assert tried == expected
