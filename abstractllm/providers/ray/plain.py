"""The library's values as plain data and back: the form in which they cross to another process.

A value becomes mappings, lists, texts, numbers and bytes alone; a class is named, never sent. A process of another
version of this package reads what it knows: fields that it does not know are left out, absent ones get their defaults.
"""

from __future__ import annotations

import dataclasses
import enum
import types
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from pydantic import SecretStr

from abstractllm import enums, errors, statistics
from abstractllm import types as values
from abstractllm.call_record import CallRecord, UpstreamCall
from abstractllm.config import ConfigModel
from abstractllm.errors import AbstractLLMError, ErrorReason, InternalError, error_class
from abstractllm.parameters import GenerationParameters
from abstractllm.requests import GenerationRequest

__all__ = ["decode", "encode", "error_of", "facts_of_record", "note_record", "plain_error", "plain_values"]

_KIND = "~"
"""The key under which a mapping names the class that it stands for."""
_LOCAL_FIELDS = {"record", "deadline"}
"""Fields of a request that mean something in one process alone: a clock, an object that is filled."""

_CLASSES: dict[str, Any] = {
    name: kind
    for module in (values, enums, statistics)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and (dataclasses.is_dataclass(kind) or issubclass(kind, enum.Enum))
} | {GenerationRequest.__name__: GenerationRequest}


def encode(value: Any) -> Any:
    """Returns a value as plain data.

    Raises:
        TypeError: For a value of a class that the library's requests and answers do not have.
    """
    # Most values are texts and numbers; their exact types, as a member of an enumeration is a text, too.
    if value is None or type(value) in (str, int, float, bool, bytes):
        return value
    match value:
        case enum.Enum():
            return {_KIND: type(value).__name__, "value": value.value}
        case GenerationParameters():
            fields = {name: encode(item) for name, item in value.set_fields().items()}
            return {_KIND: "GenerationParameters", "fields": fields}
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {
                field.name: encode(item)
                for field in dataclasses.fields(value)
                if field.name not in _LOCAL_FIELDS
                and ((item := getattr(value, field.name)) is not None or field.default is not None)
            }
            return {_KIND: type(value).__name__, "fields": fields}
        case Mapping():
            # A caller's own key may look like ours.
            return {_KIND: "", "items": [[encode(key), encode(item)] for key, item in value.items()]}
        case list() | tuple() | set() | frozenset():
            return [encode(item) for item in value]
        case str():
            return str(value)
        case int() | float():
            return value
    raise TypeError(f"{type(value).__name__} cannot be sent to another process")


def decode(data: Any) -> Any:
    """Returns the value that `encode` was given; lists come back as tuples, mappings as dictionaries.

    Raises:
        ValueError: If the data name a class that is not known.
    """
    if isinstance(data, list | tuple):
        return tuple(map(decode, data))
    if not isinstance(data, dict):
        return data
    name = data[_KIND]
    if not name:
        return {decode(key): _in_mapping(decode(item)) for key, item in data["items"]}
    if name == "GenerationParameters":
        known = GenerationParameters.model_fields
        # They were checked where the request was made.
        return GenerationParameters.model_construct(
            **{name: decode(item) for name, item in data["fields"].items() if name in known}
        )
    kind = _CLASSES.get(name)
    if kind is None:
        raise ValueError(f"{name!r:.80} is no value of this version of the library")
    if issubclass(kind, enum.Enum):
        return kind(data["value"])
    names = {field.name for field in dataclasses.fields(kind) if field.init}
    return kind(**{name: decode(item) for name, item in data["fields"].items() if name in names})


def _in_mapping(value: Any) -> Any:
    """Returns a value of a mapping as a caller wrote it: JSON has lists, no tuples."""
    return [_in_mapping(item) for item in value] if isinstance(value, tuple) else value


# Configurations.


def plain_values(config: ConfigModel, names: frozenset[str]) -> dict[str, Any]:
    """Returns the keys of a configuration that are set, as plain data, secrets in the clear.

    Args:
        config: The configuration.
        names: The keys that count; others are left out.
    """
    return {name: _plain(getattr(config, name)) for name in sorted(config.model_fields_set & names)}


def _plain(value: Any) -> Any:
    match value:
        case SecretStr():
            return value.get_secret_value()
        case GenerationParameters():
            return _plain(value.set_fields())
        case enum.Enum():
            return value.value
        case Mapping():
            return {_plain(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
    return value


# Errors.

# All that an error is made of, beside what is said of every one: a fact that is added there crosses, too.
_ERROR_FIELDS = tuple(name for name in signature(AbstractLLMError).parameters if name not in {"message", "reason"})
_ERROR_CLASSES: dict[str, type[AbstractLLMError]] = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, AbstractLLMError)
}


class _RemoteTracebackError(Exception):
    """The traceback of a fault in another process, for the log."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def plain_error(error: AbstractLLMError, traceback: str = "") -> dict[str, Any]:
    """Returns an error with all that it tells, as plain data.

    Args:
        error: The error.
        traceback: The traceback of a fault of the software.
    """
    facts = {name: _plain_fact(getattr(error, name)) for name in _ERROR_FIELDS}
    return {
        "class": type(error).__name__,
        "reason": str(error.reason),
        "message": error.message,
        "facts": {name: fact for name, fact in facts.items() if fact is not None},
        "is_billed": error.is_billed,
        "is_turned_away": error.is_turned_away,
        "attempts": encode(error.attempts),
        "traceback": traceback,
    }


def _plain_fact(value: object) -> Any:
    """Returns a limit, or a value that was asked for, which may be anything, as plain data."""
    match value:
        case None | bool() | int() | float() | bytes():
            return value
        case str():
            return str(value)
        case list() | tuple():
            return [_plain_fact(item) for item in value]
    return str(value)


def error_of(data: Mapping[str, Any]) -> AbstractLLMError:
    """Returns the error that `plain_error` was given."""
    try:
        reason = ErrorReason(data["reason"])
    except ValueError:  # of a newer version
        reason = ErrorReason.INTERNAL
    kind = _ERROR_CLASSES.get(data["class"], error_class(reason))
    facts = {name: fact for name, fact in data["facts"].items() if name in _ERROR_FIELDS}
    error = kind(data["message"], reason=reason, **facts)
    error.is_billed, error.is_turned_away = data["is_billed"], data["is_turned_away"]
    error.attempts = decode(data["attempts"])
    if isinstance(error, InternalError) and data["traceback"]:
        error.__cause__ = _RemoteTracebackError(data["traceback"])
    return error


# Records.

_DURATIONS = ("checking", "queued", "prefill", "decode")
_COUNTS = ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens")
_Span = Callable[[float | None], float | None]


def facts_of_record(record: CallRecord) -> dict[str, Any]:
    """Returns what a process has noted of a call, as plain data; times count from the call's arrival there."""

    def after_arrival(moment: float | None) -> float | None:
        return None if moment is None else moment - record.arrived_at

    facts: dict[str, Any] = {name: getattr(record, name) for name in (*_DURATIONS, *_COUNTS, "provider", "model")}
    facts["first_token_at"] = after_arrival(record.first_token_at)
    facts["upstream"] = [_facts_of_upstream(call, after_arrival) for call in record.upstream]
    return facts


def _facts_of_upstream(call: UpstreamCall, after_arrival: _Span) -> dict[str, Any]:
    return {
        **{name: getattr(call, name) for name in ("llm", "provider", "model", "address", "port", "error_reason")},
        **{name: after_arrival(getattr(call, name)) for name in ("began_at", "first_event_at", "ended_at")},
        "usage": encode(call.usage),
    }


def note_record(record: CallRecord, facts: Mapping[str, Any], arrived_at: float) -> None:
    """Notes what another process has told of a call.

    Args:
        record: The record of the call in this process.
        facts: What the other process has noted.
        arrived_at: The time, on the clock of `time.monotonic` here, at which the call was sent there.
    """
    known = types.SimpleNamespace(**facts)
    record.provider, record.model = known.provider or record.provider, known.model or record.model
    for name in (*_DURATIONS, *_COUNTS):
        if (value := facts.get(name)) is not None:
            setattr(record, name, value)
    if known.first_token_at is not None and record.first_token_at is None:
        record.first_token_at = arrived_at + known.first_token_at

    def here_at(moment: float | None) -> float | None:
        return None if moment is None else arrived_at + moment

    for call in facts.get("upstream", ()):
        began_at = arrived_at + call["began_at"]
        record.upstream.append(
            UpstreamCall(
                **{name: call[name] for name in ("llm", "provider", "model", "address", "port", "error_reason")},
                began_at=began_at,
                began_at_ns=record.arrived_at_ns + int((began_at - record.arrived_at) * 1e9),
                first_event_at=here_at(call["first_event_at"]),
                ended_at=here_at(call["ended_at"]),
                usage=decode(call["usage"]),
            )
        )
