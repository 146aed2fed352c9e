"""One request's sampling settings, with everything filled in, and what the sampler keeps for it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from abstractllm.providers.huggingface.protocol.messages import Sampling
from abstractllm.providers.huggingface.worker.structured.grammar import Matcher

__all__ = ["Counts", "SamplingState", "first_set", "row_for", "uniforms"]

_MASK = (1 << 64) - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LEAST_TEMPERATURE = 1e-6
"""Below it the likeliest token is certain, and float32 might hold the temperature as zero."""


@dataclass(eq=False, slots=True)
class SamplingState:
    """One request in the sampler's batch; neutral values mean that nothing is done."""

    temperature: float
    """0 takes the likeliest token."""
    top_k: int
    """0 keeps every token."""
    top_p: float
    min_p: float
    repetition: float
    presence: float
    frequency: float
    bias: dict[int, float]
    seed: int
    logprobs: int | None
    """How many of the likeliest tokens to report; None reports nothing."""
    counts: Counts | None = None
    """What the penalties need; None without penalties."""
    matcher: Matcher | None = None
    """Says which tokens the answer's format allows; None without a format."""
    drawn: int = 0
    """Tokens drawn so far: the position that the next random number belongs to."""
    report: tuple[float, list[int], list[float]] | None = field(default=None)
    """Log-probability of the last token drawn, and the likeliest tokens with theirs."""

    @property
    def changes_logits(self) -> bool:
        """Whether bias or penalties apply."""
        return bool(self.bias) or self.counts is not None

    def took(self, token: int) -> None:
        """Notes that a token was drawn."""
        self.drawn += 1
        if self.counts is not None:
            self.counts.add(token)


class Counts:
    """The distinct tokens of a request, and how often each was generated, in arrays that grow.

    Args:
        prompt: The prompt's tokens, which the repetition penalty takes into account.
    """

    def __init__(self, prompt: Sequence[int]) -> None:
        distinct = list(dict.fromkeys(prompt))
        self._place = {token: index for index, token in enumerate(distinct)}
        self._tokens = np.array(distinct, dtype=np.int64)
        self._generated = np.zeros(len(distinct), dtype=np.float32)

    def add(self, token: int) -> None:
        """Counts a generated token."""
        place = self._place.setdefault(token, len(self._place))
        if place >= len(self._tokens):
            size = max(64, 2 * len(self._tokens))
            self._tokens = np.resize(self._tokens, size)
            self._generated = np.concatenate((self._generated, np.zeros(size - len(self._generated), dtype=np.float32)))
        self._tokens[place] = token
        self._generated[place] += 1

    @property
    def tokens(self) -> npt.NDArray[np.int64]:
        """The distinct tokens, `[n]`."""
        return self._tokens[: len(self._place)]

    @property
    def generated(self) -> npt.NDArray[np.float32]:
        """How often each was generated, `[n]`."""
        return self._generated[: len(self._place)]


def row_for(sampling: Sampling, model_defaults: Any, prompt: Sequence[int]) -> SamplingState:
    """Fills in what a request leaves unset: from the model's own generation configuration, then with what is neutral.

    Args:
        sampling: The request's parameters.
        model_defaults: The model's `GenerationConfig`.
        prompt: The prompt's tokens.
    """
    asks_to_sample = any(value is not None for value in (sampling.top_p, sampling.top_k, sampling.min_p))
    samples = bool(model_defaults.do_sample or asks_to_sample)
    temperature = sampling.temperature
    if temperature is None:
        temperature = first_set(model_defaults.temperature, 1.0) if samples else 0.0
    row = SamplingState(
        temperature=temperature if temperature >= _LEAST_TEMPERATURE else 0.0,
        top_k=first_set(sampling.top_k, model_defaults.top_k, 0),
        top_p=first_set(sampling.top_p, model_defaults.top_p, 1.0),
        min_p=first_set(sampling.min_p, model_defaults.min_p, 0.0),
        repetition=first_set(sampling.repetition_penalty, model_defaults.repetition_penalty, 1.0),
        presence=sampling.presence_penalty or 0.0,
        frequency=sampling.frequency_penalty or 0.0,
        bias=sampling.logit_bias or {},
        seed=secrets.randbits(64) if sampling.seed is None else sampling.seed,
        logprobs=sampling.top_logprobs,
    )
    if row.repetition != 1.0 or row.presence or row.frequency:
        row.counts = Counts(prompt if row.repetition != 1.0 else ())
    return row


def uniforms(seeds: Sequence[int], positions: Sequence[int]) -> npt.NDArray[np.float64]:
    """Random numbers in [0, 1), each of which depends on nothing but its seed and its position.

    It is the SplitMix64 generator (Steele, Lea and Flood, https://doi.org/10.1145/2714064.2660195), applied to the
    seed first so that neighbouring seeds have nothing in common; 53 bits of it are used.

    Args:
        seeds: Whole numbers; those beyond 64 bits, and negative ones, are taken modulo 2^64.
        positions: As many, from 0 on.
    """
    mixed = _mix(_words(seeds)) ^ (_words(positions) * _GOLDEN)
    return (_mix(mixed) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _words(numbers: Sequence[int]) -> npt.NDArray[np.uint64]:
    return np.array([number & _MASK for number in numbers], dtype=np.uint64)


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's step; arrays of this type wrap around as it wants."""
    value = value + _GOLDEN
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def first_set(*values: Any) -> Any:
    """The first value that is not None."""
    return next(value for value in values if value is not None)
