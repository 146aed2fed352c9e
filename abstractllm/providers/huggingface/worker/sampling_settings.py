"""The sampling settings of a request, with everything filled in that it leaves unset."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transformers import LogitsProcessor, MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from abstractllm.providers.huggingface.protocol.messages import Sampling

__all__ = ["SamplingSettings", "fill_in"]

_LEAST_TEMPERATURE = 1e-6
"""Below it the likeliest token is certain, and dividing by it could overflow in float32."""


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """Sampling settings without gaps; the defaults change nothing."""

    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_k: int = 0
    """0 keeps every token."""
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = field(default_factory=dict)

    @property
    def has_penalties(self) -> bool:
        """True if any penalty changes logits."""
        return bool(self.repetition_penalty != 1.0 or self.presence_penalty or self.frequency_penalty)

    @property
    def cut_values(self) -> tuple[float, ...]:
        """The values by which `cuts` are made."""
        return self.top_k, self.top_p, self.min_p

    def reduction(self, generated: Any) -> Any:
        """Returns what presence and frequency take off the logit of a token.

        Args:
            generated: How often the token was generated: a number, or an array of numbers.
        """
        return self.frequency_penalty * generated + self.presence_penalty * (generated > 0)

    def cuts(self) -> list[LogitsProcessor]:
        """Returns transformers' processors that leave out the tokens which must not be sampled, in their order."""
        cuts: list[LogitsProcessor] = []
        if self.top_k:
            cuts.append(TopKLogitsWarper(self.top_k))
        if self.top_p < 1:
            cuts.append(TopPLogitsWarper(self.top_p))
        if self.min_p:
            cuts.append(MinPLogitsWarper(self.min_p))
        return cuts


def fill_in(sampling: Sampling, model_defaults: Any) -> SamplingSettings:
    """Fills in what a request leaves unset: from the model's own generation configuration, then with neutral values.

    A request that sets a cut, such as `top_p`, but no temperature is sampled, even where the model's default is greedy.

    Args:
        sampling: The request's parameters.
        model_defaults: The model's `GenerationConfig`.
    """
    has_cut = any(value is not None for value in (sampling.top_p, sampling.top_k, sampling.min_p))
    temperature = sampling.temperature
    if temperature is None:
        is_sampled = model_defaults.do_sample or has_cut
        temperature = _first_set(model_defaults.temperature, 1.0) if is_sampled else 0.0
    return SamplingSettings(
        temperature=float(temperature) if temperature >= _LEAST_TEMPERATURE else 0.0,
        top_k=max(0, int(_first_set(sampling.top_k, model_defaults.top_k, 0))),
        top_p=_share(_first_set(sampling.top_p, model_defaults.top_p, 1.0)),
        min_p=_share(_first_set(sampling.min_p, model_defaults.min_p, 0.0)),
        repetition_penalty=float(_first_set(sampling.repetition_penalty, model_defaults.repetition_penalty, 1.0)),
        presence_penalty=sampling.presence_penalty or 0.0,
        frequency_penalty=sampling.frequency_penalty or 0.0,
        logit_bias=sampling.logit_bias or {},
    )


def _share(value: float) -> float:
    """Returns a number as a share, from 0 to 1; a model's own configuration may hold anything."""
    return min(1.0, max(0.0, float(value)))


def _first_set(*values: Any) -> Any:
    """Returns the first value that is not None."""
    return next(value for value in values if value is not None)
