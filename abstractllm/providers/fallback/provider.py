"""The provider `fallback`."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, NoReturn

from abstractllm.config import ConfigValues
from abstractllm.enums import LlmState
from abstractllm.errors import AbstractLLMError, ConfigurationError, ErrorReason, ServerShuttingDownError
from abstractllm.interface import AbstractLLMInterface
from abstractllm.providers.fallback.circuit_breaker import CircuitBreaker
from abstractllm.providers.fallback.config import FallbackConfig, Strategy
from abstractllm.providers.fallback.failures import Failures
from abstractllm.providers.fallback.together import together
from abstractllm.providers.fallback.verdicts import VERDICTS, Verdict
from abstractllm.requests import GenerationRequest
from abstractllm.types import Attempt, Capabilities, Event, Finished

__all__ = ["FallbackProvider"]

_logger = logging.getLogger(__name__)
_BEST_FIRST = (LlmState.READY, LlmState.LOADING, LlmState.UNLOADED, LlmState.FAILED)


class _Member:
    """One of the LLMs, and its circuit breaker."""

    def __init__(self, llm: AbstractLLMInterface[Any]) -> None:
        self.llm = llm
        self.breaker = CircuitBreaker()


class FallbackProvider(AbstractLLMInterface[FallbackConfig]):
    """Several LLMs behind one name: where one fails before its first event, the next one answers.

    Args:
        config: The keys of `FallbackConfig`, but with LLM objects under `llms`; in a configuration file their names
            stand there. They stay their maker's: closing the fallback does not close them.

    Raises:
        ConfigurationError: If `llms` holds none, something else, or one of them twice.
    """

    provider = "fallback"
    config_type = FallbackConfig

    def __init__(self, config: Mapping[Any, Any] | None = None) -> None:
        values = {str(key): value for key, value in (config or {}).items()}
        llms = _checked(values.get("llms"))
        super().__init__(values | {"llms": tuple(llm.name for llm in llms)})
        self._members = [_Member(llm) for llm in llms]
        self._turns = itertools.count()
        self._closed = False
        for llm in llms:
            llm.on_change(self._changed)

    # A request.

    async def check(
        self, request: GenerationRequest, config: FallbackConfig
    ) -> tuple[GenerationRequest, tuple[str, ...]]:
        """Leaves the check to the LLMs: one that cannot honour the request is passed over."""
        return request, ()

    async def events(self, request: GenerationRequest, config: FallbackConfig) -> AsyncGenerator[Event, None]:
        """Asks one LLM after another until one answers; see `AbstractLLMInterface.events`.

        Raises:
            AbstractLLMError: What the caller must be told at once; or, if no LLM answered, the most telling error, with
                all of them in its message and `attempts`.
        """
        request = self._for_members(request)
        failures = Failures()
        for member, permit in self._candidates(config.strategy):
            began = time.monotonic()
            has_answered = is_whole = False
            try:
                async with aclosing(member.llm.run(request)) as events:
                    async for event in events:
                        if not has_answered:
                            has_answered = True
                            member.breaker.record_answer()
                        if isinstance(event, Finished):
                            is_whole = True
                            member.breaker.record_success()
                            event = dataclasses.replace(event, attempts=(*failures.attempts, *event.attempts))
                        yield event
                return
            except AbstractLLMError as error:
                self._record_failure(member, error, failures, config, time.monotonic() - began)
                if has_answered or VERDICTS[error.reason] is Verdict.STOP:
                    raise failures.last() from error
            except (asyncio.CancelledError, GeneratorExit):
                if not is_whole:  # the last LLM has noted itself alone
                    request.record.attempts = (*failures.attempts, *request.record.attempts)
                raise
            finally:
                member.breaker.release(permit)
        raise failures.error()

    async def count(self, request: GenerationRequest, config: FallbackConfig) -> int:
        """Asks the LLMs in their order, until one can count; the number is that of its tokens."""
        request = self._for_members(request)
        failures = Failures()
        for member, permit in self._candidates(Strategy.ORDERED):
            began = time.monotonic()
            try:
                return await member.llm.run_count(request)
            except AbstractLLMError as error:
                self._record_failure(member, error, failures, config, time.monotonic() - began)
                if VERDICTS[error.reason] is Verdict.STOP:
                    raise
            finally:
                member.breaker.release(permit)
        raise failures.error()

    def _for_members(self, request: GenerationRequest) -> GenerationRequest:
        """Returns the request as an LLM gets it: with its own model, and with neither a deadline nor retries.

        The deadline and the retries are those of the fallback.
        """
        if self._closed:
            raise ServerShuttingDownError("the LLM is closed")
        parameters = request.parameters.model_copy(update={"model": None})
        return dataclasses.replace(request, parameters=parameters, timeout=None, retry=False)

    def _record_failure(
        self, member: _Member, error: AbstractLLMError, failures: Failures, config: FallbackConfig, seconds: float
    ) -> None:
        """Records a failure of an LLM, for the final message and with its circuit breaker."""
        llm = member.llm
        message = error.message
        if error.reason is ErrorReason.INTERNAL:
            # Attempts go to callers, who must not see the text of a fault of this software.
            _logger.error("LLM %s failed, request id %s", llm.name, error.request_id, exc_info=error)
            message = f"internal error; the log tells more under request id {error.request_id}"
        attempt = Attempt(llm.name, llm.provider, llm.config.model, str(error.reason), message, seconds)
        failures.add(llm.name, error, message, error.attempts or (attempt,))
        # One that turned the request away for its limits is well, and may have a place for another caller.
        if VERDICTS[error.reason] is Verdict.NEXT and not error.is_turned_away:
            member.breaker.record_failure(config.failure_threshold, config.cooldown_time, error.retry_after)

    # The order of the LLMs.

    def _candidates(self, strategy: Strategy) -> Iterator[tuple[_Member, object | None]]:
        """Yields the LLMs in the order in which they are tried, each with its circuit breaker's permit.

        Those that cool down come last, and of them only the one whose cooldown ends first, without a permit: asking it
        may be in vain, but giving up without it surely would be.
        """
        tried: list[_Member] = []
        for member in self._in_order(strategy):
            if (permit := member.breaker.acquire()) is not None:
                tried.append(member)
                yield member, permit
        if left_out := [member for member in self._members if member not in tried]:
            yield min(left_out, key=lambda member: member.breaker.cooldown), None

    def _in_order(self, strategy: Strategy) -> list[_Member]:
        available = [member for member in self._members if not member.breaker.cooldown]
        match strategy:
            case Strategy.ROUND_ROBIN if available:
                # A count gives each number once, whichever threads ask.
                first = next(self._turns) % len(available)
                return available[first:] + available[:first]
            case Strategy.LEAST_BUSY:
                return sorted(available, key=lambda member: member.llm.running)
        return available

    # Capabilities, configuration, state.

    async def capabilities(self, config: FallbackConfig, model: str) -> Capabilities:
        """Returns what all its LLMs have together; one that cannot tell now is left out.

        Raises:
            AbstractLLMError: If none can tell.
        """
        results = await asyncio.gather(
            *(member.llm.get_capabilities_async() for member in self._members), return_exceptions=True
        )
        known = [result for result in results if isinstance(result, Capabilities)]
        if not known:
            raise next(result for result in results if isinstance(result, BaseException))
        return together(known)

    def get_config(self) -> ConfigValues:
        """Returns the configuration as every LLM does; `llms` are the names of its LLMs."""
        return {**super().get_config(), "llms": [member.llm.name for member in self._members]}

    def set_config(self, config: Mapping[Any, Any] | None = None, **changes: Any) -> ConfigValues:
        """Merges changes into the configuration as every LLM does; `llms` cannot be changed."""
        if "llms" in {str(key) for key in (*(config or {}), *changes)}:
            raise ConfigurationError("llms: cannot be changed; make another fallback", field="llms")
        return super().set_config(config, **changes)

    @property
    def state(self) -> tuple[LlmState, str]:
        """READY if any of its LLMs is, with those that are not, or that cool down, in the reason."""
        states = [member.llm.state for member in self._members]
        best = min((state for state, _ in states), key=_BEST_FIRST.index)
        troubles = [
            f"{member.llm.name} {_trouble(member, *state)}"
            for member, state in zip(self._members, states, strict=True)
            if state[0] is not LlmState.READY or member.breaker.cooldown
        ]
        return best, "; ".join(troubles)

    @property
    def is_responsive(self) -> bool:
        """False if none of its LLMs that are ready gives signs of life."""
        ready = [member.llm for member in self._members if member.llm.state[0] is LlmState.READY]
        return not ready or any(llm.is_responsive for llm in ready)

    async def load(self) -> None:
        """Loads all its LLMs, so that none need be loaded first when it is asked instead of another.

        Raises:
            AbstractLLMError: The first one's, if none can be loaded.
        """
        errors = await asyncio.gather(*(member.llm.load() for member in self._members), return_exceptions=True)
        if all(errors):
            _raise_first(errors)

    @property
    def members(self) -> list[AbstractLLMInterface[Any]]:
        """Its LLMs, in the configured order."""
        return [member.llm for member in self._members]

    async def close_async(self) -> None:
        """Refuses further requests; its LLMs are their maker's to close."""
        self._closed = True
        for member in self._members:
            member.llm.off_change(self._changed)


def _trouble(member: _Member, state: LlmState, reason: str) -> str:
    if member.breaker.cooldown:
        return f"cools down for {member.breaker.cooldown:.0f} s after {member.breaker.failures} failures"
    return f"is {state}: {reason}" if reason else f"is {state}"


def _raise_first(errors: list[BaseException | None]) -> NoReturn:
    raise next(error for error in errors if error is not None)


def _checked(llms: object) -> list[AbstractLLMInterface[Any]]:
    if not isinstance(llms, list | tuple) or not llms:
        raise ConfigurationError(
            f"llms: must be a list of at least one LLM, got {llms!r:.80}", field="llms", requested=f"{llms!r:.80}"
        )
    for index, llm in enumerate(llms):
        field = f"llms[{index}]"
        if not isinstance(llm, AbstractLLMInterface):
            raise ConfigurationError(
                f"{field}: must be an LLM, such as create_llm gives, got {llm!r:.80}; names stand for LLMs in a "
                "configuration file alone",
                field=field,
                requested=f"{llm!r:.80}",
            )
        if any(llm is other for other in llms[:index]):
            raise ConfigurationError(f"{field}: {llm.name!r} stands twice", field=field, requested=llm.name)
    return list(llms)
