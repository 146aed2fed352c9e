"""The configuration that every hosted LLM has, and the requests that it makes of it."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Annotated, Any, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from abstractllm._core.admission.config import AdmissionConfig
from abstractllm.config import Bytes, Seconds
from abstractllm.errors import ConfigurationError
from abstractllm.providers.hosted.limits import http_arguments

__all__ = ["HostedConfig"]

IDLE_TIMEOUT = 600.0
"""`idle_timeout` where the configuration sets no `timeout`."""
MOST_FIELDS = 32
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_KEPT_HEADERS = (
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)
"""Headers that the connection and the body determine."""
_KEY_NAMES = re.compile(r".*(?:key|token|secret|password|signature)|sig|code|auth", re.I)
"""Names in a query that tell of a secret."""
_KEY_HEADERS = ("authorization", "x-api-key")
"""Headers in which the SDKs send the key."""


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
    hint = "; extra_query takes a query" if "?" in url else ""
    raise ConfigurationError(f"base_url: {rule}{hint}", field="base_url", limit=rule)


def _as_text(value: object) -> object:
    """Reads a value as the text that it was written as, as far as that is known: YAML takes `1` for a number.

    Raises:
        ValueError: For a fraction: 1.10 and 1.1 are the same number, and different texts.
    """
    if isinstance(value, Mapping):
        return {name: _as_text(item) for name, item in value.items()}
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        raise ValueError("a fraction must be put in quotes, as its last zeros count in a text")
    return str(value) if isinstance(value, int | datetime.date) else value


def _check_headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    if len({name.lower() for name in headers}) < len(headers):
        raise ValueError("a header stands twice")
    for name, value in headers.items():
        if not re.fullmatch(_TOKEN, name):
            raise ValueError(f"{name[:80]!r} is not a header's name")
        if name.lower() in _KEPT_HEADERS:
            raise ValueError(f"{name} cannot be set: the request determines it")
        if not re.fullmatch(r"[!-~]([ -~]*[!-~])?", value.get_secret_value()):
            raise ValueError(f"the value of {name} must be ASCII without white space around it, and not empty")
    return headers


def _check_query(query: dict[str, str]) -> dict[str, str]:
    for name in query:
        if _KEY_NAMES.fullmatch(name):
            raise ValueError(f"{name[:80]!r} looks like a secret, and addresses are logged: use extra_headers")
    return query


class HostedConfig(AdmissionConfig):
    """The configuration of every hosted LLM."""

    timeout: Seconds | None = 600.0
    max_retries: Annotated[int, Field(ge=0, le=10)] = 2
    api_key: Annotated[SecretStr, AfterValidator(_check_key)] | None = None
    base_url: str | None = None
    """The address that the API's paths are appended to."""
    max_concurrent_requests: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Requests that run upstream at once, and connections at most; further ones wait."""
    max_queue_bytes: Bytes = 16 << 20
    """Bytes that the waiting requests may hold: less than before a local model, since so many run beside them."""

    api_key_header: Annotated[str, Field(pattern=rf"^{_TOKEN}$", max_length=128)] | None = None
    """The header that the key is sent in, without `Bearer` unless it is `Authorization`; if absent the API's own."""
    extra_headers: Annotated[
        dict[str, SecretStr], BeforeValidator(_as_text), AfterValidator(_check_headers), Field(max_length=MOST_FIELDS)
    ] = Field(default_factory=dict)
    """Headers of every request, over those that it has."""
    extra_query: Annotated[
        dict[str, str], BeforeValidator(_as_text), AfterValidator(_check_query), Field(max_length=MOST_FIELDS)
    ] = Field(default_factory=dict, repr=False)
    """Parameters of every request's address, such as `api-version`."""

    connection_keys: ClassVar[tuple[str, ...]] = (
        "api_key",
        "base_url",
        "timeout",
        "max_concurrent_requests",
        "api_key_header",
        "extra_headers",
        "extra_query",
    )
    """The keys that a client is made from: a change of one of them makes a new client."""

    @classmethod
    def _build(cls, values: dict[str, Any]) -> Self:
        if isinstance(url := values.get("base_url"), str):
            values = values | {"base_url": _check_url(url)}
        return super()._build(values)

    @property
    def connection(self) -> tuple[object, ...]:
        """The values of `connection_keys`, hashable."""
        values = (getattr(self, name) for name in self.connection_keys)
        return tuple(tuple(sorted(value.items())) if isinstance(value, dict) else value for value in values)

    @property
    def idle_timeout(self) -> float:
        """Seconds without a byte after which a connection is given up."""
        return self.timeout or IDLE_TIMEOUT

    @property
    def key(self) -> str:
        """The API key, in the clear; empty if there is none."""
        return self.api_key.get_secret_value() if self.api_key else ""

    @property
    def has_credentials(self) -> bool:
        """True if requests carry a key, or a header in its place."""
        headers = (*_KEY_HEADERS, (self.api_key_header or "api-key").lower())
        return bool(self.key) or any(name.lower() in headers for name in self.extra_headers)

    @property
    def secrets(self) -> list[str]:
        """The texts that errors must not repeat: the key, and the values of headers."""
        values = [value.get_secret_value() for value in self.extra_headers.values()]
        # Of `Bearer abc` a server repeats the second word alone.
        return [self.key, *values, *(value.rpartition(" ")[2] for value in values)]

    def http_arguments(self, httpx: ModuleType) -> dict[str, Any]:
        """Returns the arguments of `AsyncClient`: those of `limits.http_arguments`, the extra headers and the query.

        Headers and query are put into a request after the SDK has made it: the SDK could log them, or read others from
        its variables.

        Args:
            httpx: The module `httpx` or `httpx2`.
        """
        arguments = http_arguments(httpx, timeout=self.idle_timeout, max_connections=self.max_concurrent_requests)
        headers = {name: value.get_secret_value() for name, value in self.extra_headers.items()}
        if (name := self.api_key_header) and self.key:
            headers = {name: f"Bearer {self.key}" if name.lower() == "authorization" else self.key} | headers
        replaces_key = bool(self.api_key_header) if self.key else self.has_credentials

        async def complete(request: Any) -> None:
            for header in _KEY_HEADERS if replaces_key else ():
                request.headers.pop(header, None)
            request.headers.update(headers)
            if self.extra_query:
                request.url = request.url.copy_merge_params(self.extra_query)

        if headers or self.extra_query:
            arguments["event_hooks"]["request"].append(complete)
        return arguments
