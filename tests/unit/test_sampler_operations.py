"""Operations that a step of sampling launches on a device, copies to it, and waits for it.

It is counted on a CPU, with the code for other devices.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from abstractllm.providers.huggingface.worker import device_tensors
from abstractllm.providers.huggingface.worker.batching import choosing, distributions
from abstractllm.providers.huggingface.worker.batching.sampler import BatchSampler
from abstractllm.providers.huggingface.worker.batching.sampling_state import SamplingState, TokenCounts
from abstractllm.providers.huggingface.worker.sampling_settings import SamplingSettings

VOCABULARY = 20_000
REQUESTS = 64
READS = {"tolist", "item", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__"}
"""Methods of tensors that wait for the device."""


@dataclass
class Counts:
    """Operations, and calls that wait."""

    operations: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)


class Operations(TorchDispatchMode):
    """Notes operations that compute or copy something; views do not."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not (function.is_view or "view" in function.__name__ or function.__name__.startswith("detach")):
            self.counts.operations.append(function.__name__)
        return function(*args, **(kwargs or {}))


class Reads(TorchFunctionMode):
    """Notes calls for which the host must know values of a tensor."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        by_mask = name == "__getitem__" and isinstance(args[1], torch.Tensor) and args[1].dtype == torch.bool
        if name in READS or by_mask:
            self.counts.reads.append(name)
        return function(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (choosing, distributions):
        monkeypatch.setattr(module, "is_on_cpu", lambda tensor: False)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    """Counts what happens in a `with` block; a copy to the device counts as an operation."""
    counts = Counts()
    real = torch.from_numpy

    def upload(array: np.ndarray) -> torch.Tensor:
        counts.operations.append("upload")
        return real(array)

    with monkeypatch.context() as patch, Reads(counts), Operations(counts):
        patch.setattr(device_tensors.torch, "from_numpy", upload)
        yield counts


def requests(wishes: list[dict[str, Any]]) -> list[SamplingState]:
    """Returns the states of 64 requests, whose settings repeat the wishes."""
    states = []
    for index in range(REQUESTS):
        wish = dict(wishes[index % len(wishes)])
        top_logprobs = wish.pop("top_logprobs", None)
        settings = SamplingSettings(**wish)
        counts = TokenCounts(range(index, index + 200)) if settings.has_penalties else None
        states.append(SamplingState(settings, seed=index, top_logprobs=top_logprobs, counts=counts))
    return states


def step_counts(wishes: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, scale: float = 8.0) -> Counts:
    """Returns the counts of the third step of a batch that stays the same."""
    states, sampler = requests(wishes), BatchSampler()
    generator = torch.Generator().manual_seed(0)
    for step in range(3):
        logits = torch.randn((REQUESTS, VOCABULARY), generator=generator) * scale
        if step < 2:
            sampler.sample(logits, states).take()
    with counted(monkeypatch) as counts:
        tokens = sampler.sample(logits, states).take()
    assert [state.error for state in states] == [None] * REQUESTS
    assert all(0 <= token < VOCABULARY for token in tokens)
    return counts


QWEN = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05}
MIXED = [
    {"temperature": 0.0},
    {"top_k": 40},
    {"top_p": 0.9},
    {"min_p": 0.05},
    QWEN,
    {"presence_penalty": 0.5, "frequency_penalty": 0.25, "top_k": 20},
    {"logit_bias": {5: 2.0, 9: -3.0}, "temperature": 0.0},
    {"top_k": 5, "top_logprobs": 5},
    {"temperature": 0.0, "top_logprobs": 0},
]


@pytest.mark.parametrize(
    ("wishes", "most"),
    [
        ([{"temperature": 0.0}], 8),
        ([{"temperature": 0.0}, {"top_k": 40}, {"top_k": 200, "temperature": 0.5}], 30),
        ([QWEN], 40),
        ([{"temperature": 0.0, "top_logprobs": 5}], 15),
        (MIXED, 60),
    ],
    ids=["greedy", "greedy and top-k", "Qwen's defaults", "log-probabilities", "mixed"],
)
def test_a_step_launches_few_operations_and_waits_once(
    wishes: list[dict[str, Any]], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = step_counts(wishes, monkeypatch)
    assert counts.reads == ["tolist"]
    assert len(counts.operations) <= most, counts.operations


def test_the_number_of_requests_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    many = step_counts(MIXED, monkeypatch)
    monkeypatch.setattr(f"{__name__}.REQUESTS", len(MIXED))
    assert len(step_counts(MIXED, monkeypatch).operations) == len(many.operations)


def test_flat_distributions_cost_one_more_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    # What a nucleus keeps is more than the likeliest tokens: how many is known only when the first tokens are.
    counts = step_counts([{"top_p": 0.99}], monkeypatch, scale=0.1)
    assert counts.reads[0] == "tolist"
    assert len(counts.reads) > 1
