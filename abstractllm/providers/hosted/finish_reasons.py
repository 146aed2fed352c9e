"""The words with which servers tell why an answer ended.

Beside the words of the three APIs many servers have their own (`eos`, `FinishReason.MAX_TOKENS`, `eosFound`), and new
ones come. They are read by the terms that they are made of; a word that holds none of these says nothing of the answer.
"""

from __future__ import annotations

import logging
import re

from abstractllm.enums import FinishReason
from abstractllm.errors import ProviderUnavailableError
from abstractllm.providers.hosted.errors import unknown_finish_reason

__all__ = ["FAILED", "finish_reason_of", "known_finish_reason"]

FAILED = "failed"
"""The meaning of a word for an answer that the server could not finish."""
_DOCUMENTED = {
    *("stop", "length", "tool_calls", "function_call", "content_filter"),  # OpenAI
    *("end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal", "model_context_window_exceeded"),
}
"""The words of the APIs themselves, which are not logged."""
_FILTER = FinishReason.CONTENT_FILTER
_TERMS: tuple[tuple[str, FinishReason | str | None], ...] = (
    ("error errors abort aborted fail failed failure cancel cancelled canceled timeout network exception", FAILED),
    ("insufficient unavailable unload unloaded overloaded interrupted disconnected user", FAILED),
    # A word about the time or about a broken call says that the answer is cut, and not by a limit that was set.
    ("malformed unexpected invalid unknown other unspecified incomplete unfinished not many time null none", None),
    ("filter filtered safety sensitive moderation moderated guardrail guardrails blocked blocklist block", _FILTER),
    ("prohibited spii recitation policy toxic censored armor escalation", _FILTER),
    ("refusal refused refuse", FinishReason.REFUSAL),
    ("tool tools function functions call calls toolcalls", FinishReason.TOOL_CALLS),
    ("length len max maximum limit limits truncated context window budget capped", FinishReason.MAX_TOKENS),
    ("sequence string str word words", FinishReason.STOP_SEQUENCE),
    ("stop stopped eos eot eom eog end ended done complete completed finish finished", FinishReason.STOP),
    ("normal success successful succeeded turn", FinishReason.STOP),
)
"""Terms in their order: the first row of which a word holds a term says what it means."""
_ENDS = frozenset({"end", "eos", "finish"})
_PREFIX = re.compile(r"^(?:(?:finish|stop|done|end)_?reason_|reason_)")

_logger = logging.getLogger(__name__)


def known_finish_reason(word: str) -> FinishReason | str | None:
    """Returns what a word for the end of an answer means: a reason, `FAILED`, or None where it says nothing known."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word)
    terms = _PREFIX.sub("", re.sub(r"[^A-Za-z0-9]+", "_", words).strip("_").lower()).split("_")
    for row, meaning in _TERMS:
        if not set(terms).isdisjoint(row.split()):
            if meaning is FinishReason.STOP_SEQUENCE and not _ENDS.isdisjoint(terms):
                return FinishReason.STOP  # such as end_of_sequence
            return meaning
    return None


def finish_reason_of(word: str, source: str = "") -> FinishReason:
    """Returns the reason that a word stands for. One that is not the API's own is logged.

    Args:
        word: The provider's word.
        source: The answer that it came in, for messages.

    Raises:
        ProviderUnavailableError: If it says that the server could not finish the answer.
        IncompleteStreamError: If it says nothing known.
    """
    reason = known_finish_reason(word)
    where = f" ({source})" if source else ""
    if reason == FAILED:
        raise ProviderUnavailableError(f"the answer ended with the finish reason {word[:80]!r}{where}")
    if not isinstance(reason, FinishReason):
        raise unknown_finish_reason(word, source)
    if word not in _DOCUMENTED:
        _logger.info("finish reason %.80r is read as %s%s", word, reason, where)
    return reason
