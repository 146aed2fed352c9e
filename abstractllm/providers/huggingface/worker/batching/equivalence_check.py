"""Whether a model gives the same answers in a batch as alone.

Continuous batching hands a model packed sequences and a cache of its own kind. A model that computes its positions or
its masks in an unforeseen way then gives wrong answers without any error, so each is tried once after loading.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from abstractllm.errors import ModelLoadError
from abstractllm.providers.huggingface.protocol.messages import Conversation, Generate, Sampling
from abstractllm.providers.huggingface.worker.batching.engine import BatchEngine
from abstractllm.providers.huggingface.worker.batching.requests import BatchRequest
from abstractllm.providers.huggingface.worker.batching.sampling_state import SamplingState

if TYPE_CHECKING:
    from abstractllm.providers.huggingface.worker.model import LoadedModel
    from abstractllm.providers.huggingface.worker.request import EngineRequest

__all__ = ["CheckFailedError", "Reference", "references", "run_probes"]

_NEW_TOKENS = 4
_LENGTHS = (3, 21, 70)
_STEP = 32
"""Prompt tokens of one step while the check runs: the longest prompt is taken in pieces."""
_LONGEST = 520
"""A sliding window up to about this size is exceeded by the longest prompt; beyond, loading would take too long."""
_TOKENS = 1000
"""Prompts are drawn from the first tokens of the vocabulary: those that stand for images come last."""
_COMPARED = 32
"""The likeliest tokens, whose log-probabilities are compared at each step."""
_TOLERANCE = {torch.float32: 0.005, torch.float16: 0.05, torch.bfloat16: 0.3}
"""How far log-probabilities may lie apart, since the order of additions differs: a share of the spread of the logits.

Measured with random models of 2 and 12 layers: at most 7e-5 in float32, 0.04 in float16 and 0.13 in bfloat16, but 0.45
where a token goes to another expert; 0.05 with weights and activations in 8 bits. Models that are answered wrongly in
a batch are off by 2 to 4.
"""
_PATIENCE_SECONDS = 600


class CheckFailedError(Exception):
    """The model's answers in a batch are not those it gives alone."""


@dataclass
class Reference:
    """A prompt and what the model does with it alone."""

    prompt: list[int]
    tokens: list[int]
    logprobs: torch.Tensor
    """`[new tokens, vocabulary]`, of the raw logits."""
    spread: float
    """The standard deviation of the logits over the vocabulary."""


@dataclass
class _Probe:
    """Takes the place of a request's slot, and keeps what it is given."""

    job: EngineRequest
    row: SamplingState
    done: threading.Event
    tokens: list[int] = field(default_factory=list)
    reports: list[tuple[list[int], list[float]]] = field(default_factory=list)
    error: Exception | None = None

    def begin(self, cached_tokens: int) -> None:
        """Nobody waits for it."""

    def take(self, token: int) -> bool:
        """Takes a token and the likeliest tokens' log-probabilities."""
        assert self.row.report is not None
        self.tokens.append(token)
        self.reports.append(self.row.report[1:])
        if len(self.tokens) == _NEW_TOKENS:
            self.done.set()
        return self.done.is_set()

    def cancel(self) -> None:
        """A probe is not cancelled."""

    def fail(self, error: Exception) -> None:
        """The manager could not take it."""
        self.error = error
        self.done.set()


def references(loaded: LoadedModel) -> list[Reference]:
    """Asks the model itself, before its attention is switched.

    Raises:
        ModelLoadError: If the model cannot generate at all.
    """
    longest = loaded.description.context_window - _NEW_TOKENS - 1
    window = getattr(loaded.model.config.get_text_config(decoder=True), "sliding_window", None) or 0
    lengths = (*_LENGTHS, window + 8) if window + 8 <= _LONGEST else _LENGTHS
    config = copy.deepcopy(loaded.model.generation_config)
    config.update(
        do_sample=False,
        max_new_tokens=_NEW_TOKENS,
        max_length=None,
        repetition_penalty=1.0,
        eos_token_id=loaded.vocabulary_size,  # no token: None would bring back the model's own
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
        num_beams=1,
    )
    found = []
    for index, length in enumerate(sorted({max(1, min(length, longest)) for length in lengths})):
        generator = torch.Generator().manual_seed(index)
        prompt = torch.randint(0, min(_TOKENS, loaded.vocabulary_size), (1, length), generator=generator)
        prompt = prompt.to(loaded.model.device)
        try:
            with torch.no_grad():
                answer = loaded.model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=config)
        except Exception as error:
            raise ModelLoadError(
                f"the model cannot generate: {type(error).__name__}: {error}", field="model"
            ) from error
        logits = torch.cat(answer.logits).float().cpu()
        tokens = answer.sequences[0, length:].tolist()
        found.append(
            Reference(prompt[0].tolist(), tokens, logits.log_softmax(dim=-1), logits.std(dim=-1).mean().item())
        )
    return found


def run_probes(engine: BatchEngine, wanted: Sequence[Reference], broken: threading.Event) -> None:
    """Asks the running loop the same, all at once and in small steps, and compares.

    Raises:
        CheckFailedError: If an answer differs by more than rounding, or the loop breaks.
    """
    with engine.steps_of(_STEP):
        probes = [_ask(engine, index, reference) for index, reference in enumerate(wanted)]
        for probe in probes:
            waited = 0.0
            while not probe.done.wait(0.01):
                waited += 0.01
                if broken.is_set() or waited > _PATIENCE_SECONDS:
                    raise CheckFailedError(f"the batch loop broke while it was tried: {_described(engine.failure)}")
            if probe.error:
                raise CheckFailedError(f"the batch loop refused a request: {_described(probe.error)}")
    is_exact = engine.dtype in _TOLERANCE and not engine.is_quantized
    tolerance = _TOLERANCE[engine.dtype if is_exact else torch.bfloat16]
    for probe, reference in zip(probes, wanted, strict=True):
        _compare(probe, reference, tolerance)


def _ask(engine: BatchEngine, index: int, reference: Reference) -> _Probe:
    from abstractllm.providers.huggingface.worker.request import EngineRequest

    row = SamplingState(
        temperature=0.0,
        top_k=0,
        top_p=1.0,
        min_p=0.0,
        repetition=1.0,
        presence=0.0,
        frequency=0.0,
        bias={},
        seed=0,
        logprobs=_COMPARED,
    )
    job = EngineRequest(Generate(-index, Conversation(()), Sampling()), prompt=tuple(reference.prompt))
    probe: Any = _Probe(job, row, threading.Event())
    engine.take(
        BatchRequest(request_id=f"probe{index}", initial_tokens=reference.prompt, max_new_tokens=None, slot=probe)
    )
    found: _Probe = probe
    return found


def _compare(probe: _Probe, reference: Reference, tolerance: float) -> None:
    """Compares step by step, up to a place where two tokens are as likely as each other.

    Half of the steps may differ: rounding sends a token of a mixture of experts to another expert now and then.
    """
    differences = []
    for token, (ids, values), wanted, logprobs in zip(
        probe.tokens, probe.reports, reference.tokens, reference.logprobs, strict=True
    ):
        differences.append((torch.tensor(values) - logprobs[ids]).abs().max().item() / max(reference.spread, 1e-6))
        if token != wanted:
            break
    difference = sorted(differences, key=lambda value: (value != value, value))[len(differences) // 2]
    if not difference <= tolerance:
        raise CheckFailedError(
            f"the answer to a prompt of {len(reference.prompt)} tokens differs in a batch: log-probabilities by "
            f"{difference:.2g} of the logits' standard deviation, of which rounding explains {tolerance:g}"
        )


def _described(error: Exception | None) -> str:
    return f"{type(error).__name__}: {error}" if error else "it did not answer"
