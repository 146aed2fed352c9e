"""A provider without a model, for tests: it plays a script of text, tool calls, delays and failures.

It goes through the same checks, deadlines, retries and events as every provider, is available to the configuration
file as `provider: scripted`, and can be scripted by a single request, from any language, through the provider options
`script`, `reply` and `delay`.

A script is a list of steps. A step is an `Event`, an exception to raise, a number of seconds to wait, or a mapping:

    {"text": "..."}                                  text, sent word by word
    {"reasoning": "..."}                             reasoning, sent word by word
    {"tool_call": {"id": "1", "name": "f", "arguments": {...}}}
    {"delay": 0.5}                                   seconds to wait
    {"error": "RATE_LIMITED", "message": "...", "retry_after": 1.5, "upstream_status": 429}
    {"finish": "refusal"}                            the finish reason; `stop` or `tool_calls` if absent
    {"break_off": true}                              the stream ends without a finish reason

Without a script it repeats the last message. A token is a word with the white space before it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeGuard

from pydantic import Field

from abstractllm._core.stop_scanner import StopScanner
from abstractllm.config import LLMConfig
from abstractllm.errors import ErrorReason, InvalidRequestError, ModelLoadError, error_class
from abstractllm.interface import AbstractLLMInterface
from abstractllm.parameters import GENERATION_PARAMETERS
from abstractllm.requests import GenerationRequest
from abstractllm.types import (
    Capabilities,
    Event,
    Finished,
    FinishReason,
    LlmState,
    Reasoning,
    ReasoningDelta,
    Text,
    TextDelta,
    ToolCallDelta,
    Usage,
)

__all__ = ["ScriptedConfig", "ScriptedProvider", "Step"]

Step = Event | BaseException | float | Mapping[str, Any]

_KEPT_REQUESTS = 100
_KEPT_BYTES = 4 << 20

_CAPABILITIES = Capabilities(
    tools=True,
    image_input=True,
    json_object=True,
    json_schema=True,
    regex=True,
    grammar=True,
    logprobs=True,
    seed=True,
    token_counting=True,
    parameters=tuple(name for name in GENERATION_PARAMETERS if name != "model"),
    provider_options=("script", "reply", "delay"),
)


class ScriptedConfig(LLMConfig):
    """The configuration of a scripted LLM."""

    model: Annotated[str, Field(min_length=1, max_length=256)] = "script"
    script: tuple[Any, ...] | None = None
    reply: str | None = None
    """Short for a script of one text."""
    delay: Annotated[float, Field(ge=0, le=3600)] = 0.0
    """Seconds before each word."""
    load_delay: Annotated[float, Field(ge=0, le=3600)] = 0.0
    """Seconds that `load` takes."""
    load_error: str | None = None
    """If set, `load` fails with this message."""


class ScriptedProvider(AbstractLLMInterface[ScriptedConfig]):
    """A provider that plays a script instead of asking a model.

    Example:
        ```python
        llm = ScriptedProvider({"script": [{"text": "Paris it is"}]})
        print(llm.generate("What is the capital of France?", max_tokens=3))
        assert llm.requests[0].parameters.max_tokens == 3
        ```

    Args:
        config: The keys of `ScriptedConfig`.
        script: The steps, or a function from the request to its steps; overrides the configuration's.
        capabilities: The capabilities that it claims, to test refusals; everything if absent.

    Attributes:
        requests: The latest requests that were answered, in order, defaults filled in: up to 100, and 4 MiB of text,
            images and options in all.
        answered: The number of all requests that were answered.
        released: The number of those that have ended, however they ended.
    """

    provider = "scripted"
    config_type = ScriptedConfig

    def __init__(
        self,
        config: Mapping[Any, Any] | None = None,
        *,
        script: Sequence[Step] | Callable[[GenerationRequest], Iterable[Step]] | None = None,
        capabilities: Capabilities = _CAPABILITIES,
    ) -> None:
        super().__init__(config)
        self._script = script
        self._capabilities = capabilities
        self._state = (LlmState.READY, "")
        if self.config.load_delay or self.config.load_error:
            self._state = (LlmState.UNLOADED, "")
        self._loading = asyncio.Lock()
        self.requests: list[GenerationRequest] = []
        self._sizes: list[int] = []
        self.answered = self.released = 0

    async def capabilities(self, config: ScriptedConfig, model: str) -> Capabilities:
        """Returns the capabilities that it was given."""
        return self._capabilities

    async def count(self, request: GenerationRequest, config: ScriptedConfig) -> int:
        """Counts the words in the conversation."""
        return _count_tokens(request)

    async def events(self, request: GenerationRequest, config: ScriptedConfig) -> AsyncGenerator[Event, None]:
        """Plays the script, cut by `max_tokens` and `stop` as a model's answer would be."""
        await self.load()
        self._keep(request)
        try:
            performance = _Performance(request, self._delay(request, config))
            async for event in performance.play(self._steps(request, config)):
                yield event
        finally:
            self.released += 1

    def _keep(self, request: GenerationRequest) -> None:
        """Keeps a request, and forgets earlier ones: a server may answer for months."""
        self.answered += 1
        # A test may have cleared the list.
        self._sizes = [*self._sizes[len(self._sizes) - len(self.requests) :], _size(request)]
        self.requests.append(request)
        while len(self._sizes) > _KEPT_REQUESTS or sum(self._sizes) > _KEPT_BYTES:
            del self.requests[0], self._sizes[0]

    def _steps(self, request: GenerationRequest, config: ScriptedConfig) -> Iterable[Step]:
        options = request.provider_options
        if "script" in options:
            return _script_option(options["script"])
        if "reply" in options:
            return [{"text": _reply_option(options["reply"])}]
        if callable(self._script):
            return self._script(request)
        if self._script is not None:
            return self._script
        if config.script is not None:
            return config.script
        return [{"text": request.conversation()[-1].text if config.reply is None else config.reply}]

    def _delay(self, request: GenerationRequest, config: ScriptedConfig) -> float:
        delay = request.provider_options.get("delay", config.delay)
        if not isinstance(delay, int | float) or not 0 <= delay <= 3600:
            raise _refused("delay", "0 to 3600 seconds", delay)
        return float(delay)

    @property
    def state(self) -> tuple[LlmState, str]:
        """READY, unless a load delay or a load error is configured."""
        return self._state

    async def load(self) -> None:
        """Takes `load_delay` seconds the first time, or fails with `load_error`."""
        config = self.config
        async with self._loading:
            if self._state[0] is LlmState.READY:
                return
            self._become(LlmState.LOADING, "loading the script")
            try:
                await asyncio.sleep(config.load_delay)
            except asyncio.CancelledError:
                self._become(LlmState.UNLOADED, "")
                raise
            if config.load_error is not None:
                self._become(LlmState.FAILED, config.load_error)
                raise ModelLoadError(config.load_error)
            self._become(LlmState.READY, "")

    def _become(self, state: LlmState, reason: str) -> None:
        self._state = (state, reason)
        self._changed()


class _Performance:
    """The playing of one script for one request."""

    def __init__(self, request: GenerationRequest, delay: float) -> None:
        self._request = request
        self._delay = delay
        self._limit = request.parameters.max_tokens
        self._stops = StopScanner(request.parameters.stop or ())
        self._tokens = 0
        self._calls = 0

    async def play(self, steps: Iterable[Step]) -> AsyncGenerator[Event, None]:
        for item in (item for step in steps for item in _expand(step, self._calls)):
            match item:
                case None:
                    return
                case BaseException():
                    raise item
                case float():
                    await asyncio.sleep(item)
                case Finished():
                    yield item
                    return
                case _:
                    is_admitted = await self._admit(item)
                    # No stop sequence goes on across a call.
                    if (not is_admitted or not isinstance(item, TextDelta)) and (rest := self._stops.flush()):
                        yield TextDelta(rest)
                    if not is_admitted:
                        yield self._finished(FinishReason.MAX_TOKENS)
                        return
                    yield TextDelta(self._stops.push(item.text), item.logprobs) if isinstance(item, TextDelta) else item
                    if self._stops.stop_sequence:
                        yield self._finished(FinishReason.STOP_SEQUENCE)
                        return
        if rest := self._stops.flush():
            yield TextDelta(rest)
        yield self._finished(FinishReason.TOOL_CALLS if self._calls else FinishReason.STOP)

    async def _admit(self, event: Event) -> bool:
        """Counts an event, after its delay; returns False for a token beyond `max_tokens`."""
        match event:
            case ToolCallDelta():
                self._calls = event.index + 1
            case TextDelta() | ReasoningDelta():
                await asyncio.sleep(self._delay)
                if self._tokens == self._limit:
                    return False
                self._tokens += 1
        return True

    def _finished(self, reason: FinishReason) -> Finished:
        usage = Usage(input_tokens=_count_tokens(self._request), output_tokens=self._tokens)
        return Finished(reason, self._stops.stop_sequence, usage)


def _expand(step: object, calls: int) -> Sequence[Event | BaseException | float | None]:
    """Turns a step into events, exceptions, seconds to wait, and None for breaking off."""
    if isinstance(step, Event | BaseException):
        return [step]
    if isinstance(step, int | float):
        return [float(step)]
    match dict(step) if isinstance(step, Mapping) else step:
        case {"text": str(text)}:
            return [TextDelta(piece) for piece in _pieces(text)]
        case {"reasoning": str(text)}:
            return [ReasoningDelta(piece) for piece in _pieces(text)]
        case {"delay": int() | float() as seconds} if 0 <= seconds <= 3600:
            return [float(seconds)]
        case {"tool_call": {"name": str(name), **call}}:
            arguments = json.dumps(call.get("arguments", {}))
            half = len(arguments) // 2
            call_id = str(call.get("id", f"call_{calls}"))
            return [
                ToolCallDelta(calls, call_id, name, arguments[:half]),
                ToolCallDelta(calls, arguments_fragment=arguments[half:]),
            ]
        case {"error": str(name), **facts} if name in list(ErrorReason) and _are_facts(facts):
            message = facts.pop("message", f"scripted {name}")
            return [error_class(name)(message, reason=ErrorReason(name), **facts)]
        case {"finish": str(finish)} if finish in list(FinishReason):
            return [Finished(FinishReason(finish))]
        case {"break_off": True}:
            return [None]
    return [
        InvalidRequestError(
            f"provider_options.script: unknown step {step!r:.200}",
            field="provider_options.script",
            requested=repr(step)[:200],
        )
    ]


_FACTS: dict[str, Any] = {"message": str, "retry_after": int | float, "upstream_status": int}


def _are_facts(facts: Mapping[Any, Any]) -> TypeGuard[dict[str, Any]]:
    return all(isinstance(value, _FACTS.get(name, ())) for name, value in facts.items())


def _script_option(script: object) -> Sequence[Step]:
    if not isinstance(script, list | tuple) or not script:
        raise _refused("script", "a list of at least one step", script)
    return script


def _reply_option(reply: object) -> str:
    if not isinstance(reply, str | int | float):
        raise _refused("reply", "a text", reply)
    return str(reply)


def _refused(option: str, rule: str, got: object) -> InvalidRequestError:
    path = f"provider_options.{option}"
    return InvalidRequestError(f"{path}: must be {rule}, got {got!r:.200}", field=path, limit=rule, requested=got)


def _pieces(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+", text)


def _count_tokens(request: GenerationRequest) -> int:
    parts = [part for message in request.conversation() for part in message.parts]
    return sum(len(_pieces(part.text)) for part in parts if isinstance(part, Text | Reasoning))


def _size(value: object) -> int:
    """Returns the bytes and characters that a value holds, wherever they are in it; a call's record does not count."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_size(key) + _size(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return sum(map(_size, value))
    if dataclasses.is_dataclass(value):
        return sum(_size(getattr(value, field.name)) for field in dataclasses.fields(value) if field.compare)
    return 0
