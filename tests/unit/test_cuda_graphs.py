"""The forward pass is captured without the sampling, which reads what has been computed after each replay.

Graphs exist on a GPU alone (`tests/gpu` compares them with the plain loop). Here a stand-in replays by running the
captured function again, with the very tensors that it was captured with: what is not in them, a replay does not see.
"""

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
from abstractllm.providers.huggingface.worker.batching import attention
from abstractllm.providers.huggingface.worker.batching.engine import BatchEngine
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.request import EngineRequest
from tests.unit.architectures import ARCHITECTURES, model_of, packed_attention, tokenizer

MIXED = [
    Sampling(temperature=0.0, top_logprobs=0),
    Sampling(temperature=1.0, seed=1, top_logprobs=0),
    Sampling(temperature=0.8, top_p=0.9, seed=2, repetition_penalty=1.2, top_logprobs=0),
]


class Replays:
    """Stands in for graphs."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.captured = self.replayed = 0
        patch.setattr(initialization, "get_accelerator_graph_name", lambda: "CUDAGraph")
        patch.setattr(model_runner, "get_memory_pools", lambda: (None, 0))
        patch.setattr(model_runner, "memory_pool_context", lambda pool: nullcontext())

        def capture(runner: Any, forward: Any, stream: Any, *arguments: Any) -> None:
            def replay() -> None:
                self.replayed += 1
                forward(*arguments)

            self.captured += 1
            forward(*arguments)
            runner.inputs_and_outputs.set_graph(SimpleNamespace(replay=replay, reset=lambda: None))

        patch.setattr(model_runner.ModelRunner, "_capture_graph", capture)


def answers(loaded: LoadedModel, cuda_graphs: bool) -> dict[int, list[int]]:
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
        max_batch_size=8,
        cache_bytes=1 << 20,
        prefix_sharing=True,
        attention_name=attention.VARLEN_ATTENTION,
        cuda_graphs=cuda_graphs,
        send=send,
        end=lambda *_: None,
        crash=over.set,
    )
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
    return tokens


def test_answers_with_replayed_forward_passes_are_those_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "varlen_attn", packed_attention)
    loaded = LoadedModel(model_of(ARCHITECTURES[0]), tokenizer(), Load(model="", is_directory=True, cache_dir=""))
    plain = answers(loaded, False)
    with pytest.MonkeyPatch.context() as patch:
        replays = Replays(patch)
        assert answers(loaded, True) == plain
    assert len(plain) == 9
    assert replays.replayed > replays.captured > 0
