"""Answers: the events of a stream, and the completion that they add up to."""

from __future__ import annotations

from dataclasses import dataclass

from abstractllm.enums import FinishReason
from abstractllm.types.messages import ChatMessage, Reasoning, ToolCall

__all__ = [
    "Attempt",
    "Completion",
    "Event",
    "Finished",
    "ReasoningDelta",
    "Started",
    "TextDelta",
    "Timing",
    "TokenLogprob",
    "ToolCallDelta",
    "TopLogprob",
    "Usage",
]


@dataclass(frozen=True, slots=True)
class TopLogprob:
    """One of the likeliest tokens at a position."""

    token_id: int
    token: str
    token_bytes: bytes
    logprob: float
    """Natural logarithm of the probability."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The token that was chosen at a position, and the likeliest ones."""

    token_id: int
    token: str
    token_bytes: bytes
    logprob: float
    top: tuple[TopLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a request took; `None` where the provider does not tell."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds from the request's arrival: spent waiting, to the first token, to the end."""

    queued: float | None = None
    first_token: float | None = None
    total: float | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at answering a request; `error_reason` is empty for the one that answered."""

    llm: str
    provider: str
    model: str
    error_reason: str = ""
    message: str = ""
    duration: float = 0.0


@dataclass(frozen=True, slots=True)
class Started:
    """The first event of a stream, sent with the LLM's first sign of an answer."""

    id: str
    llm: str
    provider: str
    model: str
    dropped_parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer's text. The joined pieces are the answer."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of the model's reasoning before its answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call; `id` and `name` come with the first piece of each `index`."""

    index: int
    id: str = ""
    name: str = ""
    arguments_fragment: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a stream, sent exactly once."""

    finish_reason: FinishReason
    stop_sequence: str = ""
    usage: Usage = Usage()
    attempts: tuple[Attempt, ...] = ()
    timing: Timing = Timing()
    message: ChatMessage | None = None
    """The whole answer as a message, to be put into the next turn's conversation."""


Event = Started | TextDelta | ReasoningDelta | ToolCallDelta | Finished


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer: the stream of events, folded."""

    id: str
    text: str
    message: ChatMessage
    finish_reason: FinishReason
    stop_sequence: str
    usage: Usage
    llm: str
    provider: str
    model: str
    attempts: tuple[Attempt, ...] = ()
    timing: Timing = Timing()
    logprobs: tuple[TokenLogprob, ...] = ()
    dropped_parameters: tuple[str, ...] = ()

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tools that the model asks to be called."""
        return tuple(part for part in self.message.parts if isinstance(part, ToolCall))

    @property
    def reasoning(self) -> str:
        """The model's reasoning, where the provider shows it."""
        return "".join(part.text for part in self.message.parts if isinstance(part, Reasoning))
