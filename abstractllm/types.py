"""The words of the library: messages, events, answers, capabilities.

Requests flow in as a `GenerationRequest` (see `abstractllm.requests`), answers flow out as a stream of `Event`s.
Everything here is an immutable value; times are seconds as `float`, counts are `int`, and `None` means "not known"
or "not set", never zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from abstractllm.enums import (
    FinishReason,
    LlmState,
    ModelCapability,
    ModelParameter,
    ParametersPolicy,
    Quantization,
    ReasoningEffort,
    Role,
    ToolChoiceMode,
)

__all__ = [
    "Attempt",
    "CachedModel",
    "Capabilities",
    "ChatMessage",
    "ClearedModels",
    "Completion",
    "Event",
    "FinishReason",
    "Finished",
    "GrammarFormat",
    "Image",
    "JsonObjectFormat",
    "JsonSchemaFormat",
    "LlmInfo",
    "LlmState",
    "ModelCapability",
    "ModelParameter",
    "ParametersPolicy",
    "Part",
    "Prompt",
    "Quantization",
    "Reasoning",
    "ReasoningDelta",
    "ReasoningEffort",
    "RegexFormat",
    "ResponseFormat",
    "Role",
    "Started",
    "Text",
    "TextDelta",
    "Timing",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "ToolChoiceMode",
    "ToolResult",
    "TopLogprob",
    "Usage",
]


@dataclass(frozen=True, slots=True)
class Text:
    """Text in a chat message."""

    text: str
    provider_state: bytes = b""
    """Opaque bytes of the provider, to be returned unchanged with the part in the next turn."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image in a chat message, as bytes; URLs are never fetched."""

    data: bytes
    mime_type: str
    """For example `image/png`."""
    provider_state: bytes = b""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model's request to call a tool."""

    id: str
    name: str
    arguments_json: str
    """A JSON object, as the model wrote it."""
    provider_state: bytes = b""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool returned, sent back to the model."""

    tool_call_id: str
    content: str
    is_error: bool = False
    provider_state: bytes = b""


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What a reasoning model thought before it answered."""

    text: str
    provider_state: bytes = b""


Part = Text | Image | ToolCall | ToolResult | Reasoning


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


Prompt = str | Sequence[ChatMessage | Mapping[str, Any]]
"""What `generate` takes: a prompt, or a conversation. A message may be `{"role": "user", "content": "Hi"}`."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may ask to be called."""

    name: str
    description: str = ""
    parameters_json_schema: str = "{}"
    """A JSON Schema object for the arguments."""


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """A mode, or the name of the one tool that must be called."""

    mode: ToolChoiceMode | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class JsonObjectFormat:
    """The answer is a JSON object."""


@dataclass(frozen=True, slots=True)
class JsonSchemaFormat:
    """The answer is JSON that follows a schema."""

    schema_json: str
    name: str = ""
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class RegexFormat:
    """The whole answer matches a regular expression."""

    regex: str


@dataclass(frozen=True, slots=True)
class GrammarFormat:
    """The whole answer follows a context-free grammar (Lark syntax)."""

    grammar: str


ResponseFormat = JsonObjectFormat | JsonSchemaFormat | RegexFormat | GrammarFormat


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
    """Tokens that a request took; `None` where the provider does not say."""

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
    """A piece of what the model thinks before it answers."""

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
        """What the model thought, where it says."""
        return "".join(part.text for part in self.message.parts if isinstance(part, Reasoning))


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an LLM can do; a request can be checked against it before it is sent."""

    streaming: bool = True
    system_prompt: bool = True
    chat: bool = True
    tools: bool = False
    image_input: bool = False
    json_object: bool = False
    json_schema: bool = False
    regex: bool = False
    grammar: bool = False
    logprobs: bool = False
    seed: bool = False
    token_counting: bool = False
    parameters: tuple[str, ...] = ()
    """The generation parameters it honours."""
    provider_options: tuple[str, ...] = ()
    """The keys that a request's `provider_options` may hold."""
    context_window: int | None = None
    """Tokens of prompt and answer together."""
    max_output_tokens: int | None = None
    quantization: str = ""
    device: str = ""
    max_concurrent_requests: int | None = None


@dataclass(frozen=True, slots=True)
class LlmInfo:
    """A named LLM of a registry or a server, and how it is."""

    name: str
    provider: str
    model: str
    is_default: bool
    state: LlmState
    state_reason: str = ""
    device: str = ""
    memory_bytes: int | None = None
    running: int = 0
    queued: int = 0


@dataclass(frozen=True, slots=True)
class CachedModel:
    """A model in a local cache."""

    name: str
    revisions: tuple[str, ...]
    size_bytes: int
    last_used_time: float | None = None
    """Seconds since the epoch."""
    last_modified_time: float | None = None
    used_by: tuple[str, ...] = field(default=())
    """The LLMs that have it loaded, or are loading it."""
    partial: bool = False
    """True while a download is not complete."""

    def __getitem__(self, key: str) -> Any:
        """The field of this name; `size`, `last_used` and `last_modified` are short for the longer ones."""
        short = {"size": "size_bytes", "last_used": "last_used_time", "last_modified": "last_modified_time"}
        try:
            return getattr(self, short.get(key, key))
        except AttributeError:
            raise KeyError(key) from None


@dataclass(frozen=True, slots=True)
class ClearedModels:
    """What was deleted from a cache, or, on a dry run, what would be."""

    removed: tuple[str, ...]
    """The names of the models."""
    freed_bytes: int
