"""Reading an API's error, in whichever of the many shapes it comes."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ErrorReport", "read_report", "tells_error"]

_ERROR_WORDS = ("detail", "message", "msg", "error_msg", "error_message", "errors")
"""The fields in which servers tell of an error where an answer, or a piece of one, should be."""

MAX_TEXT = 4000
"""Characters that are read of one text."""
MAX_DEPTH = 8
"""Errors that are unwrapped of one another: gateways pass on the errors of other servers as text."""
_WRAPPERS = ("error", "detail", "errors", "body")
_MESSAGES = ("message", "msg", "Message", "error_message", "errorMessage", "error_description", "status_msg", "title")
_CODES = ("code", "type", "status", "error_type", "error_code", "errorCode", "errorType", "__type", "provider_code")
_PAGE = re.compile(r"^\s*<(?:!doctype|\?xml|[a-z][a-z0-9]*[\s>])", re.I)
_EVENT = re.compile(r"(event:[^\r\n]*[\r\n]+)?data: ?([^\r\n]+)")
_HIDDEN = re.compile(r"<(script|style)\b|<!--", re.I)
_TAG = re.compile(r"<[^>]{0,2000}>")


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """An upstream's own words for a failure."""

    message: str
    """The words, those of a server behind the one that was asked included."""
    codes: tuple[str, ...] = ()
    """The codes, types and reasons that stand beside them, the outermost first."""
    status: int | None = None
    """The HTTP status that the body itself names."""
    parameter: str = ""
    """The API's name of the field that is wrong."""
    numbers: tuple[int | None, int | None] = (None, None)
    """Tokens that were requested, and the limit, where they stand apart from the words."""
    retry_after: float | None = None
    """Seconds to wait, where the body names them."""
    is_structured: bool = False
    """True for an error in JSON, which only an API sends; False for a page or a plain text."""


def read_report(body: object) -> ErrorReport:
    """Returns what an error's body says, whether it is an object, a list, a text, a page or bytes."""
    if isinstance(body, bytes | bytearray):
        body = bytes(body).decode("utf-8", "replace")
    if isinstance(body, str):
        value = _parsed(body)
        if value is None:
            return ErrorReport(_plain(body))
        body = value
    reader = _Reader()
    reader.read(body, 0)
    return ErrorReport(
        message=_joined(reader.messages) or _shown(body),
        codes=tuple(dict.fromkeys(reader.codes)),
        status=reader.status,
        parameter=reader.parameter,
        numbers=(reader.requested, reader.limit),
        retry_after=reader.retry_after,
        is_structured=isinstance(body, Mapping | list) and bool(body),
    )


class _Reader:
    """Collects what an error and the errors within it say."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.codes: list[str] = []
        self.status: int | None = None
        self.parameter = ""
        self.requested: int | None = None
        self.limit: int | None = None
        self.retry_after: float | None = None

    def read(self, value: object, depth: int) -> None:
        if depth > MAX_DEPTH:
            return
        if isinstance(value, str):
            self._read_text(value, depth)
        elif isinstance(value, list):
            for item in value[:8]:
                self.read(item, depth + 1)
        elif isinstance(value, Mapping):
            self._read_object(value, depth)

    def _read_text(self, text: str, depth: int) -> None:
        if (value := _parsed(text)) is not None:
            self.read(value, depth + 1)
        elif plain := _plain(text):
            self.messages.append(plain)

    def _read_object(self, error: Mapping[Any, Any], depth: int) -> None:
        self._read_place(error)
        for name in _CODES:
            self._read_code(error.get(name))
        for name in _MESSAGES:
            self.read(error.get(name), depth + 1)
        if isinstance(parameter := error.get("param"), str) and not self.parameter:
            self.parameter = parameter[:200]
        if self.requested is None:
            self.requested, self.limit = _whole(error.get("n_prompt_tokens")), _whole(error.get("n_ctx"))
        for name in _WRAPPERS:
            self.read(error.get(name), depth + 1)
        for name in ("innererror", "inner_error", "base_resp", "status_code", "details"):
            inner = error.get(name)
            if isinstance(inner, Mapping):
                self.read(inner, depth + 1)
            else:
                self._read_code(inner)
        self._read_metadata(error.get("metadata"), depth)
        for detail in _objects(error.get("details")):
            self._read_code(detail.get("reason"))
            self._read_delay(detail.get("retryDelay"))
            for violation in _objects(detail.get("violations")):
                self._read_code(violation.get("quotaId"))

    def _read_place(self, error: Mapping[Any, Any]) -> None:
        """Reads a field's fault as FastAPI tells it: a place and the words for it."""
        place = error.get("loc")
        if isinstance(place, list) and isinstance(words := error.get("msg"), str):
            path = [str(step) for step in place if step not in ("body", "query")]
            self.parameter = self.parameter or (path[0] if path else "")[:200]
            self.messages.append(_plain(f"{'.'.join(path)}: {words}"))

    def _read_metadata(self, metadata: object, depth: int) -> None:
        """Reads what OpenRouter adds: the words of the provider behind it, and who that is."""
        if not isinstance(metadata, Mapping):
            return
        for name in ("error_type", "provider_code"):
            self._read_code(metadata.get(name))
        self.read(metadata.get("raw"), depth + 1)
        reasons = metadata.get("reasons")
        if isinstance(reasons, list) and reasons:
            self.messages.append(_plain(f"reasons: {', '.join(str(reason) for reason in reasons[:8])}"))
        if isinstance(provider := metadata.get("provider_name"), str) and provider:
            self.messages.append(_plain(f"provider {provider}"))

    def _read_code(self, code: object) -> None:
        if isinstance(code, bool):
            return
        if isinstance(code, int):
            code = str(code)
        if not isinstance(code, str) or not code.strip():
            return
        code = code.strip()
        if re.fullmatch(r"[45]\d\d", code):
            self.status = self.status or int(code)
        self.codes.append(code[:200])

    def _read_delay(self, delay: object) -> None:
        if isinstance(delay, str) and (match := re.fullmatch(r"(\d{1,6}(?:\.\d+)?)s", delay)):
            self.retry_after = float(match[1])


def _parsed(text: str) -> object | None:
    """Returns the object or list that a text holds in JSON, perhaps as Python prints bytes; None for any other text."""
    text = text.strip().removeprefix("\ufeff")
    if match := re.fullmatch(r"""b(['"])(.*)\1""", text, re.S) or _EVENT.match(text):
        text = match[2]
    if text[:1] not in ("{", "["):
        return None
    try:
        # What may come after it, such as another line, does not matter.
        value, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def _plain(text: str) -> str:
    """Returns a text without the marks of a page."""
    if _PAGE.match(text):
        text = html.unescape(_TAG.sub(" ", _visible(text[: 16 * MAX_TEXT])))
        text = re.sub(r"\s+", " ", text)
    return text.strip()[:MAX_TEXT]


def _visible(page: str) -> str:
    """Returns a page without scripts, styles and comments."""
    kept, at = list[str](), 0
    for start in _HIDDEN.finditer(page):
        if start.start() >= at:
            kept.append(page[at : start.start()])
            end = re.compile("--" if start[1] is None else f"</{start[1]}", re.I).search(page, start.end())
            at = page.find(">", end.end()) + 1 if end else 0
            if not at:  # it is never closed
                return " ".join(kept)
    return " ".join([*kept, page[at:]])


def _joined(messages: list[str]) -> str:
    """Returns the messages as one, without those that another one holds already."""
    kept: list[str] = []
    for message in messages:
        if message and not any(message in other for other in kept):
            kept = [other for other in kept if other not in message] + [message]
    return ": ".join(kept)[:MAX_TEXT]


def _shown(value: object) -> str:
    """Returns JSON in which no words were to be recognized, so that it is at least told."""
    try:
        return "" if not value else json.dumps(value, ensure_ascii=False)[:MAX_TEXT]
    except (TypeError, ValueError, RecursionError):
        return f"{type(value).__name__} that cannot be shown"


def _objects(value: object) -> Iterator[Mapping[Any, Any]]:
    if isinstance(value, list):
        yield from (item for item in value[:8] if isinstance(item, Mapping))


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def tells_error(value: Mapping[str, Any]) -> bool:
    """Tells whether a JSON object in an answer's place is an error, with or without the field that is meant for it.

    Args:
        value: The object, which is no answer or piece of one of its API.
    """
    if value.get("error") or value.get("object") == "error":
        return True
    status = value.get("base_resp")  # MiniMax: beside every answer, too
    if isinstance(status, Mapping) and status.get("status_code"):
        return True
    return any(isinstance(words := value.get(name), str | list) and words for name in _ERROR_WORDS)
