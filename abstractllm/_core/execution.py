"""The execution of requests: defaults, checks, deadline, retries, timing, the folded answer."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import time
import uuid
import weakref
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Generic, Protocol, TypeVar

from abstractllm._core.accumulator import AnswerAccumulator, fold
from abstractllm._core.admission.retry_pauses import RetryPauses
from abstractllm._core.admission.ticket import measure
from abstractllm._core.capability_check import Named
from abstractllm._core.deadlines import deadline_of, deadline_on_the_clock, pause, within
from abstractllm._core.request_log import log_outcome, log_start
from abstractllm._core.whole_characters import WholeCharacters
from abstractllm.config import LLMConfig
from abstractllm.errors import AbstractLLMError, IncompleteStreamError, InternalError, ModelNotFoundError
from abstractllm.requests import GenerationRequest
from abstractllm.types import Attempt, Completion, Event, Finished, Started

__all__ = ["Answerer", "Executor", "choose_model"]

ConfigT = TypeVar("ConfigT", bound=LLMConfig)


class Answerer(Named, Protocol[ConfigT]):
    """The part of an LLM that requests are executed on."""

    @property
    def config(self) -> ConfigT:
        """The configuration of the next request."""

    async def check(self, request: GenerationRequest, config: ConfigT) -> tuple[GenerationRequest, tuple[str, ...]]:
        """Refuses, or drops, what the LLM cannot honour; see `AbstractLLMInterface.check`."""

    def events(self, request: GenerationRequest, config: ConfigT) -> AsyncGenerator[Event, None]:
        """Answers a checked request; see `AbstractLLMInterface.events`."""

    async def count(self, request: GenerationRequest, config: ConfigT) -> int:
        """Counts the tokens of a checked request's prompt; see `AbstractLLMInterface.count`."""


class Executor(Generic[ConfigT]):
    """The way of one LLM's requests: checks, defaults, deadlines, retries, timing, logging, the folded answer.

    Args:
        llm: The LLM that answers the requests.
    """

    def __init__(self, llm: Answerer[ConfigT]) -> None:
        # The LLM holds its executor: without a circle, one that is dropped ends its engine at once.
        self._llm_reference = weakref.ref(llm)
        self._running = 0
        self._pauses = RetryPauses()

    @property
    def _llm(self) -> Answerer[ConfigT]:
        llm = self._llm_reference()
        assert llm is not None, "an LLM calls its own executor"
        return llm

    @property
    def running(self) -> int:
        """Requests being answered or counted now, waiting ones included."""
        return self._running

    def run(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Answers a request: `Started`, then the LLM's events, then `Finished` with message, attempts and timing.

        Raises:
            AbstractLLMError: Whatever goes wrong, filled with provider, model, request id and the partial text.
        """
        return self._run(self._llm, request)

    async def _run(self, llm: Answerer[ConfigT], request: GenerationRequest) -> AsyncGenerator[Event, None]:
        execution = _Execution(llm, request, self._pauses)
        self._running += 1
        try:
            events, event = await execution.open()
            async with aclosing(events):
                yield execution.started(event)
                if isinstance(event, Started):
                    event = await execution.next(events)
                while not isinstance(event, Finished):
                    execution.add(event)
                    yield event
                    event = await execution.next(events)
                yield execution.finished(event)
        except (asyncio.CancelledError, GeneratorExit) as error:
            execution.left(error)
            raise
        except AbstractLLMError as error:
            execution.failed(error)
            raise
        except Exception as error:
            raise execution.failed(InternalError(f"{type(error).__name__}: {error}")) from error
        finally:
            self._running -= 1
            execution.log()

    async def run_to_end(self, request: GenerationRequest) -> Completion:
        """Answers a request as a whole."""
        return await fold(self.run(dataclasses.replace(request, whole=True)))

    async def count(self, request: GenerationRequest) -> int:
        """Counts a request's prompt tokens, with the same checks and defaults as `run`."""
        execution = _Execution(self._llm, request, self._pauses, model_field="model")
        self._running += 1
        try:
            return await execution.count()
        except AbstractLLMError as error:
            raise execution.failed(error) from error.__cause__
        finally:
            self._running -= 1


class _Execution(Generic[ConfigT]):
    """One request on its way.

    Args:
        llm: The LLM that answers it, under the configuration that it has now.
        request: The request as the caller made it.
        pauses: The LLM's requests that pause before a retry.
        model_field: The field in which the caller names a model, for errors.
    """

    def __init__(
        self,
        llm: Answerer[ConfigT],
        request: GenerationRequest,
        pauses: RetryPauses,
        model_field: str = "parameters.model",
    ) -> None:
        self._arrival = time.monotonic()
        self._llm = llm
        self._config = llm.config
        self._id = uuid.uuid4().hex
        self._request_id = request.request_id or self._id
        self._request = dataclasses.replace(
            request, request_id=self._request_id, deadline=deadline_on_the_clock(self._config, request)
        )
        self._record = request.record
        self._record.llm = self._record.llm or llm.name
        self._record.provider = llm.provider
        self._record.request_id = self._request_id
        self._record.labels = request.labels
        self._record.attempts = ()
        self._pauses = pauses
        self._model_field = model_field
        self._deadline = deadline_of(self._config, request)
        self._model = ""
        self._dropped: tuple[str, ...] = ()
        self._failed_attempts: tuple[Attempt, ...] = ()
        self._last_attempt: tuple[Attempt, ...] = ()
        self._began = self._arrival
        self._is_trying = False
        """True from the beginning of a try on, until it fails before its first event."""
        self._first_token = 0.0
        self._outcome: Finished | BaseException | None = None
        self._counts_pieces: bool | None = None
        """True if the LLM does not count its tokens as they come; None before the first piece."""
        self._characters, self._ready = WholeCharacters(), deque[Event]()
        self.answer = AnswerAccumulator()

    async def open(self) -> tuple[AsyncGenerator[Event, None], Event]:
        """Prepares the request, and opens the LLM's stream as `_open_stream` does.

        Returns:
            The stream and its first event.
        """
        self._record.operation = "chat"
        await self._prepare()
        log_start(
            self._request,
            with_content=self._config.log_content,
            provider=self._llm.provider,
            llm=self._llm.name,
            model=self._model,
        )
        events, event = await self._open_stream()
        now = time.monotonic()
        self._first_token = now - self._arrival
        if self._record.first_token_at is None:  # else an answer that is given whole has begun before
            self._record.first_token_at = now
        return events, event

    async def count(self) -> int:
        """Prepares the request, and counts its prompt's tokens."""
        self._record.operation = "count_tokens"
        await self._prepare()
        return await within(self._deadline, self._llm.count(self._request, self._config))

    async def _prepare(self) -> None:
        """Chooses the model, fills in the configuration's defaults, and checks what the LLM cannot honour."""
        request, config = self._request, self._config
        self._model = choose_model(self._llm, config, request.parameters.model, self._model_field)
        # Those of the LLM that answers: one that a fallback asks comes after the fallback itself, and after another one
        # that has failed.
        self._record.provider, self._record.model, self._record.error = self._llm.provider, self._model, None
        request = dataclasses.replace(
            request,
            parameters=request.parameters.over(config.parameters).model_copy(update={"model": self._model}),
            system_prompt=config.system_prompt if request.system_prompt is None else request.system_prompt,
            provider_options={**config.provider_options, **request.provider_options},
        )
        self._request, self._dropped = await within(self._deadline, self._llm.check(request, config))

    async def _open_stream(self) -> tuple[AsyncGenerator[Event, None], Event]:
        """Opens the LLM's stream and waits for its first event; until then, and only then, it may try again.

        Returns:
            The stream and its first event.
        """
        retries = self._config.max_retries if self._request.retry else 0
        for tries in itertools.count(1):
            self._began, self._is_trying = time.monotonic(), True
            self._record.begin_try()
            events = self._llm.events(self._request, self._config)
            try:
                event = await self.next(events)
            except BaseException as error:
                await events.aclose()
                if not isinstance(error, AbstractLLMError):
                    raise
                self._is_trying = False
                self._failed_attempts += error.attempts or (self._attempt(error),)
                self._record.attempts = ()  # of other LLMs that were asked; they are among the failed ones now
                if error.attempts:
                    error.attempts = self._failed_attempts
                if not error.retryable or error.is_billed or error.is_turned_away or tries > retries:
                    raise
                await pause(error, tries, self._deadline, self._pauses, measure(self._request)[0])
            else:
                self._last_attempt = (self._attempt(),)
                return events, event
        raise AssertionError("unreachable")

    def _attempt(self, error: AbstractLLMError | None = None) -> Attempt:
        """Returns the latest attempt, which has failed with an error or is answering."""
        reason, message = (error.reason, error.message) if error else ("", "")
        duration = time.monotonic() - self._began
        return Attempt(self._llm.name, self._llm.provider, self._model, str(reason), message, duration)

    async def next(self, events: AsyncGenerator[Event, None]) -> Event:
        """Waits for the LLM's next event."""
        if self._ready:
            return self._ready.popleft()
        try:
            event = await within(self._deadline, anext(events))
        except StopAsyncIteration:
            raise IncompleteStreamError("the answer ended without a finish reason") from None
        self._ready.extend(self._characters.add(event))
        return self._ready.popleft()

    def add(self, event: Event) -> None:
        """Adds a piece to the answer."""
        self.answer.add(event)
        if self._counts_pieces is None:
            self._counts_pieces = self._record.output_tokens is None
        if self._counts_pieces:
            self._record.output_tokens = (self._record.output_tokens or 0) + 1

    def started(self, event: Event) -> Started:
        """Returns the first event for the caller: that of the LLM that answers for this one, or a new one."""
        if isinstance(event, Started):
            return dataclasses.replace(event, id=self._id)
        return Started(self._id, self._llm.name, self._llm.provider, self._model, self._dropped)

    def finished(self, event: Finished) -> Finished:
        """Returns the last event for the caller: the LLM's, with message, attempts and timing."""
        timing = dataclasses.replace(
            event.timing,
            first_token=event.timing.first_token or self._first_token,
            total=time.monotonic() - self._arrival,
        )
        self._outcome = dataclasses.replace(
            event,
            message=event.message or self.answer.message(),
            attempts=(*self._failed_attempts, *(event.attempts or self._last_attempt)),
            timing=timing,
        )
        self._record.note_usage(event.usage)
        self._record.queued = timing.queued
        self._record.attempts = self._outcome.attempts
        self._record.finish_reason = str(event.finish_reason)
        return self._outcome

    def left(self, error: BaseException) -> None:
        """Notes that the caller has left, unless the answer was complete."""
        if self._outcome is None:
            self._outcome = error
            running = (self._attempt(),) if self._is_trying else ()
            # An LLM that asks others has noted those.
            self._record.attempts = (*self._failed_attempts, *(self._record.attempts or running))

    def failed(self, error: AbstractLLMError) -> AbstractLLMError:
        """Notes a failure, and fills it with what is known of the request and with the text so far."""
        error.fill(
            provider=self._llm.provider,
            llm=self._llm.name,
            model=self._model or None,
            request_id=self._request_id,
            output_tokens=self._record.output_tokens,
        )
        error.partial_text = error.partial_text or self.answer.text
        broken_off = (error.attempts or (self._attempt(error),)) if self._is_trying else ()
        self._record.error, self._record.attempts = error, (*self._failed_attempts, *broken_off)
        self._outcome = error
        return error

    def log(self) -> None:
        """Logs the outcome."""
        log_outcome(self._record, self.answer.text, self._outcome, with_content=self._config.log_content)


def choose_model(llm: Named, config: LLMConfig, model: str | None, field: str) -> str:
    """Returns the model that answers: the configured one, or one of those that the configuration lists.

    Args:
        llm: The LLM, for messages.
        config: Its configuration.
        model: The model that the caller names, if any.
        field: The field in which the caller names it, for messages.

    Raises:
        ModelNotFoundError: If `model` is not listed.
    """
    if not model or model == config.model:
        return config.model
    if not config.model:
        raise ModelNotFoundError(
            f"{field}: LLM {llm.name!r} ({llm.provider}) has no models to choose from, got {model[:80]!r}",
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
