"""A batch loop in which requests can be made to fail."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from abstractllm.providers.huggingface.protocol.messages import (
    Conversation,
    Failed,
    Format,
    Generate,
    Load,
    Sampling,
    Turn,
)
from abstractllm.providers.huggingface.worker.batching.sampling_state import SamplingState
from abstractllm.providers.huggingface.worker.loading import load_model
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.request import EngineRequest
from tests.unit.test_batching import MIXED, Harness

POISON = "🙂"
"""Text whose first token has an embedding of NaN in `poisoned`."""
BAD_SEED = 666
"""The seed of the request that a fault is made for."""
NEIGHBOURS = [(f"tell me about number {index}", sampling) for index, sampling in enumerate(MIXED)]
CUDA_MEMORY = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has a total capacity of ..."
)
CPU_MEMORY = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to"
)


def new_settings(directory: Path) -> Load:
    return Load(model=str(directory), is_directory=True, cache_dir=str(directory), threads=1)


def load(directory: Path) -> LoadedModel:
    return load_model(new_settings(directory), lambda *_, **__: None)


class FaultHarness(Harness):
    """A batch loop whose requests may have a format."""

    def submit_with_format(self, prompt: str, expression: str, **sampling: Any) -> EngineRequest:
        self._next += 1
        conversation = Conversation((Turn("user", prompt),))
        request = EngineRequest(
            Generate(self._next, conversation, Sampling(**sampling), format=Format("regex", expression)),
            prompt=tuple(self.loaded.prompt_builder.encode(conversation)),
            max_tokens=16,
            matcher=self.loaded.grammars.compile(Format("regex", expression)),
        )
        self.engine.submit(request)
        return request

    def failure(self, request: EngineRequest) -> Failed:
        id = request.message.id
        self.wait_until(lambda: id in self.failed or id in self.done)
        failure = self.failed[id]
        assert isinstance(failure, Failed)
        return failure


@contextlib.contextmanager
def running(loaded: LoadedModel, **options: Any) -> Iterator[FaultHarness]:
    harness = FaultHarness(loaded, **options)
    try:
        yield harness
    finally:
        harness.engine.stop()


def poison(loaded: LoadedModel) -> None:
    """Gives the embedding of one token the value NaN, as an overflow of float16 would."""
    prompt = loaded.prompt_builder.encode(Conversation((Turn("user", f"hello {POISON} world"),)))
    plain = loaded.prompt_builder.encode(Conversation((Turn("user", "hello world there"),)))
    token = next(token for token in reversed(prompt) if token not in plain)
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[token] = torch.nan


def ask_neighbours(harness: FaultHarness) -> list[EngineRequest]:
    return [harness.submit(prompt, **sampling) for prompt, sampling in NEIGHBOURS]


def is_bad(state: SamplingState) -> bool:
    return state.seed == BAD_SEED
