"""The class behind every hosted provider: limits, clients and errors around the one method that asks the SDK."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import time
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from types import ModuleType
from typing import Any, Generic, TypeVar, cast
from urllib.parse import urlsplit

from abstractllm._core.admission.gate import AdmissionGate, Passage
from abstractllm._core.tracing import end_span, start_span, within_span
from abstractllm.call_record import UpstreamCall
from abstractllm.errors import (
    AbstractLLMError,
    ConfigurationError,
    ErrorReason,
    IncompleteStreamError,
    ProviderCredentialsError,
    ProviderProtocolError,
    ProviderUnavailableError,
    ServerShuttingDownError,
)
from abstractllm.interface import AbstractLLMInterface
from abstractllm.providers.hosted.clients import LoopClients
from abstractllm.providers.hosted.config import HostedConfig
from abstractllm.providers.hosted.errors import as_unicode, scrub, transport_error
from abstractllm.requests import GenerationRequest
from abstractllm.types import Event, Finished, LlmState, LoadProgress

__all__ = ["HostedProvider", "import_sdk"]

_PIECES_PER_CHARGE = 64
"""Pieces after which an answer's caller is charged for what has come of it."""

HostedConfigT = TypeVar("HostedConfigT", bound=HostedConfig)
ClientT = TypeVar("ClientT")


class HostedProvider(AbstractLLMInterface[HostedConfigT], Generic[HostedConfigT, ClientT]):
    """A provider that asks an HTTP API through an SDK's client.

    A subclass implements `make_client`, `close_client`, `answer`, `translate` and `capabilities`. Any other call to the
    API goes through `calling`, too.

    Type parameters:
        HostedConfigT: The configuration's class, which is also the subclass's `config_type`.
        ClientT: The SDK's client.
    """

    config_type: type[HostedConfigT] = cast("type[HostedConfigT]", HostedConfig)

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._gate = AdmissionGate(self.config.max_concurrent_requests, self.config.admission_limits)
        self._clients: LoopClients[ClientT] = LoopClients(self.close_client, self.config.connection)

    @abstractmethod
    def make_client(self, config: HostedConfigT) -> ClientT:
        """Imports the SDK and makes a client; runs in a thread.

        Args:
            config: The configuration of the request that the client is made for.

        Raises:
            ConfigurationError: If the SDK is not installed.
            ProviderCredentialsError: If there is no key.
        """

    @abstractmethod
    async def close_client(self, client: ClientT) -> None:
        """Closes a client's connections."""

    @abstractmethod
    def answer(self, client: ClientT, request: GenerationRequest, config: HostedConfigT) -> AsyncGenerator[Event, None]:
        """Answers a request as `events` does, with a client; the SDK's errors may pass through."""

    @abstractmethod
    def translate(self, error: Exception) -> AbstractLLMError | None:
        """Returns the library's error for one of the SDK's; None for transport failures and unreadable answers."""

    async def events(self, request: GenerationRequest, config: HostedConfigT) -> AsyncGenerator[Event, None]:
        """Answers a request through `answer`, as one of the requests that run at once.

        A failure of the connection before the first event is a `ProviderUnavailableError`, which is retried. After it,
        it is an `IncompleteStreamError`: whether to ask again is the caller's choice. An error that the provider itself
        reports has the same class in both cases.
        """
        async with (
            self.calling(config, request) as call,
            aclosing(self.answer(call.client, request, config)) as events,
        ):
            request.record.queued = call.passage.waited
            with self._recorded(request, config) as upstream:
                with within_span(upstream):  # the request is sent before there is an event
                    event = await anext(events, None)
                while event is not None:
                    if isinstance(event, Finished):
                        upstream.usage, upstream.ended_at = event.usage, time.monotonic()
                        call.note_end(event)
                        timing = dataclasses.replace(event.timing, queued=call.passage.waited)
                        event = dataclasses.replace(event, timing=timing)
                    elif call.note_piece() % _PIECES_PER_CHARGE == 0:
                        self._gate.charge(call.passage)
                    if not call.began:
                        upstream.first_event_at = time.monotonic()
                        call.began = True
                    yield event
                    event = await anext(events, None)

    @contextmanager
    def _recorded(self, request: GenerationRequest, config: HostedConfigT) -> Iterator[UpstreamCall]:
        """Adds a call to the API to the request's record."""
        url = urlsplit(config.base_url or "")
        upstream = UpstreamCall(
            self.name, self.provider, request.parameters.model or config.model, url.hostname or "", url.port
        )
        request.record.upstream.append(upstream)
        start_span(upstream, request.record)
        try:
            yield upstream
        except Exception as error:
            translation = self._translated(error, began=upstream.first_event_at is not None)
            upstream.error_reason = ErrorReason.INTERNAL if translation is None else translation.reason
            raise
        except BaseException:
            if upstream.ended_at is None:  # else its reader needs no more of it
                # A provider that hangs is to be told from a caller who leaves: only the first one is anybody's fault.
                is_late = request.deadline is not None and time.monotonic() >= request.deadline
                upstream.error_reason = ErrorReason.TIMEOUT if is_late else ErrorReason.CANCELLED
            raise
        finally:
            if upstream.ended_at is None:
                upstream.ended_at = time.monotonic()
            end_span(upstream)

    @asynccontextmanager
    async def calling(
        self, config: HostedConfigT, request: GenerationRequest | None = None, *, is_count: bool = False
    ) -> AsyncIterator[Call[ClientT]]:
        """Gives a client to one call, once it may run; turns the errors within into the library's.

        Args:
            config: The configuration that the call is made under.
            request: The request that it is made for; None for one that no caller's turn is spent on.
            is_count: True if it only asks for the number of the request's tokens.
        """
        call: Call[ClientT] | None = None
        passage = Passage(is_count=True) if request is None else Passage.of(request, is_count=is_count)
        try:
            async with (
                self._gate.admit(passage),
                self._clients.acquire(lambda: self.make_client(config), config.connection) as client,
            ):
                call = Call(client, passage)
                yield call
        except Exception as error:
            translation = self._translated(error, began=call is not None and call.began)
            scrub(error, config.secrets)
            if translation is None:
                raise
            scrub(translation, config.secrets)
            as_unicode(translation)
            if isinstance(translation, ProviderProtocolError) or (call is not None and call.began):
                translation.is_billed = True
            if translation is error:
                raise
            raise translation from error
        finally:
            if request is not None and not is_count and call is None and passage.waited:
                request.record.queued = passage.waited  # it ended before its turn came

    def _translated(self, error: Exception, began: bool) -> AbstractLLMError | None:
        if isinstance(error, AbstractLLMError):
            return error
        # An SDK wraps errors that it does not know, also those of our own checks below it.
        if isinstance(error.__cause__, AbstractLLMError):
            return copy.copy(error.__cause__)
        if (translation := self.translate(error)) is not None:
            return translation
        if self._clients.closed:
            return ServerShuttingDownError("the LLM was closed while it answered")
        if (failure := transport_error(error)) is not None:
            if began and isinstance(failure, ProviderUnavailableError):
                return IncompleteStreamError(f"the answer broke off: {failure.message}")
            return failure
        # JSON, UTF-8 and pydantic errors are ValueErrors; JSON that is nested too deep is a RecursionError.
        if isinstance(error, ValueError | RecursionError):
            return ProviderProtocolError(f"the answer cannot be read: {type(error).__name__}: {str(error)[:200]}")
        return None

    def reconfigured(self, before: HostedConfigT, after: HostedConfigT) -> None:
        """Lets the next request use the new limit and a client of the new settings."""
        self._gate.configure(after.max_concurrent_requests, after.admission_limits)
        self._clients.retire(after.connection)

    async def load(self) -> None:
        """Returns at once: there is nothing to load.

        Raises:
            ProviderCredentialsError: If there is no key: the LLM's state is FAILED then.
        """
        state, reason = self.state
        if state is LlmState.FAILED:
            raise ProviderCredentialsError(reason, field="api_key", provider=self.provider, llm=self.name)

    async def load_progress(self) -> AsyncGenerator[LoadProgress, None]:
        """Reports that the LLM is ready; errors as `load`."""
        await self.load()
        yield LoadProgress(LlmState.READY)

    @property
    def queued(self) -> int:
        """Requests that wait because `max_concurrent_requests` run."""
        return self._gate.waiting

    @property
    def queued_bytes(self) -> int:
        """Bytes that these hold."""
        return self._gate.waiting_bytes

    @property
    def capacity(self) -> int:
        """Requests that run, and that may wait, at most."""
        return self.config.max_concurrent_requests + self.config.max_queue

    @property
    def max_running(self) -> int:
        """Requests that run at a time at most."""
        return self.config.max_concurrent_requests

    async def close_async(self) -> None:
        """Closes all connections; running requests end with an error."""
        await self._clients.close()


@dataclasses.dataclass(slots=True)
class Call(Generic[ClientT]):
    """One call to the API."""

    client: ClientT
    passage: Passage
    """The way that it took through the gate."""
    began: bool = False
    """True once a part of the answer was passed on."""

    def note_piece(self) -> int:
        """Notes a piece of the answer, which counts as one token until the API tells how many there were.

        Returns:
            The pieces so far.
        """
        self.passage.used_answer_tokens = (self.passage.used_answer_tokens or 0) + 1
        return self.passage.used_answer_tokens

    def note_end(self, event: Finished) -> None:
        """Notes that the answer is whole, and the tokens that it took."""
        self.passage.is_whole = True
        self.passage.used_prompt_tokens = event.usage.input_tokens
        if event.usage.output_tokens is not None:
            self.passage.used_answer_tokens = event.usage.output_tokens


def import_sdk(name: str, extra: str = "") -> ModuleType:
    """Imports an SDK. It takes long: call it in a thread.

    Args:
        name: The module.
        extra: This distribution's extra that installs it; the module's name if absent.

    Raises:
        ConfigurationError: If it is not installed, or fails when it is imported.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            reason = f"is not installed: pip install 'abstractllm-grpc[{extra or name}]'"
        elif isinstance(error, ImportError):
            reason = f"cannot be imported: {error}"
        else:
            # The words of such an error may repeat a variable, and with it a password.
            reason = f"cannot be imported ({type(error).__name__}): check the variables {name.upper()}_* that it reads"
        raise ConfigurationError(f"the package {name} {reason}") from error
