"""LLMs, their capabilities, and their models on the disk and in memory."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, NoReturn

from abstractllm.enums import LlmState, ModelCapability

__all__ = [
    "CachedModel",
    "Capabilities",
    "ClearedModels",
    "LlmInfo",
    "LoadProgress",
    "PullProgress",
    "UnloadProgress",
]


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
        """Returns the field of this name; `size`, `last_used` and `last_modified` are short for the longer ones."""
        full_names = {"size": "size_bytes", "last_used": "last_used_time", "last_modified": "last_modified_time"}
        try:
            return getattr(self, full_names.get(key, key))
        except AttributeError:
            raise KeyError(key) from None


@dataclass(frozen=True, slots=True)
class ClearedModels:
    """The models that were deleted from a cache or, on a dry run, would be."""

    removed: tuple[str, ...]
    """The names of the models."""
    freed_bytes: int


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """The progress of loading a model."""

    state: LlmState
    """READY in the last report."""
    phase: str = ""
    """`waiting` (for room), `starting`, `tokenizer`, `weights`, `preparing`; empty when not loading."""
    fraction: float | None = None
    """Of this phase, from 0 to 1."""


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
class UnloadProgress:
    """The progress of unloading a model."""

    state: LlmState
    """UNLOADED in the last report."""
    running: int
    """Requests that still run."""
