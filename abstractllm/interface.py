"""The interface that every LLM has, whichever provider it comes from."""

from __future__ import annotations

import dataclasses
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, ClassVar, Literal, Self, overload

from abstractllm._core import execution, sync_bridge
from abstractllm._core.accumulator import fold
from abstractllm._core.model_memory import ModelMemory
from abstractllm.config import LLMConfig
from abstractllm.errors import UnsupportedFeatureError
from abstractllm.requests import GenerationRequest, make_request
from abstractllm.types import (
    CachedModel,
    Capabilities,
    Completion,
    Event,
    LlmState,
    LoadProgress,
    Prompt,
    PullProgress,
    TextDelta,
    Tool,
    UnloadProgress,
)

__all__ = ["AbstractLLMInterface"]


class AbstractLLMInterface(ABC):
    """One LLM: a provider with a configuration.

    Every method has an asynchronous twin named `*_async`. Both may be used from any thread and any event loop; the
    synchronous ones also work inside a running event loop, as in a notebook.

    A provider is a subclass with one asynchronous generator, `events`, and a `capabilities` method; checks, defaults,
    deadlines, retries, timing and the synchronous methods are inherited.

    Args:
        config: The keys of `config_type`, as strings or `ModelParameter` members; generation parameters in it are the
            LLM's defaults. The mapping is copied.

    Raises:
        ConfigurationError: If a key is unknown or its value malformed.
    """

    provider: ClassVar[str]
    """The provider's name, as given to `create_llm`."""
    config_type: ClassVar[type[LLMConfig]] = LLMConfig

    def __init__(self, config: Mapping[Any, Any] | None = None) -> None:
        self.name = self.provider
        """The LLM's name in a registry."""
        self._config = self.config_type.parse(self.with_defaults(config or {}))
        self._lock = threading.Lock()
        self._running = 0
        self._listeners: list[Callable[[], None]] = []

    # What a provider implements.

    @abstractmethod
    def events(self, request: GenerationRequest, config: LLMConfig) -> AsyncGenerator[Event, None]:
        """Answers a checked request: text, reasoning and tool call deltas, then exactly one `Finished`.

        Closing the generator must end the work behind it. `Started`, the message and the timing are added outside.

        Args:
            request: Its parameters hold the configuration's defaults already.
            config: The configuration the request runs under, whatever `set_config` does meanwhile.
        """

    @abstractmethod
    async def capabilities(self, config: LLMConfig, model: str) -> Capabilities:
        """What `model` can do under `config`."""

    async def check(self, request: GenerationRequest, config: LLMConfig) -> tuple[GenerationRequest, tuple[str, ...]]:
        """Refuses, or drops if the request says so, what the LLM cannot honour.

        Args:
            request: Its parameters hold the model and the configuration's defaults already.
            config: The configuration that the request runs under.

        Returns:
            The request as it will be answered, and the paths of what was dropped.
        """
        return execution.check(self, await self.capabilities(config, request.parameters.model or ""), request)

    async def count(self, request: GenerationRequest, config: LLMConfig) -> int:
        """Counts the tokens of a checked request's prompt, as the model would be given it."""
        raise UnsupportedFeatureError(f"{self.provider} cannot count tokens", field="CountTokens")

    async def cached_models(self) -> list[CachedModel]:
        """The models that the provider keeps on a disk, this machine's or its own server's, sorted by name."""
        raise UnsupportedFeatureError(f"{self.provider} has no model cache", field="llm")

    def pull(self, model: str | None = None) -> AsyncGenerator[PullProgress, None]:
        """Downloads a model to the disk where the provider keeps its models; the last report has `done` set.

        Leaving the generator gives up this caller's interest; a download that nobody follows any more is ended, and
        what is there of it is kept for the next one.

        Args:
            model: One of the models that the configuration lists; the default one if absent.
        """
        raise UnsupportedFeatureError(f"{self.provider} has no model cache", field="llm")

    async def clear_cache(self, model: str | None, *, dry_run: bool = False) -> tuple[list[str], int]:
        """Deletes one model, or all of them if `model` is None, from the provider's cache.

        Returns:
            The names of what was (or, in a dry run, would be) deleted, and the bytes that it frees.
        """
        raise UnsupportedFeatureError(f"{self.provider} has no model cache", field="llm")

    def with_defaults(self, values: Mapping[Any, Any]) -> dict[str, Any]:
        """`values` with what the provider takes from elsewhere, such as a key from the environment."""
        return {str(key): value for key, value in values.items()}

    # Generation.

    def run(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Answers a request that was built by `make_request`, as events."""
        return execution.run(self, request)

    async def run_to_end(self, request: GenerationRequest) -> Completion:
        """Answers a request that was built by `make_request`, as a whole."""
        return await fold(self.run(dataclasses.replace(request, whole=True)))

    @overload
    def generate(
        self,
        prompt: Prompt,
        system_prompt: str | None = None,
        stream: Literal[False] = False,
        **parameters: Any,
    ) -> str: ...
    @overload
    def generate(
        self, prompt: Prompt, system_prompt: str | None = None, *, stream: Literal[True], **parameters: Any
    ) -> Iterator[str]: ...
    @overload
    def generate(
        self, prompt: Prompt, system_prompt: str | None = None, stream: bool = False, **parameters: Any
    ) -> str | Iterator[str]: ...
    def generate(
        self, prompt: Prompt, system_prompt: str | None = None, stream: bool = False, **parameters: Any
    ) -> str | Iterator[str]:
        """Answers a prompt.

        Args:
            prompt: Text, or a list of messages.
            system_prompt: Replaces the conversation's own system message.
            stream: Whether to return an iterator over the answer's pieces instead of the whole. Leaving the iterator
                ends the generation.
            **parameters: Generation parameters (`temperature`, `max_tokens`, ...) and any of `response_format`,
                `tools`, `tool_choice`, `provider_options`, `request_id`, `labels`, `parameters_policy` and `timeout`
                (seconds).

        Returns:
            The answer's text, or an iterator over its pieces.

        Raises:
            AbstractLLMError: One of its subclasses, for whatever goes wrong.
        """
        if stream:
            request = make_request(prompt, system_prompt, **parameters)
            return sync_bridge.iterate(lambda: _texts(self.run(request)))
        return self.complete(prompt, system_prompt, **parameters).text

    def complete(self, prompt: Prompt, system_prompt: str | None = None, **parameters: Any) -> Completion:
        """Answers a prompt with everything there is to know of the answer; arguments and errors as `generate`."""
        request = make_request(prompt, system_prompt, **parameters)
        return sync_bridge.call(lambda: self.run_to_end(request))

    def stream(self, prompt: Prompt, system_prompt: str | None = None, **parameters: Any) -> Iterator[Event]:
        """Answers a prompt as events, `Started` first and `Finished` last; arguments and errors as `generate`."""
        request = make_request(prompt, system_prompt, **parameters)
        return sync_bridge.iterate(lambda: self.run(request))

    @overload
    async def generate_async(
        self,
        prompt: Prompt,
        system_prompt: str | None = None,
        stream: Literal[False] = False,
        **parameters: Any,
    ) -> str: ...
    @overload
    async def generate_async(
        self, prompt: Prompt, system_prompt: str | None = None, *, stream: Literal[True], **parameters: Any
    ) -> AsyncIterator[str]: ...
    async def generate_async(
        self, prompt: Prompt, system_prompt: str | None = None, stream: bool = False, **parameters: Any
    ) -> str | AsyncIterator[str]:
        """The asynchronous `generate`: with `stream=True` it gives, once awaited, an asynchronous iterator."""
        request = make_request(prompt, system_prompt, **parameters)
        if stream:
            return _texts(self.run(request))
        return (await self.run_to_end(request)).text

    async def complete_async(self, prompt: Prompt, system_prompt: str | None = None, **parameters: Any) -> Completion:
        """As `complete`."""
        return await self.run_to_end(make_request(prompt, system_prompt, **parameters))

    def stream_async(
        self, prompt: Prompt, system_prompt: str | None = None, **parameters: Any
    ) -> AsyncGenerator[Event, None]:
        """As `stream`; close the generator (`contextlib.aclosing`) to end the generation."""
        return self.run(make_request(prompt, system_prompt, **parameters))

    # Questions.

    def count_tokens(
        self,
        prompt: Prompt,
        system_prompt: str | None = None,
        *,
        tools: tuple[Tool, ...] | list[Tool] = (),
        model: str | None = None,
    ) -> int:
        """Counts the tokens that a prompt takes, special tokens and chat template included.

        Raises:
            UnsupportedFeatureError: If the provider cannot count.
        """
        return sync_bridge.call(lambda: self.count_tokens_async(prompt, system_prompt, tools=tools, model=model))

    async def count_tokens_async(
        self,
        prompt: Prompt,
        system_prompt: str | None = None,
        *,
        tools: tuple[Tool, ...] | list[Tool] = (),
        model: str | None = None,
    ) -> int:
        """As `count_tokens`."""
        return await self.run_count(make_request(prompt, system_prompt, tools=tools or None, model=model))

    async def run_count(self, request: GenerationRequest) -> int:
        """Counts the prompt tokens of a request that was built by `make_request`."""
        return await execution.count(self, request)

    def get_capabilities(self, model: str | None = None) -> dict[str, Any]:
        """What the LLM can do, by the names of `ModelCapability`.

        Args:
            model: One of the models that the configuration lists; the default one if absent.
        """
        return sync_bridge.call(lambda: self.get_capabilities_async(model))

    async def get_capabilities_async(self, model: str | None = None) -> dict[str, Any]:
        """As `get_capabilities`."""
        found = await self.describe(model)
        return {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}

    async def describe(self, model: str | None = None) -> Capabilities:
        """What the LLM can do, as a `Capabilities` value."""
        config = self._config
        return await self.capabilities(config, execution.choose_model(self, config, model, "model"))

    # Configuration.

    def get_config(self) -> dict[str, Any]:
        """A deep copy of the configuration: flat, without unset keys, secrets replaced by asterisks."""
        return self._config.public()

    async def preview(self, changes: Mapping[Any, Any]) -> LLMConfig:
        """The configuration that `set_config` would give; nothing is changed or loaded.

        Raises:
            ConfigurationError: If a key is unknown or its value malformed.
            ModelInUseError: If a local model cannot be loaded beside the one that it is to replace.
        """
        return self._config.changed(changes)

    def set_config(self, config: Mapping[Any, Any] | None = None, **changes: Any) -> dict[str, Any]:
        """Merges changes into the configuration; requests that run already keep theirs.

        Args:
            config: New values by key; `None` clears a key.
            **changes: The same as keyword arguments.

        Returns:
            The configuration after the change, as `get_config` gives it.

        Raises:
            ConfigurationError: If a key is unknown or its value malformed; nothing is changed then.
        """
        with self._lock:
            before = self._config
            self._config = before.changed({**(config or {}), **changes})
        self.reconfigured(before, self._config)
        return self.get_config()

    async def get_config_async(self) -> dict[str, Any]:
        """As `get_config`."""
        return self.get_config()

    async def set_config_async(self, config: Mapping[Any, Any] | None = None, **changes: Any) -> dict[str, Any]:
        """As `set_config`."""
        return self.set_config(config, **changes)

    @property
    def config(self) -> LLMConfig:
        """The configuration of the next request; immutable."""
        return self._config

    def reconfigured(self, before: LLMConfig, after: LLMConfig) -> None:
        """Called after a change, for a provider that keeps a client or a model made from the configuration."""

    # Life.

    @property
    def state(self) -> tuple[LlmState, str]:
        """Whether the LLM can answer, and why not."""
        return LlmState.READY, ""

    @property
    def running(self) -> int:
        """Requests being answered now, waiting ones included."""
        return self._running

    @property
    def queued(self) -> int:
        """Requests that wait for their turn."""
        return 0

    @property
    def capacity(self) -> int:
        """Requests that it runs and lets wait at most; 0 where it sets no bound of its own."""
        return 0

    @property
    def device(self) -> str:
        """Where the model is: `cpu`, `cuda:0`; empty for a hosted one."""
        return ""

    @property
    def memory_bytes(self) -> int | None:
        """Memory that the model takes on its device."""
        return None

    def on_change(self, listener: Callable[[], None]) -> None:
        """Registers a function that is called, from any thread, whenever `state` changes."""
        self._listeners.append(listener)

    def _changed(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    def share(self, residency: ModelMemory) -> None:
        """Called by a registry, before the LLM is used: where its models, if it loads any, get their memory."""

    async def load(self) -> None:
        """Makes the LLM ready for its first request; a hosted one has nothing to do.

        Raises:
            ModelLoadError: If a local model cannot be loaded.
        """

    async def load_progress(self) -> AsyncGenerator[LoadProgress, None]:
        """Loads as `load` does and reports progress; the last report's state is READY.

        Leaving the generator does not stop the loading of a local model.
        """
        state, reason = self.state
        if state is not LlmState.READY:
            yield LoadProgress(LlmState.LOADING, reason)
        await self.load()
        yield LoadProgress(LlmState.READY)

    async def unload(self, *, force: bool = False) -> AsyncGenerator[UnloadProgress, None]:
        """Unloads a local model and reports progress; the last report's state is UNLOADED.

        The next request loads it again. Leaving the generator does not stop the unloading.

        Args:
            force: Cancel the requests that run or wait: they end with a GenerationCancelledError.

        Raises:
            ModelInUseError: If requests run or wait, unless forced.
            UnsupportedFeatureError: If there is nothing to unload: the model is a hosted one.
        """
        raise UnsupportedFeatureError(f"{self.provider} keeps no model in memory to be unloaded", field="llm")
        yield  # makes this a generator

    def close(self) -> None:
        """Releases everything: connections, processes, memory. Running requests end with an error."""
        sync_bridge.call(self.close_async)

    async def close_async(self) -> None:
        """As `close`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close_async()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} model={self._config.model!r}>"


async def _texts(events: AsyncGenerator[Event, None]) -> AsyncGenerator[str, None]:
    async with aclosing(events):
        async for event in events:
            if isinstance(event, TextDelta) and event.text:
                yield event.text
