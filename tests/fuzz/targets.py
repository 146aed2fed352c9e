"""The code that reads what others wrote, each piece as a function of bytes that must end well or in a refusal.

A target returns a word for what became of the bytes; whatever else it raises is a fault.
"""

import asyncio
import atexit
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from abstractllm.call_record import CallRecord
from abstractllm.errors import AbstractLLMError, ConfigurationError, ErrorReason
from abstractllm.registry import LLMRegistry
from abstractllm.testing import ScriptedProvider
from abstractllm_api.v1 import config_pb2, models_pb2
from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_server.convert.ceilings import check_ceilings
from abstractllm_server.convert.errors import status_of
from abstractllm_server.convert.requests import count_request, generation_request
from abstractllm_server.security.access_control import AccessControl
from abstractllm_server.security.certificate_validity import certificates_of, expiry_of
from abstractllm_server.security.token_entries import digest_of, read_entries
from abstractllm_server.services.config import ConfigServicer
from abstractllm_server.settings import ServerSettings, faults_of, load_settings
from abstractllm_server.telemetry.current import set_current_record

__all__ = ["MESSAGES", "TARGETS"]

MESSAGES: dict[str, type[Message]] = {
    method.full_name: GetMessageClass(method.input_type)
    for file in (pb.DESCRIPTOR, models_pb2.DESCRIPTOR, config_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
    for method in service.methods
} | {"grpc.reflection.v1alpha.ServerReflection.ServerReflectionInfo": reflection_pb2.ServerReflectionRequest}
"""The type of the requests of every method."""
_MESSAGES = tuple(MESSAGES.items())
_REFUSALS = {
    ErrorReason.INVALID_REQUEST,
    ErrorReason.UNSUPPORTED_PARAMETER,
    ErrorReason.UNSUPPORTED_FEATURE,
    ErrorReason.UNKNOWN_LLM,
    ErrorReason.MODEL_NOT_FOUND,
    ErrorReason.STALE_CONFIG,
}
_LARGEST_TRAILERS = 8 * 1024
"""Bytes of a status's trailers that gRPC lets through."""


def decode_request(data: bytes) -> str:
    """Reads a request of the method that the first byte names, as the guard and the services do."""
    if not data:
        return "nothing"
    name, kind = _MESSAGES[data[0] % len(_MESSAGES)]
    try:
        message = kind.FromString(data[1:])
    except DecodeError:
        return "no message"
    with _refused() as refusal:
        check_ceilings(message)
        match message:
            case pb.GenerateRequest():
                generation_request(message, 1.0).conversation()
            case pb.CountTokensRequest():
                count_request(message, None).conversation()
            case config_pb2.SetConfigRequest():
                set_current_record(CallRecord(method=name, peer=""))
                _loop.run_until_complete(_config_service().SetConfig(message, None))
    return refusal[0] if refusal else name


def read_configuration(data: bytes) -> str:
    """Reads the bytes as a configuration file."""
    with _file(data) as path:
        try:
            load_settings(path, {"insecure": True})
        except ConfigurationError as error:
            _check_faults(error, str(path))
            return "refused"
    return "read"


def read_tokens(data: bytes) -> str:
    """Reads the bytes as a file of tokens."""
    with _file(data) as path:
        try:
            entries = read_entries(path)
        except ConfigurationError as error:
            _check_faults(error, f"tokens: {path}")
            return "refused"
    for entry in entries:
        assert entry.name.isprintable()
        with _file((entry.line() + "\n").encode()) as again:
            assert read_entries(again) == (entry,)
    return "read"


def read_certificates(data: bytes) -> str:
    """Reads the bytes as certificates."""
    times = [expiry_of(certificate) for certificate in certificates_of(data)]
    return "read" if any(time is not None for time in times) else "no time"


def authenticate(data: bytes) -> str:
    """Reads the bytes as the path of a method and the header of a token; neither is known."""
    method, _, header = data.partition(b"\n")
    metadata: list[tuple[str, str | bytes]] = [("authorization", header), ("x", b"y")]
    with _refused({ErrorReason.UNAUTHENTICATED}) as refusal:
        identity = _access().authenticate(method.decode("latin-1"), metadata, {}, "ipv4:10.0.0.1:1")
        assert identity.role is None, identity
    return refusal[0] if refusal else "open to all"


TARGETS: dict[str, Callable[[bytes], str]] = {
    "requests": decode_request,
    "configuration": read_configuration,
    "tokens": read_tokens,
    "certificates": read_certificates,
    "authentication": authenticate,
}

_loop = asyncio.new_event_loop()
atexit.register(_loop.close)
_shared: dict[str, Any] = {}


def _config_service() -> ConfigServicer:
    if "config" not in _shared:
        llms = {"echo": ScriptedProvider({"model": "script", "models": ["a"]}), "other": ScriptedProvider()}
        _shared["config"] = ConfigServicer(LLMRegistry(llms))
    return _shared["config"]  # type: ignore[no-any-return]


def _access() -> AccessControl:
    if "access" not in _shared:
        with _file(f"{digest_of('a token that no input holds')} admin\n".encode()) as path:
            _shared["access"] = AccessControl(ServerSettings(llms={"echo": {}}, tokens=path), ["/a.B/"])
    return _shared["access"]  # type: ignore[no-any-return]


@contextlib.contextmanager
def _refused(reasons: set[ErrorReason] | None = None) -> Iterator[list[str]]:
    """Notes the reason of a refusal, whose status must be one that gRPC can send."""
    refusal: list[str] = []
    try:
        yield refusal
    except AbstractLLMError as error:
        _check_refusal(error, reasons or _REFUSALS)
        refusal.append(error.reason)


def _check_refusal(error: AbstractLLMError, reasons: set[ErrorReason]) -> None:
    assert error.reason in reasons, repr(error)
    status = status_of(error)
    assert sum(len(key) + len(value) for key, value in status.trailers) < _LARGEST_TRAILERS
    status.message.encode()


def _check_faults(error: ConfigurationError, beginning: str) -> None:
    for fault in faults_of(error):
        assert fault.message.startswith(beginning), fault.message
        assert fault.message.isprintable(), fault.message


@contextlib.contextmanager
def _file(data: bytes) -> Iterator[Path]:
    descriptor, name = tempfile.mkstemp()
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        yield Path(name)
    finally:
        Path(name).unlink()
