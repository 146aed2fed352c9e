"""The audit: a line for each call that only an administrator may make, and for each caller who was refused."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from abstractllm.call_record import CallRecord
from abstractllm.errors import ErrorReason
from abstractllm.utils.log_lines import StructuredMessage
from abstractllm_server.telemetry.log_writer import AUDIT_LOGGER
from abstractllm_server.telemetry.observer import Metadata
from abstractllm_server.telemetry.rate_limit import RateLimit

__all__ = ["REFUSALS", "Audit"]

logger = logging.getLogger(AUDIT_LOGGER)

REFUSALS = {ErrorReason.UNAUTHENTICATED, ErrorReason.NOT_ALLOWED}
"""The reasons for which a caller is refused."""

_LONGEST_VALUE = 256


class Audit:
    """Logs the calls that administrators make, and the callers who are refused; never a token, never content.

    A line tells `method`, `caller`, `role`, `peer`, `status`; for an administrator's call what it was to change, by
    name; for a refusal its reason. Where strangers are refused more often than lines are written, the next
    line tells how many were not (`unlogged`).

    Args:
        admin_paths: The methods, `/SERVICE/METHOD`, that only administrators may call.
    """

    def __init__(self, admin_paths: Collection[str]) -> None:
        self._admin_paths = frozenset(admin_paths)
        self._limit = RateLimit()

    def started(self, record: CallRecord, metadata: Metadata) -> None:
        """Does nothing: a call is logged at its end."""

    def ended(self, record: CallRecord) -> None:
        """Logs a call, if it is one of those."""
        if record.error is not None and record.error.reason in REFUSALS:
            if (unlogged := self._limit.take()) is not None:
                # The words are this server's, and name a method or a certificate at most.
                fields = _who(record) | {"error": str(record.error.reason), "because": record.error.message[:300]}
                logger.warning(StructuredMessage("refused", fields | ({"unlogged": unlogged} if unlogged else {})))
        elif record.method in self._admin_paths:
            fields = _who(record)
            if record.error is not None:
                fields["error"] = str(record.error.reason)
            fields |= {name: str(value)[:_LONGEST_VALUE] for name, value in record.changes.items()}
            logger.info(StructuredMessage("admin", fields))


def _who(record: CallRecord) -> dict[str, Any]:
    facts = {
        "method": record.method[:_LONGEST_VALUE],
        "status": record.status,
        "caller": record.caller[:_LONGEST_VALUE],
        "role": record.role,
        "peer": record.peer,
        "request_id": record.request_id[:_LONGEST_VALUE],
        "trace_id": getattr(record.trace, "trace_id", ""),
    }
    return {name: value for name, value in facts.items() if value}
