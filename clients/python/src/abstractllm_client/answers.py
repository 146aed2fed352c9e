"""The answers of a server: events, whole answers, and the state of its LLMs and models.

Everything in this module is an immutable value with the names and fields of the library's types; times are seconds as
`float`, counts are `int`, and `None` means "not known", never zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, NoReturn

from abstractllm_client.enums import FinishReason, LlmState, ModelCapability
from abstractllm_client.messages import ChatMessage, Reasoning, ToolCall

__all__ = [
    "Attempt",
    "CachedModel",
    "Capabilities",
    "ClearedModels",
    "Completion",
    "Event",
    "Finished",
    "LlmInfo",
    "LoadProgress",
    "PullProgress",
    "ReasoningDelta",
    "Started",
    "TextDelta",
    "Timing",
    "TokenLogprob",
    "ToolCallDelta",
    "TopLogprob",
    "UnloadProgress",
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
    """The tokens that a request took; `None` where the provider does not say."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds from the request's arrival to the start of its work, to the first token, and to the end."""

    queued: float | None = None
    first_token: float | None = None
    total: float | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at answering a request; `error_reason` is empty for the one that answered."""

    llm: str
    provider: str
    model: str
    error_reason: str | int = ""
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

    finish_reason: FinishReason | int
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
    finish_reason: FinishReason | int
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
        """The model's reasoning, where the provider shows it; else empty."""
        return "".join(part.text for part in self.message.parts if isinstance(part, Reasoning))


class _FrozenDict(dict[str, Any]):
    """A dictionary that refuses every change."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(f"{type(self).__name__} cannot be changed; dict(...) makes a copy that can")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse


@dataclass(frozen=True, eq=False)
class Capabilities(_FrozenDict):
    """The abilities and limits of an LLM; a request can be checked against them before it is sent.

    Each is an attribute, and an entry of the dictionary that this is too, under the names of `ModelCapability`. It
    equals a plain dictionary of the same entries, and serializes like one.

    Example:
        ```python
        capabilities = llm.get_capabilities()
        if capabilities.tools and "seed" in capabilities["parameters"]:
            ...
        ```
    """

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

    @property
    def max_tokens(self) -> int | None:
        """Another name of `max_output_tokens`."""
        return self.max_output_tokens

    @property
    def supports_system_prompt(self) -> bool:
        """Another name of `system_prompt`."""
        return self.system_prompt

    def __post_init__(self) -> None:
        dict.update(self, {name.value: getattr(self, name) for name in ModelCapability})

    def __reduce__(self) -> tuple[Any, ...]:
        # The copies of a dictionary's subclass are otherwise filled entry by entry, which this one refuses.
        return type(self), tuple(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True)
class LlmInfo:
    """A named LLM of a registry or a server, and its state."""

    name: str
    provider: str
    model: str
    is_default: bool
    state: LlmState | int
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
        """Returns the field of this name; `size`, `last_used` and `last_modified` are short for the longer ones."""
        short = {"size": "size_bytes", "last_used": "last_used_time", "last_modified": "last_modified_time"}
        try:
            return getattr(self, short.get(key, key))
        except AttributeError:
            raise KeyError(key) from None


@dataclass(frozen=True, slots=True)
class PullProgress:
    """The progress of a download."""

    file: str
    """The file that this report is about; empty where it is about the whole alone."""
    file_bytes_done: int
    file_bytes_total: int | None
    bytes_done: int
    bytes_total: int | None
    done: bool
    """True in the last report: the model is whole."""


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """The progress of loading a model."""

    state: LlmState | int
    """READY in the last report."""
    phase: str = ""
    fraction: float | None = None
    """From 0 to 1."""


@dataclass(frozen=True, slots=True)
class UnloadProgress:
    """The progress of unloading a model."""

    state: LlmState | int
    """UNLOADED in the last report."""
    running: int
    """Requests that still run."""


@dataclass(frozen=True, slots=True)
class ClearedModels:
    """The models that were deleted from a cache, or, on a dry run, that would be."""

    removed: tuple[str, ...]
    """The names of the models."""
    freed_bytes: int
