"""The class behind every hosted provider: limits, clients and errors around the one method that asks the SDK."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import re
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from types import ModuleType
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from abstractllm.config import LLMConfig, Seconds
from abstractllm.errors import (
    AbstractLLMError,
    ConfigurationError,
    IncompleteStreamError,
    ProviderProtocolError,
    ProviderUnavailableError,
    ServerShuttingDownError,
)
from abstractllm.interface import AbstractLLMInterface
from abstractllm.providers.hosted.clients import LoopClients
from abstractllm.providers.hosted.concurrency_limiter import ConcurrencyLimiter
from abstractllm.providers.hosted.errors import as_unicode, scrub, transport_error
from abstractllm.requests import GenerationRequest
from abstractllm.types import Event, Finished

__all__ = ["HostedConfig", "HostedProvider", "import_sdk"]

HostedConfigT = TypeVar("HostedConfigT", bound="HostedConfig")
ClientT = TypeVar("ClientT")
IDLE_TIMEOUT = 600.0
"""`idle_timeout` where the configuration sets no `timeout`."""


def _check_key(key: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]*", key.get_secret_value()):
        raise ValueError("must be ASCII without white space")
    return key


def _check_url(url: str) -> str:
    """Returns the address without a slash at its end; a bad one is not repeated, as it may hold a password."""
    try:
        parts = urlsplit(url)
        bad = parts.scheme not in ("http", "https") or not parts.hostname or (parts.port or 1) < 1
    except ValueError:
        bad = True
    if bad or not re.fullmatch(r"[!-~]+", url):
        rule = "must be an http or https address"
    elif parts.username is not None or parts.query or parts.fragment:
        rule = "must have no user, password, query or fragment"
    else:
        return url.rstrip("/")
    raise ConfigurationError(f"base_url: {rule}", field="base_url", limit=rule)


class HostedConfig(LLMConfig):
    """The configuration of every hosted LLM."""

    timeout: Seconds | None = 600.0
    max_retries: Annotated[int, Field(ge=0, le=10)] = 2
    api_key: Annotated[SecretStr, AfterValidator(_check_key)] | None = None
    base_url: str | None = None
    """The address that the API's paths are appended to."""
    max_concurrent_requests: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Requests that run upstream at once, and connections at most; further ones wait."""

    connection_keys: ClassVar[tuple[str, ...]] = ("api_key", "base_url", "timeout", "max_concurrent_requests")
    """The keys that a client is made from: a change of one of them makes a new client."""

    @classmethod
    def _build(cls, values: dict[str, Any]) -> Self:
        if isinstance(url := values.get("base_url"), str):
            values = values | {"base_url": _check_url(url)}
        return super()._build(values)

    @property
    def connection(self) -> tuple[object, ...]:
        """The values of `connection_keys`."""
        return tuple(getattr(self, name) for name in self.connection_keys)

    @property
    def idle_timeout(self) -> float:
        """Seconds without a byte after which a connection is given up."""
        return self.timeout or IDLE_TIMEOUT

    @property
    def key(self) -> str:
        """The API key, in the clear; empty if there is none."""
        return self.api_key.get_secret_value() if self.api_key else ""


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
        self._limiter = ConcurrencyLimiter(self.config.max_concurrent_requests)
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
        async with self.calling(config) as call, aclosing(self.answer(call.client, request, config)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    event = dataclasses.replace(event, timing=dataclasses.replace(event.timing, queued=call.waited))
                call.began = True
                yield event

    @asynccontextmanager
    async def calling(self, config: HostedConfigT) -> AsyncIterator[Call[ClientT]]:
        """Gives a client to one call, once it may run; turns the errors within into the library's."""
        call: Call[ClientT] | None = None
        try:
            async with (
                self._limiter.acquire() as waited,
                self._clients.acquire(lambda: self.make_client(config), config.connection) as client,
            ):
                call = Call(client, waited)
                yield call
        except Exception as error:
            translation = self._translated(error, began=call is not None and call.began)
            scrub(error, [config.key])
            if translation is None:
                raise
            scrub(translation, [config.key])
            as_unicode(translation)
            if translation is error:
                raise
            raise translation from error

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
        self._limiter.set_limit(after.max_concurrent_requests)
        self._clients.retire(after.connection)

    @property
    def queued(self) -> int:
        """Requests that wait because `max_concurrent_requests` run."""
        return self._limiter.waiting

    async def close_async(self) -> None:
        """Closes all connections; running requests end with an error."""
        await self._clients.close()


@dataclasses.dataclass(slots=True)
class Call(Generic[ClientT]):
    """One call to the API."""

    client: ClientT
    waited: float
    """Seconds that it waited until it might run."""
    began: bool = False
    """True once a part of the answer was passed on."""


def import_sdk(name: str, extra: str = "") -> ModuleType:
    """Imports an SDK. It takes long: call it in a thread.

    Args:
        name: The module.
        extra: This distribution's extra that installs it; the module's name if absent.

    Raises:
        ConfigurationError: If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigurationError(
            f"the package {name} is not installed: pip install 'abstractllm-grpc[{extra or name}]'"
        ) from error
