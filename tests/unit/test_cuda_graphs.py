"""Decode steps of fixed sizes are captured when a model loads; a step replays the next larger one, or runs without.

Graphs exist on a GPU alone (`tests/gpu` compares them with the plain loop). Here a stand-in replays by running the
captured function again, with the very tensors that it was captured with: what is not in them, a replay does not see.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from transformers.generation.continuous_batching import initialization, model_runner

from abstractllm.providers.huggingface.protocol.messages import (
    Batch,
    Conversation,
    Delta,
    Done,
    Generate,
    Load,
    Sampling,
)
from abstractllm.providers.huggingface.worker.batching import attention, decode_graphs
from abstractllm.providers.huggingface.worker.batching import engine as engine_module
from abstractllm.providers.huggingface.worker.batching.decode_graphs import GraphSizes, graph_sizes
from abstractllm.providers.huggingface.worker.batching.engine import BatchEngine
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.request import EngineRequest
from tests.unit.architectures import ARCHITECTURES, model_of, tokenizer
from tests.unit.kernel_stand_ins import stand_in_for_kernels

MIXED = [
    Sampling(temperature=0.0, top_logprobs=0),
    Sampling(temperature=1.0, seed=1, top_logprobs=0),
    Sampling(temperature=0.8, top_p=0.9, seed=2, repetition_penalty=1.2, top_logprobs=0),
]


class Device:
    """Memory in which each graph takes ten bytes for each request, beside what others can use again."""

    def __init__(self, refused: tuple[int, ...] = ()) -> None:
        self.graphs: list[int] = []
        self.captured: list[int] = []
        self.refused = refused

    def capture(self, size: int) -> bool:
        self.captured.append(size)
        if size not in self.refused:
            self.graphs.append(size)
        return size not in self.refused

    def used_bytes(self) -> int:
        return 1000 + 10 * max(self.graphs, default=0) + len(self.graphs)


def sizes(most_requests: int, most_bytes: int, device: Device) -> GraphSizes:
    policy = GraphSizes(most_requests, most_bytes)
    policy.capture_all(device.capture, device.graphs.remove, device.used_bytes)
    return policy


@pytest.mark.parametrize(
    ("most_requests", "wanted"),
    [
        (1, [1]),
        (2, [1, 2]),
        (6, [1, 2, 4, 6]),
        (24, [1, 2, 4, 8, 16, 24]),
        (64, [1, 2, 4, 8, 16, 24, 32, 48, 64]),
        (256, [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256]),
    ],
)
def test_sizes_are_powers_of_two_and_later_those_between_them(most_requests: int, wanted: list[int]) -> None:
    assert graph_sizes(most_requests) == wanted


def test_the_sizes_are_few_and_no_step_is_filled_up_by_more_than_its_requests() -> None:
    for most_requests in range(1, 4097):
        wanted = graph_sizes(most_requests)
        assert len(wanted) <= 21
        assert wanted[-1] == most_requests
    policy = sizes(4096, 1 << 20, Device())
    for requests in range(1, 4097):
        size = policy.size_for(requests)
        assert size is not None
        assert requests <= size <= max(2 * requests - 1, 1)
        assert requests <= 16 or size <= 1.5 * requests


def test_the_largest_size_is_captured_first_then_the_smallest() -> None:
    device = Device()
    policy = sizes(24, 1000, device)
    assert device.captured == [24, 1, 2, 4, 8, 16]
    assert policy.captured == [1, 2, 4, 8, 16, 24]
    assert policy.left_out == []
    assert policy.used_bytes == 246
    assert str(policy) == "CUDA graphs for decode steps of 1, 2, 4, 8, 16, 24 requests (0 MB)"


def test_where_memory_is_short_small_sizes_are_captured_and_no_more_is_kept_than_allowed() -> None:
    device = Device()
    policy = sizes(64, 165, device)
    assert device.captured == [64, 48, 32, 24, 16, 1, 2, 4, 8]
    assert policy.captured == device.graphs[1:] + device.graphs[:1] == [1, 2, 4, 8, 16]
    assert policy.left_out == [24, 32, 48, 64]
    assert policy.used_bytes == 165
    assert [policy.size_for(requests) for requests in (1, 3, 16, 17, 64)] == [1, 4, 16, None, None]
    assert "none for 24, 32, 48, 64" in str(policy)


def test_capturing_ends_when_the_graphs_themselves_take_too_much() -> None:
    device = Device()
    policy = sizes(16, 163, device)
    assert policy.captured == [1, 2, 16]
    assert policy.left_out == [4, 8]
    assert device.used_bytes() - 1000 <= 163
    assert [policy.size_for(requests) for requests in (2, 3, 7, 8)] == [2, None, None, 16]


def test_a_size_that_cannot_be_captured_runs_without_a_graph() -> None:
    policy = sizes(8, 1000, Device(refused=(1, 2, 4, 8)))
    assert policy.captured == []
    assert [policy.size_for(requests) for requests in (1, 8)] == [None, None]
    assert str(policy) == "no decode step was captured in a CUDA graph"
    assert sizes(8, 1000, Device(refused=(8,))).captured == [1, 2, 4]


class Replays:
    """Stands in for graphs."""

    def __init__(self, patch: pytest.MonkeyPatch, refused: tuple[int, ...] = ()) -> None:
        self.captured: list[int] = []
        self.replayed = 0
        patch.setattr(initialization, "get_accelerator_graph_name", lambda: "CUDAGraph")
        for module in (model_runner, decode_graphs):
            patch.setattr(module, "get_memory_pools", lambda: (None, 0))
        patch.setattr(model_runner, "memory_pool_context", lambda pool: nullcontext())

        def capture(runner: Any, forward: Any, stream: Any, *arguments: Any) -> None:
            def replay() -> None:
                self.replayed += 1
                forward(*arguments)

            size = arguments[1]["input_ids"].shape[1]
            if size in refused:
                raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
            self.captured.append(size)
            forward(*arguments)
            runner.inputs_and_outputs.set_graph(SimpleNamespace(replay=replay, reset=lambda: None))

        patch.setattr(model_runner.ModelRunner, "_capture_graph", capture)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for the kernels of a GPU."""
    stand_in_for_kernels(monkeypatch)


def answers(loaded: LoadedModel, cuda_graphs: bool, replays: Replays | None = None) -> dict[int, list[int]]:
    """The tokens of nine requests, at most six at a time; nothing may be captured while they are answered."""
    tokens: dict[int, list[int]] = {}
    left = [9]
    over = threading.Event()

    def send(batch: Batch) -> None:
        for message in batch.messages:
            if isinstance(message, Delta):
                tokens.setdefault(message.id, []).extend(logprob.token_id for logprob in message.logprobs)
            left[0] -= isinstance(message, Done)
        if not left[0]:
            over.set()

    engine = BatchEngine(
        loaded,
        max_batch_size=6,
        cache_bytes=1 << 20,
        prefix_sharing=True,
        attention_name=attention.IN_PLACE_ATTENTION,
        cuda_graphs=cuda_graphs,
        send=send,
        end=lambda *_: None,
        crash=over.set,
    )
    captured = list(replays.captured) if replays else []
    engine.start()
    try:
        for number in range(9):
            prompt = tuple(range(2, 5 + 7 * number))
            engine.submit(
                EngineRequest(Generate(number, Conversation(()), MIXED[number % 3]), prompt=prompt, max_tokens=8)
            )
        assert over.wait(60)
    finally:
        engine.stop()
    assert engine.failure is None
    if replays:
        assert engine.graph_sizes is not None
        assert sorted(captured) == engine.graph_sizes.captured
        assert replays.captured == captured
    else:
        assert engine.graph_sizes is None
    return tokens


def model(name: str = "Llama") -> LoadedModel:
    architecture = next(each for each in ARCHITECTURES if each.name == name)
    return LoadedModel(model_of(architecture), tokenizer(), Load(model="", is_directory=True, cache_dir=""))


@pytest.mark.parametrize("name", ["Llama", "Gemma 2", "GPT-OSS"])
def test_answers_with_replayed_forward_passes_are_those_without(name: str, kernels: None) -> None:
    loaded = model(name)
    plain = answers(loaded, False)
    with pytest.MonkeyPatch.context() as patch:
        replays = Replays(patch)
        assert answers(loaded, True, replays) == plain
    assert len(plain) == 9
    assert replays.captured == [6, 1, 2, 4]
    assert replays.replayed > 4


def test_what_cannot_be_captured_at_the_start_is_not_captured_later(kernels: None) -> None:
    loaded = model()
    plain = answers(loaded, False)
    with pytest.MonkeyPatch.context() as patch:
        replays = Replays(patch, refused=(6, 1))
        assert answers(loaded, True, replays) == plain
    assert replays.captured == [4]
    assert replays.replayed


def test_graphs_that_take_too_much_memory_are_given_back(kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    replays = Replays(monkeypatch)
    monkeypatch.setattr(engine_module, "most_graph_bytes", lambda device: 3)
    monkeypatch.setattr(engine_module, "reserved_bytes", lambda device: len(replays.captured))
    engine = BatchEngine(
        model(),
        max_batch_size=24,
        cache_bytes=1 << 20,
        prefix_sharing=True,
        attention_name=attention.IN_PLACE_ATTENTION,
        send=lambda batch: None,
        end=lambda *_: None,
        crash=lambda: None,
    )
    assert replays.captured == [24, 1, 2, 4]
    assert engine.graph_sizes is not None
    assert engine.graph_sizes.captured == [1, 2, 24]
    assert sorted(key for (key,) in engine._manager.processor.inputs_and_outputs.graphs._storage) == [1, 2, 24]
