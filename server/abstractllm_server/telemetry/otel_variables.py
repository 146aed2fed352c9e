"""The check of OpenTelemetry's variables, of which its SDK takes some garbage for nothing, and fails at some late."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from abstractllm.errors import ConfigurationError

__all__ = ["Signal", "check_variables", "naming_variables"]

Signal = Literal["metrics", "traces"]


def check_variables(signal: Signal) -> None:
    """Checks the variables that say how a signal is sent; an empty one counts as unset from now on, for the SDK, too.

    Raises:
        ConfigurationError: Naming the first that cannot be used.
    """
    for name, (is_usable, limit) in _rules(signal).items():
        if name not in os.environ:
            continue
        value = os.environ[name].strip()
        if not value:
            del os.environ[name]
        elif not is_usable(value):
            raise ConfigurationError(
                f"the environment variable {name} must be {limit}, got {value!r:.80}",
                field=name,
                limit=limit,
                requested=value[:80],
            )


@contextmanager
def naming_variables(signal: Signal) -> Iterator[None]:
    """Turns what the SDK raises within into an error that names its variables.

    Raises:
        ConfigurationError: If one of them cannot be used.
    """
    try:
        yield
    except ConfigurationError:
        raise
    except Exception as error:  # the SDK reads many variables, each in a way of its own
        raise ConfigurationError(
            f"{signal} cannot be started: one of the environment variables OTEL_* cannot be used: {error!r:.200}",
            field="OTEL_*",
        ) from error


_Rule = tuple[Callable[[str], bool], str]


def _rules(signal: Signal) -> Mapping[str, _Rule]:
    """Returns the rules of the variables that count for a signal, by name."""
    number: _Rule = (lambda value: _is_number(value, float), "a number above 0")
    whole: _Rule = (lambda value: _is_number(value, int), "a whole number above 0")
    of_exporter: dict[str, _Rule] = {
        "TIMEOUT": number,
        "ENDPOINT": (_is_address, "http://HOST:PORT or https://HOST:PORT"),
        "INSECURE": (lambda value: value.lower() in ("true", "false"), "true or false"),
        "COMPRESSION": (lambda value: value.lower() == "gzip", "gzip, or unset"),
        **dict.fromkeys(("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"), (_is_readable, "a file that can be read")),
    }
    prefixes = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_", "OTEL_EXPORTER_OTLP_")
    rules = {prefix + name: rule for name, rule in of_exporter.items() for prefix in prefixes}
    if signal == "metrics":
        return rules | dict.fromkeys(("OTEL_METRIC_EXPORT_INTERVAL", "OTEL_METRIC_EXPORT_TIMEOUT"), number)
    batches = ("SCHEDULE_DELAY", "EXPORT_TIMEOUT", "MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE")
    return rules | {f"OTEL_BSP_{name}": whole for name in batches}


def _is_number(value: str, kind: Callable[[str], float]) -> bool:
    try:
        return 0 < kind(value) < math.inf
    except ValueError:
        return False


def _is_address(value: str) -> bool:
    """Returns True for the address of a gRPC server: a URL, `HOST:PORT`, or what gRPC names by `unix:` or `dns:`."""
    if any(character.isspace() for character in value):
        return False
    if "://" not in value or value.startswith(("unix:", "dns:")):
        return ":" in value
    try:
        url = urlsplit(value)
        return url.scheme.lower() in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def _is_readable(value: str) -> bool:
    try:
        Path(value).read_bytes()
    except OSError:
        return False
    return True
