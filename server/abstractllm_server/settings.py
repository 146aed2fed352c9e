"""The server's configuration: a YAML file and flags. No other file of the server reads the environment."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from abstractllm.config import Bytes, Seconds
from abstractllm.errors import ConfigurationError
from abstractllm.validation import error_from_validation

__all__ = ["Role", "ServerSettings", "TlsSettings", "load_settings"]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_INDEX = re.compile(r"\[\d+\]")
_LLM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LARGEST_FILE = 1024 * 1024


class Role(StrEnum):
    """A caller's rights."""

    INFERENCE = "inference"
    """The right to generate, to count tokens, and to list LLMs and their capabilities."""
    ADMIN = "admin"
    """All rights."""


class TlsSettings(BaseModel):
    """The server's certificate, and the certificates that it takes from callers."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    certificate: Path
    """PEM of the certificate and the chain above it."""
    key: Path
    """PEM of its key, not encrypted."""
    client_ca: Path | None = None
    """PEM of the roots of callers' certificates; if set, every caller must bring a certificate."""
    subjects: dict[str, Role] = Field(default_factory=dict)
    """The role of each name (subject alternative name or common name) in callers' certificates."""


class ServerSettings(BaseModel):
    """The settings of a server; their names are the keys of the configuration file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    listen: str = "127.0.0.1:50051"
    """`HOST:PORT` (port 0 takes a free one), `[IPV6]:PORT`, or `unix:///PATH`."""
    insecure: bool = False
    """Allows to listen beyond this machine without credentials."""
    tls: TlsSettings | None = None
    """Certificates; plain text if absent."""
    tokens: Path | None = None
    """The file of the tokens that are accepted; see `abstractllm_server.security.credentials.TokenFile`."""
    default: str | None = None
    """The LLM meant by an empty name; the first one if absent."""
    llms: dict[str, dict[str, Any]] = Field(default_factory=dict, repr=False)
    preload: tuple[str, ...] | None = None
    """The LLMs to load at start; the default one if absent."""
    max_loaded: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Local models that may be loaded at a time; no limit if absent."""
    memory_budget: Bytes | None = None
    """Bytes that local models may take together: weights, and caches of keys and values; no limit if absent."""
    reflection: bool = True
    grace: Annotated[Seconds, Field(le=600)] = 20.0
    """Seconds that running requests have to end after SIGTERM."""
    write_timeout: Annotated[Seconds, Field(le=3600)] = 30.0
    """Seconds that a stream waits for a caller who does not read; then it ends with TIMEOUT."""
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"
    log_format: Annotated[str, Field(pattern="^(text|json)$")] = "text"
    """The form of log records: lines for people, or a JSON object a line."""

    def check(self) -> None:
        """Checks the rules that concern several keys.

        Raises:
            ConfigurationError: Naming the key.
        """
        if not self.llms:
            raise ConfigurationError("llms: at least one LLM must be configured", field="llms")
        for name in self.llms:
            if not _LLM_NAME.fullmatch(name):
                raise ConfigurationError(
                    f"llms: {name[:80]!r} is not a valid name: it may have up to 64 letters, digits, dots, _ and -",
                    field=f"llms.{name}",
                )
        for field, names in (("default", (self.default,) if self.default else ()), ("preload", self.preload or ())):
            for name in names:
                if name not in self.llms:
                    known = ", ".join(self.llms)
                    raise ConfigurationError(f"{field}: no LLM is named {name!r}; there are {known}", field=field)
        if self.tls and self.tls.subjects and not self.tls.client_ca:
            raise ConfigurationError(
                "tls.subjects: callers bring certificates only if tls.client_ca is set", field="tls.subjects"
            )
        if self.tls and self.tls.client_ca and not self.tls.subjects and not self.tokens:
            raise ConfigurationError(
                "tls.client_ca: callers need roles: set tls.subjects for their certificates, or tokens",
                field="tls.client_ca",
            )
        if self.tls and self.listen.startswith("unix:"):
            raise ConfigurationError("tls: a unix socket cannot have TLS", field="tls")
        has_credentials = self.tokens is not None or (self.tls is not None and self.tls.client_ca is not None)
        if not is_local(self.listen) and not self.insecure and not has_credentials:
            raise ConfigurationError(
                f"listen: {self.listen} can be reached from other machines and no credentials are configured; "
                "set tokens or tls.client_ca, listen on 127.0.0.1 or a unix socket, or use --insecure",
                field="listen",
                requested=self.listen,
            )


def is_local(listen: str) -> bool:
    """Returns whether only this machine can connect to an address.

    Raises:
        ConfigurationError: If the text is not a valid address.
    """
    if listen.startswith("unix:") and Path(listen.removeprefix("unix:").removeprefix("//")).name:
        return True
    host, separator, port = listen.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    is_valid_host = host not in ("", "unix") and (bracketed or ":" not in host)
    if not separator or not is_valid_host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise ConfigurationError(
            f"listen: {listen!r} is not a valid address; write HOST:PORT or unix:///PATH",
            field="listen",
            requested=listen,
        )
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def load_settings(path: Path | None, flags: Mapping[str, Any]) -> ServerSettings:
    """Reads and checks the whole configuration.

    Args:
        path: The configuration file; none if absent.
        flags: Keys that override the file's; None values are passed over.

    Raises:
        ConfigurationError: Naming the file, the line and the key.
    """
    values, lines = _read(path) if path else ({}, {})
    overrides = {key: value for key, value in flags.items() if value is not None}
    values |= overrides
    lines = {key: line for key, line in lines.items() if re.split(r"[.[]", key)[0] not in overrides}
    try:
        try:
            settings = ServerSettings.model_validate(values)
        except ValidationError as error:
            fault = error_from_validation(error)
            message = fault.message.replace("is not a known parameter", "is not a known key")
            raise ConfigurationError(message, field=fault.field, limit=fault.limit, requested=fault.requested) from None
        settings.check()
        return settings
    except ConfigurationError as error:
        raise at_line(error, path, lines) from error.__cause__


def at_line(error: ConfigurationError, path: Path | None, lines: Mapping[str, int]) -> ConfigurationError:
    """Returns an error that puts the file and the line of the key in front of the message, where they are known."""
    keys = [error.field or "", _INDEX.sub("", error.field or "")]
    # A generation parameter may stand beside an LLM's other keys.
    keys = [key for name in keys for key in (name.replace(".parameters.", "."), name)]
    field = next((key for key in keys if key in lines), keys[-1])
    while field and field not in lines:
        field = field.rpartition(".")[0]
    if path is None or not field:
        return error
    message = f"{path}:{lines[field]}: {error.message}"
    return ConfigurationError(message, field=error.field, limit=error.limit, requested=error.requested)


def key_lines(path: Path | None) -> dict[str, int]:
    """Returns the line of each key of a configuration file, by the key's path; empty without a file."""
    return _read(path)[1] if path else {}


def _read(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    import yaml

    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ConfigurationError(f"{path}: the file is larger than {_LARGEST_FILE} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from error
    try:
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            if isinstance(token, yaml.AliasToken):
                # One that holds itself would never end, and a few lines of them could fill the memory.
                line = token.start_mark.line + 1
                raise ConfigurationError(f"{path}:{line}: aliases are not supported, got *{token.value}")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        location = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigurationError(f"{location}: {getattr(error, 'problem', None) or error}") from error
    if values is None:
        return {}, {}
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path}:1: the file must hold a mapping")
    lines: dict[str, int] = {}
    for key, line in _key_lines(root, ""):
        if key in lines:
            raise ConfigurationError(f"{path}:{line}: {key} stands twice; first in line {lines[key]}", field=key)
        lines[key] = line
    try:
        return _filled(values, ""), lines
    except ConfigurationError as error:
        raise at_line(error, path, lines) from None


def _key_lines(node: Any, path: str) -> Iterator[tuple[str, int]]:
    """Yields the path and the line, from 1, of every key and every item of a list below a YAML node."""
    if isinstance(node.value, list) and node.id == "sequence":
        for index, item in enumerate(node.value):
            yield f"{path}[{index}]", item.start_mark.line + 1
            yield from _key_lines(item, f"{path}[{index}]")
    if not isinstance(node.value, list) or node.id != "mapping":
        return
    for key, value in node.value:
        name = f"{path}.{key.value}" if path else str(key.value)
        yield name, key.start_mark.line + 1
        yield from _key_lines(value, name)


def _filled(value: Any, path: str) -> Any:
    """Replaces `${NAME}` in strings by the environment's value, after parsing, so that a value cannot add keys."""
    if isinstance(value, dict):
        return {str(key): _filled(item, f"{path}.{key}" if path else str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, path) for item in value]
    if not isinstance(value, str):
        return value

    def lookup(match: re.Match[str]) -> str:
        variable = os.environ.get(match[1])
        if variable is None:
            raise ConfigurationError(f"{path}: the environment variable {match[1]} is not set", field=path)
        return variable

    return _VARIABLE.sub(lookup, value)
