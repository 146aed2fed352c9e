"""How an LLM is asked: synchronously or not, for a text, a whole answer or its events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, Literal, overload

from abstractllm import _portal
from abstractllm.requests import GenerationRequest, make_request
from abstractllm.types import Completion, Event, Prompt, TextDelta

__all__ = ["Asking"]


class Asking(ABC):
    """The methods by which a caller asks an LLM; all of them build a request and give it to `run` or `run_to_end`."""

    @abstractmethod
    def run(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Answers a request that was built by `make_request`, as events."""

    @abstractmethod
    async def run_to_end(self, request: GenerationRequest) -> Completion:
        """Answers a request that was built by `make_request`, as a whole."""

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
            return _portal.iterate(lambda: _texts(self.run(request)))
        return self.complete(prompt, system_prompt, **parameters).text

    def complete(self, prompt: Prompt, system_prompt: str | None = None, **parameters: Any) -> Completion:
        """Answers a prompt with everything there is to know of the answer; arguments and errors as `generate`."""
        request = make_request(prompt, system_prompt, **parameters)
        return _portal.call(lambda: self.run_to_end(request))

    def stream(self, prompt: Prompt, system_prompt: str | None = None, **parameters: Any) -> Iterator[Event]:
        """Answers a prompt as events, `Started` first and `Finished` last; arguments and errors as `generate`."""
        request = make_request(prompt, system_prompt, **parameters)
        return _portal.iterate(lambda: self.run(request))

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


async def _texts(events: AsyncGenerator[Event, None]) -> AsyncGenerator[str, None]:
    async with aclosing(events):
        async for event in events:
            if isinstance(event, TextDelta) and event.text:
                yield event.text
