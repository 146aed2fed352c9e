"""One line of the log for each call, at its end."""

from __future__ import annotations

import logging
from typing import Any

from abstractllm.call_record import CallRecord
from abstractllm.errors import ErrorReason
from abstractllm.utils.log_lines import StructuredMessage
from abstractllm_server.telemetry.audit import REFUSALS
from abstractllm_server.telemetry.observer import Metadata

__all__ = ["CallLog", "fields_of"]

logger = logging.getLogger("abstractllm.call")

_PROBES = ("/grpc.health.", "/grpc.reflection.")
_LONGEST_VALUE = 256
_MOST_LABELS = 32
_FAULTS_OF_THE_SERVER = {ErrorReason.INTERNAL, ErrorReason.ENGINE_CRASHED, ErrorReason.MODEL_LOAD_FAILED}
_FAULTS_TO_LOOK_AT = {
    ErrorReason.OVERLOADED,
    ErrorReason.PROVIDER_CREDENTIALS,
    ErrorReason.PROVIDER_PROTOCOL,
    ErrorReason.PROVIDER_UNAVAILABLE,
    ErrorReason.INCOMPLETE_STREAM,
    ErrorReason.NOT_CONFIGURED,
    ErrorReason.QUOTA_EXCEEDED,
    ErrorReason.RATE_LIMITED,
}


class CallLog:
    """Logs each call when it has ended: who called what, how it ended, its tokens and times; never its content.

    The level is ERROR for faults of this server, WARNING for what an operator should look at (overload, failures of a
    provider), and INFO for all else, a caller's own mistakes among it. Health checks and reflection are logged at DEBUG
    level, as are refused callers, of whom the audit tells.
    """

    def started(self, record: CallRecord, metadata: Metadata) -> None:
        """Does nothing: a call is logged at its end."""

    def ended(self, record: CallRecord) -> None:
        """Logs a call."""
        level = _level(record)
        if logger.isEnabledFor(level):
            logger.log(level, StructuredMessage("call", fields_of(record)))


def fields_of(record: CallRecord) -> dict[str, Any]:
    """Returns what the log tells of a call, by name; of texts that a caller chose, no more than is of use."""
    identity = {
        "method": record.method,
        "status": record.status,
        "caller": record.caller,
        "peer": record.peer if record.peer != record.caller else "",
    }
    facts = {name: value for name, value in identity.items() if value} | record.facts()
    if trace_id := getattr(record.trace, "trace_id", ""):
        facts["trace_id"] = trace_id
    for name, value in facts.items():
        if isinstance(value, str):
            facts[name] = value[:_LONGEST_VALUE]
    if labels := facts.pop("labels", None):
        facts["labels"] = {
            key[:_LONGEST_VALUE]: value[:_LONGEST_VALUE] for key, value in list(labels.items())[:_MOST_LABELS]
        }
    return facts


def _level(record: CallRecord) -> int:
    reason = None if record.error is None else record.error.reason
    if reason in _FAULTS_OF_THE_SERVER:
        return logging.ERROR
    # Strangers may call these as often as they like.
    if reason in REFUSALS or record.method.startswith(_PROBES):
        return logging.DEBUG
    return logging.WARNING if reason in _FAULTS_TO_LOOK_AT else logging.INFO
