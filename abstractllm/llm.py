"""The face of an LLM that a program uses: generation, capabilities, configuration, loading."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, ClassVar, Literal, Self, Unpack, overload

from abstractllm._core import sync_bridge
from abstractllm._core.execution import Executor
from abstractllm._core.sync_bridge import blocking
from abstractllm.config import ConfigValues
from abstractllm.errors import UnsupportedFeatureError
from abstractllm.requests import GenerationOptions, make_request
from abstractllm.types import (
    Capabilities,
    Completion,
    Event,
    LlmState,
    LoadProgress,
    Prompt,
    TextDelta,
    Tool,
    UnloadProgress,
)

__all__ = ["LLM"]


class LLM(ABC):
    """One LLM as a program uses it: a provider with a configuration.

    Every method has an asynchronous twin named `*_async`. Both may be used from any thread and any event loop; the
    synchronous ones also work inside a running event loop, as in a notebook. As a context manager an LLM closes itself
    at the end.

    Example:
        ```python
        with create_llm("huggingface") as llm:
            print(llm.generate("What is the capital of France?", temperature=0))
        ```
    """

    provider: ClassVar[str]
    """The provider's name, as given to `create_llm`."""
    name: str
    """The LLM's name: the one it has in a registry, elsewhere its provider's."""
    _executor: Executor[Any]

    # Generation.

    @overload
    def generate(
        self,
        prompt: Prompt,
        system_prompt: str | None = None,
        stream: Literal[False] = False,
        **options: Unpack[GenerationOptions],
    ) -> str: ...
    @overload
    def generate(
        self,
        prompt: Prompt,
        system_prompt: str | None = None,
        *,
        stream: Literal[True],
        **options: Unpack[GenerationOptions],
    ) -> Generator[str, None, None]: ...
    @overload
    def generate(
        self,
        prompt: Prompt,
        system_prompt: str | None = None,
        stream: bool = False,
        **options: Unpack[GenerationOptions],
    ) -> str | Generator[str, None, None]: ...
    def generate(
        self,
        prompt: Prompt,
        system_prompt: str | None = None,
        stream: bool = False,
        **options: Unpack[GenerationOptions],
    ) -> str | Generator[str, None, None]:
        """Answers a prompt with text.

        Example:
            ```python
            text = llm.generate("What is the capital of France?", temperature=0)
            for piece in llm.generate("Tell me a story.", stream=True, max_tokens=200):
                print(piece, end="", flush=True)
            ```

        Args:
            prompt: Text, or a list of messages.
            system_prompt: Replaces the conversation's system message.
            stream: True for a generator of the answer's pieces instead of the whole. Leaving or closing the generator
                ends the generation.
            **options: Generation parameters (`temperature`, `max_tokens`, ...) and any of `response_format`,
                `tools`, `tool_choice`, `provider_options`, `request_id`, `labels`, `parameters_policy` and `timeout`
                (seconds). `None` means unset.

        Returns:
            The answer's text, or a generator of its pieces.

        Raises:
            AbstractLLMError: One of its subclasses, for whatever goes wrong.
        """
        if stream:
            request = make_request(prompt, system_prompt, **options)
            return sync_bridge.iterate(lambda: _texts(self._executor.run(request)))
        return self.complete(prompt, system_prompt, **options).text

    @overload
    async def generate_async(
        self,
        prompt: Prompt,
        system_prompt: str | None = None,
        stream: Literal[False] = False,
        **options: Unpack[GenerationOptions],
    ) -> str: ...
    @overload
    async def generate_async(
        self,
        prompt: Prompt,
        system_prompt: str | None = None,
        *,
        stream: Literal[True],
        **options: Unpack[GenerationOptions],
    ) -> AsyncGenerator[str, None]: ...
    @overload
    async def generate_async(
        self,
        prompt: Prompt,
        system_prompt: str | None = None,
        stream: bool = False,
        **options: Unpack[GenerationOptions],
    ) -> str | AsyncGenerator[str, None]: ...
    async def generate_async(
        self,
        prompt: Prompt,
        system_prompt: str | None = None,
        stream: bool = False,
        **options: Unpack[GenerationOptions],
    ) -> str | AsyncGenerator[str, None]:
        """The asynchronous `generate`: with `stream=True` it gives, once awaited, an asynchronous generator."""
        request = make_request(prompt, system_prompt, **options)
        if stream:
            return _texts(self._executor.run(request))
        return (await self._executor.run_to_end(request)).text

    async def complete_async(
        self, prompt: Prompt, system_prompt: str | None = None, **options: Unpack[GenerationOptions]
    ) -> Completion:
        """Answers a prompt with everything there is to know of the answer; arguments and errors as `generate`.

        Example:
            ```python
            completion = llm.complete("What is the capital of France?", max_tokens=20)
            if completion.finish_reason is FinishReason.STOP:
                print(completion.text)
            ```
        """
        return await self._executor.run_to_end(make_request(prompt, system_prompt, **options))

    complete = blocking(complete_async)

    def stream(
        self, prompt: Prompt, system_prompt: str | None = None, **options: Unpack[GenerationOptions]
    ) -> Generator[Event, None, None]:
        """Answers a prompt as events, `Started` first and `Finished` last; arguments and errors as `generate`.

        Example:
            ```python
            with closing(llm.stream("Tell me a story.")) as events:
                for event in events:
                    if isinstance(event, TextDelta):
                        print(event.text, end="", flush=True)
            ```

        Returns:
            A generator; leaving or closing it ends the generation.
        """
        request = make_request(prompt, system_prompt, **options)
        return sync_bridge.iterate(lambda: self._executor.run(request))

    def stream_async(
        self, prompt: Prompt, system_prompt: str | None = None, **options: Unpack[GenerationOptions]
    ) -> AsyncGenerator[Event, None]:
        """The asynchronous `stream`; closing the generator (`contextlib.aclosing`) ends the generation."""
        return self._executor.run(make_request(prompt, system_prompt, **options))

    # Questions.

    async def count_tokens_async(
        self,
        prompt: Prompt,
        system_prompt: str | None = None,
        *,
        tools: Sequence[Tool] = (),
        model: str | None = None,
    ) -> int:
        """Counts the tokens that a prompt takes, special tokens and chat template included.

        Args:
            prompt: Text, or a list of messages.
            system_prompt: Replaces the conversation's system message.
            tools: The functions that the model may ask to be called.
            model: One of the models that the configuration lists; the default one if absent.

        Raises:
            UnsupportedFeatureError: If the provider cannot count.
        """
        return await self._executor.count(make_request(prompt, system_prompt, tools=tools or None, model=model))

    count_tokens = blocking(count_tokens_async)

    @abstractmethod
    async def get_capabilities_async(self, model: str | None = None) -> Capabilities:
        """Returns the abilities and limits of the LLM, as attributes and by the names of `ModelCapability`.

        Args:
            model: One of the models that the configuration lists; the default one if absent.
        """

    get_capabilities = blocking(get_capabilities_async)

    # Configuration.

    @abstractmethod
    def get_config(self) -> ConfigValues:
        """Returns a deep copy of the configuration: flat, without unset keys, secrets replaced by asterisks."""

    async def get_config_async(self) -> ConfigValues:
        """The asynchronous `get_config`."""
        return self.get_config()

    @abstractmethod
    def set_config(self, config: Mapping[Any, Any] | None = None, **changes: Any) -> ConfigValues:
        """Merges changes into the configuration; requests that run already keep theirs.

        Args:
            config: New values by key; `None` clears a key.
            **changes: The same as keyword arguments.

        Returns:
            The configuration after the change, as `get_config` gives it.

        Raises:
            ConfigurationError: If a key is unknown or its value malformed; nothing is changed then.
        """

    async def set_config_async(self, config: Mapping[Any, Any] | None = None, **changes: Any) -> ConfigValues:
        """The asynchronous `set_config`."""
        return self.set_config(config, **changes)

    # Life.

    @property
    def state(self) -> tuple[LlmState, str]:
        """The LLM's state, and the reason where it is not READY."""
        return LlmState.READY, ""

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

    @abstractmethod
    async def close_async(self) -> None:
        """Releases everything: connections, processes, memory. Running requests end with an error."""

    close = blocking(close_async)

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


async def _texts(events: AsyncGenerator[Event, None]) -> AsyncGenerator[str, None]:
    async with aclosing(events):
        async for event in events:
            if isinstance(event, TextDelta) and event.text:
                yield event.text
