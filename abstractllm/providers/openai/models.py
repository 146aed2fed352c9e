"""The parameters and abilities of OpenAI's models, as of 22 November 2026.

Sources: https://developers.openai.com/api/docs/models, .../guides/reasoning, .../guides/latest-model (which parameters
go with which reasoning effort) and .../deprecations. A number that is not published, or not known here, stays `None`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["COMPATIBLE", "DEFAULT_MODEL", "WITHOUT_REASONING", "Family", "family_of"]

DEFAULT_MODEL = "gpt-5.4-mini"
"""Small, current, without an announced end, and the newest that takes a temperature: it does not reason unless told."""

_SAMPLING = ("temperature", "top_p")
_COMMON = ("max_tokens", "seed")
_CLASSIC = (
    *_SAMPLING,
    *_COMMON,
    "presence_penalty",
    "frequency_penalty",
    "stop",
    "logit_bias",
    "top_logprobs",
)
_REASONING = (*_COMMON, "reasoning_effort")
_OPTIONAL_REASONING = (*_SAMPLING, *_COMMON, "top_logprobs", "reasoning_effort")
WITHOUT_REASONING = (*_SAMPLING, "top_logprobs")
"""The parameters that a model with optional reasoning takes only while its effort is `none`, which is its default."""


@dataclass(frozen=True, slots=True)
class Family:
    """Models that take the same parameters."""

    name: str
    pattern: str
    """Matches the beginning of a model's name."""
    parameters: tuple[str, ...]
    image_input: bool = True
    json_schema: bool = True
    context_window: int | None = None
    max_output_tokens: int | None = None
    reasoning_is_optional: bool = False


_FAMILIES = (
    Family("gpt-3.5", r"gpt-3\.5", _CLASSIC, False, False, 16_385, 4_096),
    Family("gpt-4-turbo", r"gpt-4-turbo", _CLASSIC, True, False, 128_000, 4_096),
    Family("gpt-4o", r"(chatgpt|gpt)-4o", _CLASSIC, True, True, 128_000, 16_384),
    Family("gpt-4.1", r"gpt-4\.1", _CLASSIC, True, True, 1_047_576, 32_768),
    Family("gpt-4", r"gpt-4\b", _CLASSIC, False, False, 8_192, 8_192),
    Family("o1", r"o1\b", _REASONING, True, True, 200_000, 100_000),
    Family("o3-mini", r"o3-mini", _REASONING, False, True, 200_000, 100_000),
    Family("o3, o4", r"o[34]\b", _REASONING, True, True, 200_000, 100_000),
    Family("gpt-5 chat", r"gpt-5(\.\d+)?-chat", _CLASSIC, True, True, 128_000, 16_384),
    Family("gpt-5.1, gpt-5.2", r"gpt-5\.[12]\b", _OPTIONAL_REASONING, True, True, 400_000, 128_000, True),
    Family("gpt-5.4 mini, nano", r"gpt-5\.4-(mini|nano)", _OPTIONAL_REASONING, True, True, 400_000, 128_000, True),
    Family("gpt-5.4", r"gpt-5\.4\b", _OPTIONAL_REASONING, True, True, 1_050_000, 128_000, True),
    Family("gpt-5", r"gpt-5(?!\.)", _REASONING, True, True, 400_000, 128_000),
    Family("gpt-5.5 and later", r"gpt-(5\.|[6-9])", _REASONING),
)
_UNKNOWN = Family("other models of OpenAI", "", (*_CLASSIC, "reasoning_effort"))
COMPATIBLE = Family("a compatible server", "", (*_CLASSIC, "reasoning_effort"))
"""Any model behind a `base_url` that is not OpenAI's: the server's answer tells which parameters it does not take."""


def family_of(model: str) -> Family:
    """Returns the family that one of OpenAI's models belongs to; a fine-tuned one to that of its base."""
    base = model.removeprefix("ft:")
    return next((family for family in _FAMILIES if re.match(family.pattern, base)), _UNKNOWN)
