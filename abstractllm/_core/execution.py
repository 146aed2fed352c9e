"""The one way from a request to its events: checks, defaults, deadline, retries, timing, the folded answer."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import random
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

from abstractllm._core.accumulator import AnswerAccumulator
from abstractllm.config import LLMConfig
from abstractllm.errors import (
    AbstractLLMError,
    GenerationTimeoutError,
    IncompleteStreamError,
    InternalError,
    ModelNotFoundError,
    UnsupportedFeatureError,
    UnsupportedParameterError,
)
from abstractllm.requests import GenerationRequest
from abstractllm.types import (
    Attempt,
    Capabilities,
    Event,
    Finished,
    GrammarFormat,
    Image,
    JsonObjectFormat,
    JsonSchemaFormat,
    ParametersPolicy,
    RegexFormat,
    Role,
    Started,
    ToolCall,
)
from abstractllm.utils.logging import log_request, log_response

if TYPE_CHECKING:
    from abstractllm.interface import AbstractLLMInterface

T = TypeVar("T")

_FORMATS = {
    JsonObjectFormat: "json_object",
    JsonSchemaFormat: "json_schema",
    RegexFormat: "regex",
    GrammarFormat: "grammar",
}
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0


async def run(llm: AbstractLLMInterface, request: GenerationRequest) -> AsyncGenerator[Event, None]:
    """Answers a request: `Started`, then the provider's events, then `Finished` with message, attempts and timing.

    Raises:
        AbstractLLMError: Whatever goes wrong, filled with provider, model, request id and the partial text.
    """
    arrival = time.monotonic()
    config = llm.config
    answer = AnswerAccumulator()
    answer_id = uuid.uuid4().hex
    request_id = request.request_id or answer_id
    model = ""
    outcome: Finished | BaseException | None = None
    first_token: float | None = None
    llm._running += 1
    try:
        deadline = _deadline(config, request)
        model = choose_model(llm, config, request.parameters.model)
        request = dataclasses.replace(request, request_id=request_id)
        request, dropped = await _within(deadline, prepare(llm, config, request, model))
        log_request(llm.provider, request, config.log_content, request_id=request_id, model=model, llm=llm.name)
        events, event, failed, answered = await _open(llm, request, config, model, deadline)
        async with aclosing(events):
            first_token = time.monotonic() - arrival
            if isinstance(event, Started):  # of the LLM that answers instead of this one
                yield dataclasses.replace(event, id=answer_id)
                event = await _next(events, deadline)
            else:
                yield Started(answer_id, llm.name, llm.provider, model, dropped)
            while not isinstance(event, Finished):
                answer.add(event)
                yield event
                event = await _next(events, deadline)
            total = time.monotonic() - arrival
            timing = dataclasses.replace(event.timing, first_token=event.timing.first_token or first_token, total=total)
            outcome = dataclasses.replace(
                event,
                message=event.message or answer.message(),
                attempts=(*failed, *(event.attempts or (answered,))),
                timing=timing,
            )
            yield outcome
    except AbstractLLMError as error:
        outcome = _filled(error, llm, model, request_id, answer)
        raise
    except (asyncio.CancelledError, GeneratorExit) as error:
        outcome = outcome or error
        raise
    except Exception as error:
        outcome = _filled(InternalError(f"{type(error).__name__}: {error}"), llm, model, request_id, answer)
        raise outcome from error
    finally:
        llm._running -= 1
        seconds = time.monotonic() - arrival
        log_response(
            llm.provider,
            answer.text,
            config.log_content,
            request_id=request_id,
            outcome=outcome,
            seconds=seconds,
        )


def _filled(
    error: AbstractLLMError, llm: AbstractLLMInterface, model: str, request_id: str, answer: AnswerAccumulator
) -> AbstractLLMError:
    error.fill(provider=llm.provider, llm=llm.name, model=model or None, request_id=request_id)
    error.partial_text = error.partial_text or answer.text
    return error


async def count(llm: AbstractLLMInterface, request: GenerationRequest) -> int:
    """Counts a request's prompt tokens, with the same checks and defaults as `run`."""
    config = llm.config
    deadline = _deadline(config, request)
    model = choose_model(llm, config, request.parameters.model, "model")
    try:
        request, _ = await _within(deadline, prepare(llm, config, request, model))
        return await _within(deadline, llm.count(request, config))
    except AbstractLLMError as error:
        raise _filled(
            error, llm, model, request.request_id or uuid.uuid4().hex, AnswerAccumulator()
        ) from error.__cause__


def choose_model(
    llm: AbstractLLMInterface, config: LLMConfig, model: str | None, field: str = "parameters.model"
) -> str:
    """The model that answers: the configured one, or one of those that the configuration lists.

    Args:
        llm: The LLM that is asked.
        config: Its configuration.
        model: The model that the caller names, if any.
        field: Where the caller names it.

    Raises:
        ModelNotFoundError: If `model` is not listed.
    """
    if not model or model == config.model:
        return config.model
    if not config.model:
        raise ModelNotFoundError(
            f"{field}: LLM {llm.name!r} ({llm.provider}) has no model of its own to choose from, got {model[:80]!r}",
            field=field,
            requested=model[:80],
        )
    if model not in config.models:
        listed = ", ".join(dict.fromkeys((config.model, *config.models)))
        raise ModelNotFoundError(
            f"{field}: LLM {llm.name!r} offers only {listed}, got {model[:80]!r}",
            field=field,
            limit=listed,
            requested=model[:80],
        )
    return model


async def prepare(
    llm: AbstractLLMInterface, config: LLMConfig, request: GenerationRequest, model: str
) -> tuple[GenerationRequest, tuple[str, ...]]:
    """Fills in the configuration's defaults and refuses, or drops, what the LLM cannot honour.

    Returns:
        The request as it will be answered, and the paths of what was dropped.
    """
    request = dataclasses.replace(
        request,
        parameters=request.parameters.over(config.parameters).model_copy(update={"model": model}),
        system_prompt=config.system_prompt if request.system_prompt is None else request.system_prompt,
        provider_options={**config.provider_options, **request.provider_options},
    )
    return await llm.check(request, config)


def check(
    llm: AbstractLLMInterface, known: Capabilities, request: GenerationRequest
) -> tuple[GenerationRequest, tuple[str, ...]]:
    """Refuses, or drops, what is not among an LLM's capabilities; returns as `prepare` does."""
    _check_features(llm, known, request)
    return _check_parameters(llm, known, request)


def _check_features(llm: AbstractLLMInterface, known: Capabilities, request: GenerationRequest) -> None:
    parts = [part for message in request.messages for part in message.parts]
    roles = {message.role for message in request.conversation()}
    needs = {
        "tools": ("tools", bool(request.tools) or any(isinstance(part, ToolCall) for part in parts)),
        "chat.messages.image": ("image_input", any(isinstance(part, Image) for part in parts)),
        "chat": ("chat", bool(request.messages)),
        "system_prompt": ("system_prompt", Role.SYSTEM in roles),
    }
    if request.response_format is not None:
        kind = _FORMATS[type(request.response_format)]
        needs[f"response_format.{kind}"] = (kind, True)
    for field, (capability, needed) in needs.items():
        if needed and not getattr(known, capability):
            raise UnsupportedFeatureError(f"LLM {llm.name!r} ({llm.provider}) does not support {field}", field=field)


def _check_parameters(
    llm: AbstractLLMInterface, known: Capabilities, request: GenerationRequest
) -> tuple[GenerationRequest, tuple[str, ...]]:
    unsupported = [n for n in request.parameters.set_fields() if n != "model" and n not in known.parameters]
    strange = [key for key in request.provider_options if key not in known.provider_options]
    if not unsupported and not strange:
        return request, ()
    paths = (*(f"parameters.{name}" for name in unsupported), *(f"provider_options.{key}" for key in strange))
    if request.parameters_policy is ParametersPolicy.REJECT:
        known_names = known.parameters if unsupported else known.provider_options
        allowed = ", ".join(known_names) or "none"
        raise UnsupportedParameterError(
            f"LLM {llm.name!r} ({llm.provider}) does not take {paths[0]}; it takes {allowed}",
            field=paths[0],
            limit=allowed,
        )
    options = {key: value for key, value in request.provider_options.items() if key not in strange}
    parameters = request.parameters.model_copy(update=dict.fromkeys(unsupported))
    return dataclasses.replace(request, parameters=parameters, provider_options=options), paths


async def _open(
    llm: AbstractLLMInterface,
    request: GenerationRequest,
    config: LLMConfig,
    model: str,
    deadline: float | None,
) -> tuple[AsyncGenerator[Event, None], Event, tuple[Attempt, ...], Attempt]:
    """Opens the provider's stream and waits for its first event; until then, and only then, it may try again.

    Returns:
        The stream, its first event, the attempts that failed, and the one that did not.
    """
    failed: tuple[Attempt, ...] = ()
    retries = config.max_retries if request.retry else 0
    for tries in itertools.count(1):
        began = time.monotonic()
        events = llm.events(request, config)
        try:
            event = await _next(events, deadline)
        except BaseException as error:
            await events.aclose()
            if not isinstance(error, AbstractLLMError):
                raise
            failed += error.attempts or (_attempt(llm, model, began, error),)
            if error.attempts:
                error.attempts = failed
            if not error.retryable or tries > retries:
                raise
            await _pause(error, tries, deadline)
        else:
            return events, event, failed, _attempt(llm, model, began)
    raise AssertionError("unreachable")


def _attempt(llm: AbstractLLMInterface, model: str, began: float, error: AbstractLLMError | None = None) -> Attempt:
    reason, message = (error.reason, error.message) if error else ("", "")
    return Attempt(llm.name, llm.provider, model, str(reason), message, time.monotonic() - began)


async def _pause(error: AbstractLLMError, tries: int, deadline: float | None) -> None:
    """Waits before a retry: exponentially with full jitter, at least as long as the provider asks.

    What asks for more than half a minute, or past the deadline, is the caller's to wait for: the error says how long.
    """
    wait = random.uniform(0, min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** (tries - 1)))
    wait = max(wait, error.retry_after or 0.0)
    is_too_late = deadline is not None and asyncio.get_running_loop().time() + wait >= deadline
    if is_too_late or wait > _LONGEST_DELAY:
        raise error
    await asyncio.sleep(wait)


async def _next(events: AsyncGenerator[Event, None], deadline: float | None) -> Event:
    try:
        return await _within(deadline, anext(events))
    except StopAsyncIteration:
        raise IncompleteStreamError("the answer ended without a finish reason") from None


def _deadline(config: LLMConfig, request: GenerationRequest) -> float | None:
    """The moment, on the event loop's clock, at which the whole answer must be there."""
    budgets = [seconds for seconds in (request.timeout, config.timeout) if seconds is not None]
    return asyncio.get_running_loop().time() + min(budgets) if budgets else None


async def _within(deadline: float | None, result: Awaitable[T]) -> T:
    """Waits for a result until the deadline; a timeout that the provider itself ran into stays what it is."""
    if deadline is None:
        return await result
    timeout = asyncio.timeout_at(deadline)
    try:
        async with timeout:
            return await result
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise GenerationTimeoutError("the request's deadline passed") from error
