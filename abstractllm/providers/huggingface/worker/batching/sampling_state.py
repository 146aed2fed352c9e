"""One request in the sampler: its settings, and its progress from token to token."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from abstractllm.providers.huggingface.worker.batching.logits_rules import LogitsRules, RequestRules
from abstractllm.providers.huggingface.worker.logprobs import TokenLogprobs
from abstractllm.providers.huggingface.worker.request import EngineRequest
from abstractllm.providers.huggingface.worker.sampling_settings import SamplingSettings, fill_in
from abstractllm.providers.huggingface.worker.structured.matcher import Matcher

__all__ = ["SamplingState", "TokenCounts", "new_sampling_state"]


@dataclass(eq=False, slots=True)
class SamplingState:
    """One request in the sampler."""

    settings: SamplingSettings
    seed: int
    top_logprobs: int | None = None
    """The number of likeliest tokens to report; None reports nothing."""
    counts: TokenCounts | None = None
    """The tokens that penalties apply to; None without penalties."""
    matcher: Matcher | None = None
    """The matcher of the answer's format; None without a format."""
    sampled: int = 0
    """Tokens sampled so far: the position that the next random number belongs to."""
    rules: RequestRules | None = None
    """The rules of the model's generation configuration; None without such rules."""
    logprobs: TokenLogprobs | None = None
    """The log-probabilities of the token sampled last."""
    error: Exception | None = None
    """The error because of which no further token can be sampled."""
    has_invalid_logits: bool = False
    """True once the logits were not finite: what the request has in the cache may not be either."""
    changes_logits: bool = field(init=False)
    """True if a bias or penalties apply."""

    def __post_init__(self) -> None:
        self.changes_logits = bool(self.settings.logit_bias) or self.counts is not None

    def record(self, token: int) -> None:
        """Records that a token was sampled."""
        self.sampled += 1
        if self.counts is not None:
            self.counts.add(token)
        if self.rules is not None:
            self.rules.record(token)


class TokenCounts:
    """The distinct tokens of a request, and how often each was generated, in arrays that grow.

    Args:
        prompt: The prompt's tokens, if a repetition penalty applies to them.
    """

    def __init__(self, prompt: Sequence[int]) -> None:
        distinct = list(dict.fromkeys(prompt))
        self._indexes = {token: index for index, token in enumerate(distinct)}
        self._tokens = np.array(distinct, dtype=np.int64)
        self._generated = np.zeros(len(distinct), dtype=np.float32)
        self.last: tuple[int, float, int] = (0, 0.0, 0)
        """The token generated last, how often it was, and its place in `tokens`."""

    def add(self, token: int) -> None:
        """Counts a generated token."""
        index = self._indexes.setdefault(token, len(self._indexes))
        if index >= len(self._tokens):
            size = max(64, 2 * len(self._tokens))
            self._tokens = np.resize(self._tokens, size)
            self._generated = np.concatenate((self._generated, np.zeros(size - len(self._generated), dtype=np.float32)))
        self._tokens[index] = token
        self._generated[index] += 1
        self.last = (token, float(self._generated[index]), index)

    @property
    def tokens(self) -> npt.NDArray[np.int64]:
        """The distinct tokens, `[n]`."""
        return self._tokens[: len(self._indexes)]

    @property
    def generated(self) -> npt.NDArray[np.float32]:
        """The number of times that each was generated, `[n]`."""
        return self._generated[: len(self._indexes)]


def new_sampling_state(request: EngineRequest, model_defaults: Any, rules: LogitsRules | None) -> SamplingState:
    """Returns the state of a request of which nothing has been sampled.

    Args:
        request: The request, whose prompt is tokenized.
        model_defaults: The model's `GenerationConfig`, for what the request leaves unset.
        rules: The rules of the model's generation configuration; None without such rules.
    """
    sampling = request.message.sampling
    settings = fill_in(sampling, model_defaults)
    counts = None
    if settings.has_penalties:
        counts = TokenCounts(request.prompt if settings.repetition_penalty != 1.0 else ())
    return SamplingState(
        settings,
        seed=secrets.randbits(64) if sampling.seed is None else sampling.seed,
        top_logprobs=sampling.top_logprobs,
        counts=counts,
        matcher=request.matcher,
        rules=None
        if rules is None
        else RequestRules(rules, request.prompt, request.max_tokens, has_format=request.matcher is not None),
    )
