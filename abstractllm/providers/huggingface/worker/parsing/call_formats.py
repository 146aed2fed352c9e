"""The ways in which models write tool calls."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FORMATS", "CallFormat"]


@dataclass(frozen=True, slots=True)
class CallFormat:
    """A way of writing calls."""

    body: str
    """`json`: an object with a name and arguments, or a list of such; `named`: the name, `separator`, the arguments
    as JSON; `elements`: `<function=NAME>` with a `<parameter=KEY>` for each argument."""
    opening: str
    """The text before calls; empty if an answer that begins with an object may be a call."""
    closing: str = ""
    separator: str = ""

    @property
    def markers(self) -> tuple[str, ...]:
        """The texts that may be special tokens."""
        return tuple(marker for marker in (self.opening, self.separator, self.closing) if marker)


FORMATS = (
    CallFormat("elements", "<tool_call>", "</tool_call>"),  # Qwen3-Coder, Qwen 3.5
    CallFormat("json", "<tool_call>", "</tool_call>"),  # Hermes, Qwen 2.5, Qwen 3, Granite 4, SmolLM 3
    CallFormat("named", "[TOOL_CALLS]", "", "[ARGS]"),  # Mistral since version 11 of its format
    CallFormat("json", "[TOOL_CALLS]"),  # Mistral before
    CallFormat("json", "<|tool_call|>", "<|/tool_call|>"),  # Phi-4-mini
    CallFormat("json", "<|tool_call|>"),  # Granite 3
    CallFormat("json", "<|python_tag|>"),  # Llama 3, where the template writes the tag
    CallFormat("json", ""),  # Llama 3
)
"""The known formats. Where two could read the same text, the more specific one comes first."""
