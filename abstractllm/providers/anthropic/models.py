"""The limits of Claude models: one table, and its date.

Sources, as of 2026-11-20: the model pages and the thinking, effort and structured outputs guides under
https://platform.claude.com/docs, and the names that the SDK lists.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from abstractllm.enums import ReasoningEffort

__all__ = ["DEFAULT_MODEL", "TABLE_DATE", "UNKNOWN_MAX_TOKENS", "Model", "model_facts"]

TABLE_DATE = "2026-11-20"
DEFAULT_MODEL = "claude-sonnet-5-5"
UNKNOWN_MAX_TOKENS = 8192
"""`max_tokens`, which the API requires, for a model that the table does not know."""

_LOW, _MEDIUM, _HIGH, _XHIGH = (
    ReasoningEffort.LOW,
    ReasoningEffort.MEDIUM,
    ReasoningEffort.HIGH,
    ReasoningEffort.XHIGH,
)


@dataclass(frozen=True, slots=True)
class Model:
    """The limits of a model, and the ways to control its thinking."""

    context_window: int | None = 1_000_000
    max_output_tokens: int | None = 128_000
    efforts: tuple[ReasoningEffort, ...] = (_LOW, _MEDIUM, _HIGH, _XHIGH)
    """The reasoning efforts that the model takes by their own name."""
    thinking_off: str = "disabled"
    """The type of thinking that turns thinking before the answer off; empty if the model always thinks."""
    adaptive: bool = True
    """True if the model takes adaptive thinking."""

    @property
    def reasoning_efforts(self) -> tuple[ReasoningEffort, ...]:
        """Every reasoning effort that a request may have."""
        return (ReasoningEffort.NONE, *self.efforts) if self.efforts and self.thinking_off else self.efforts


_ADAPTIVE = Model()
_ALWAYS_THINKS = Model(thinking_off="")
_4_6 = Model(efforts=(_LOW, _MEDIUM, _HIGH))
_4_5 = Model(context_window=200_000, max_output_tokens=64_000, efforts=(), adaptive=False)
_MODELS = {
    "fable-5": _ALWAYS_THINKS,
    "fable-5-1": _ALWAYS_THINKS,
    "fable-5-2": _ALWAYS_THINKS,
    "mythos-5": _ALWAYS_THINKS,
    "mythos-5-1": _ALWAYS_THINKS,
    "mythos-5-2": _ALWAYS_THINKS,
    "mythos-preview": dataclasses.replace(_4_6, thinking_off=""),
    "opus-5-5": _ALWAYS_THINKS,
    "opus-5": _ADAPTIVE,
    "opus-4-8": _ADAPTIVE,
    "opus-4-7": _ADAPTIVE,
    "opus-4-6": _4_6,
    "opus-4-5": dataclasses.replace(_4_5, efforts=(_LOW, _MEDIUM, _HIGH)),
    "sonnet-5-5": Model(thinking_off="between_tools"),
    "sonnet-5": _ADAPTIVE,
    "sonnet-4-6": _4_6,
    "sonnet-4-5": _4_5,
    "haiku-5-5": _ADAPTIVE,
    "haiku-4-5": _4_5,
}
_UNKNOWN = Model(context_window=None, max_output_tokens=None)


def model_facts(name: str) -> Model:
    """Returns the table's line for a model; an unknown one has no limits, and is controlled as the newest are.

    Args:
        name: `claude-opus-5-5`, a dated name such as `claude-haiku-4-5-20251001`, or `anthropic/claude-...`.
    """
    match = re.search(r"claude-([a-z]+-(?:preview|\d+(?:-\d{1,2})?))(?![a-z\d])", name)
    return _MODELS.get(match[1], _UNKNOWN) if match else _UNKNOWN
