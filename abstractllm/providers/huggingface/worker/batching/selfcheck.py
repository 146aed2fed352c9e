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

from abstractllm.providers.huggingface.worker.batching.engine import BatchEngine
from abstractllm.providers.huggingface.worker.batching.requests import BatchRequest
from abstractllm.providers.huggingface.worker.batching.settings import Row
from abstractllm.providers.huggingface.worker.protocol import Generate, Sampling

if TYPE_CHECKING:
    from abstractllm.providers.huggingface.worker.model import LoadedModel

__all__ = ["CheckFailedError", "Reference", "references", "run_probes"]

_NEW_TOKENS = 4
_LENGTHS = (3, 21)
_LONGER_THAN_A_STEP = 520
"""A prompt that does not fit one step of 512 tokens on a CPU, so that it is taken in pieces."""
_TOLERANCE = {torch.float32: 0.02, torch.float16: 0.2, torch.bfloat16: 0.5}
"""How far log-probabilities may lie apart: the order of additions differs."""
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


@dataclass
class _Probe:
    """Takes the place of a request's slot, and keeps what it is given."""

    job: Any
    row: Row
    done: threading.Event
    tokens: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    error: Exception | None = None

    def begin(self) -> None:
        """Nobody waits for it."""

    def take(self, token: int) -> bool:
        """Takes a token and its log-probability."""
        assert self.row.report is not None
        self.tokens.append(token)
        self.values.append(self.row.report[0])
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
    """Asks the model itself, before its attention is switched."""
    window = loaded.description.context_window
    longest = min(_LONGER_THAN_A_STEP, window - _NEW_TOKENS - 1)
    found = []
    for index, length in enumerate(sorted({*(min(length, longest) for length in _LENGTHS), longest})):
        generator = torch.Generator().manual_seed(index)
        prompt = torch.randint(0, loaded.vocabulary_size, (1, max(1, length)), generator=generator)
        config = copy.deepcopy(loaded.model.generation_config)
        config.update(
            do_sample=False,
            max_new_tokens=_NEW_TOKENS,
            max_length=None,
            repetition_penalty=1.0,
            eos_token_id=None,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
            num_beams=1,
        )
        prompt = prompt.to(loaded.model.device)
        with torch.no_grad():
            answer = loaded.model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=config)
        found.append(
            Reference(
                prompt[0].tolist(),
                answer.sequences[0, prompt.shape[1] :].tolist(),
                torch.cat(answer.logits).float().log_softmax(dim=-1).cpu(),
            )
        )
    return found


def run_probes(engine: BatchEngine, wanted: Sequence[Reference], broken: threading.Event) -> None:
    """Asks the running loop the same, all at once, and compares.

    Raises:
        CheckFailedError: If an answer differs by more than rounding, or the loop breaks.
    """
    from abstractllm.providers.huggingface.worker.loop import Job

    probes = []
    for index, reference in enumerate(wanted):
        row = Row(
            temperature=0.0,
            top_k=0,
            top_p=1.0,
            min_p=0.0,
            repetition=1.0,
            presence=0.0,
            frequency=0.0,
            bias={},
            seed=0,
            logprobs=0,
        )
        job = Job(Generate(-index, (), Sampling()), prompt=tuple(reference.prompt))
        probe: Any = _Probe(job, row, threading.Event())
        probes.append(probe)
        engine.take(
            BatchRequest(request_id=f"probe{index}", initial_tokens=reference.prompt, max_new_tokens=None, slot=probe)
        )
    for probe in probes:
        waited = 0.0
        while not probe.done.wait(0.05):
            waited += 0.05
            if broken.is_set() or waited > _PATIENCE_SECONDS:
                raise CheckFailedError("the batch loop broke while it was tried")
        if probe.error:
            raise CheckFailedError(f"the batch loop refused a request: {probe.error}")
    tolerance = _TOLERANCE.get(engine.dtype, 0.5)
    for probe, reference in zip(probes, wanted, strict=True):
        _compare(probe, reference, tolerance)


def _compare(probe: _Probe, reference: Reference, tolerance: float) -> None:
    """Compares step by step, up to a place where two tokens are as likely as each other."""
    steps = zip(probe.tokens, probe.values, reference.tokens, reference.logprobs, strict=True)
    for place, (token, value, wanted, logprobs) in enumerate(steps):
        difference = abs(value - logprobs[token].item())
        if not difference <= tolerance or logprobs[wanted].item() - logprobs[token].item() > tolerance:
            raise CheckFailedError(
                f"with a prompt of {len(reference.prompt)} tokens, new token {place} has in a batch a log-probability "
                f"that differs by {difference:.3g}"
            )
        if token != wanted:
            return
