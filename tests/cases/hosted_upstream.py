"""The scripted upstream of the hosted cases: a list of answers in order, each in the form that its API documents."""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from tests.providers.fake_http import Exchange

_SHOWN = {
    "details": {"family": "llama"},
    "model_info": {"llama.context_length": 4096},
    "capabilities": ["completion", "tools", "vision", "thinking"],
}
_EVENTS, _LINES, _JSON = "text/event-stream", "application/x-ndjson", "application/json"
_ENDINGS = ("end", "close", "reset", "hang")


class Upstream:
    """A server that gives one answer after another.

    Args:
        provider: The provider whose API it speaks.
        answers: The answers; see `README.md`.
        show: Ollama's answer about a model, in the same form.
        whole: True if it answers with one JSON object even where a stream is asked for.
    """

    def __init__(self, provider: str, answers: list[dict[str, Any]], show: dict[str, Any] | None, whole: bool) -> None:
        self._provider, self._whole = provider, whole
        self._show = show or {"json": _SHOWN}
        self.play(answers)

    def play(self, answers: list[dict[str, Any]]) -> None:
        """Gives these answers from now on, and forgets what was."""
        self._answers = answers
        self.requests: list[dict[str, Any]] = []
        """The requests that have come, those for the description of a model aside."""
        self.unanswered = 0
        """The number of requests for which no answer was left."""

    @property
    def left(self) -> int:
        """The number of answers that nobody has asked for."""
        return max(0, len(self._answers) - len(self.requests))

    async def handle(self, exchange: Exchange) -> None:
        """Answers one request."""
        request = exchange.request
        if request.path.partition("?")[0].endswith("/api/show"):
            await self._respond(exchange, self._show)
            return
        place = len(self.requests)
        body = json.loads(request.body) if request.body else None
        self.requests.append({"method": request.method, "path": request.path, "headers": request.headers, "json": body})
        if place >= len(self._answers):
            self.unanswered += 1
            await exchange.respond({"error": {"message": "the case has no further answer"}}, 418)
            return
        await self._respond(exchange, self._answers[place])

    async def _respond(self, exchange: Exchange, answer: dict[str, Any]) -> None:
        requested = {} if exchange.request.body == b"" else exchange.request.json
        kind, pieces = self._pieces(answer, whole=self._whole or requested.get("stream") is False)
        headers = {"Transfer-Encoding": "chunked", "Content-Type": kind} | answer.get("headers", {})
        await exchange.start(answer.get("status", 200), headers)
        for piece in pieces:
            if piece:  # an empty one would end the body
                await exchange.send(piece)
        match answer.get("then", "end"):
            case "end":
                await exchange.end()
            case "close":
                exchange.keep_alive = False
            case "reset":
                exchange.reset()
            case "hang":
                await exchange.gone()
            case other:
                raise AssertionError(f"then: {other} is not one of {', '.join(_ENDINGS)}")

    def _pieces(self, answer: dict[str, Any], whole: bool) -> tuple[str, Iterable[bytes | str]]:
        """Returns the type of an answer's body, and the body."""
        match answer:
            case {"message": message}:
                return _FORMS[self._provider](message, answer, whole)
            case {"json": value}:
                return _JSON, [_text(value) if not isinstance(value, str) else json.dumps(value)]
            case {"events": events}:
                return _EVENTS, [_event(event) for event in events]
            case {"lines": lines}:
                return _LINES, [_text(line) + "\n" for line in lines]
            case {"text": text}:
                return "text/plain; charset=utf-8", [text]
            case {"bytes": characters}:
                return _EVENTS if self._provider != "ollama" else _LINES, [characters.encode("latin-1")]
        raise AssertionError(f"an answer has one of message, json, events, lines, text, bytes: {answer}")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    text = json.dumps(value, ensure_ascii=False)
    # Lone surrogates can be sent as escapes alone.
    return json.dumps(value) if re.search("[\ud800-\udfff]", text) else text


def _event(value: Any) -> str:
    """One event: text stands as it is, `[DONE]` and objects become the data; an object with a type is named by it."""
    if isinstance(value, str) and value != "[DONE]":
        return value
    name = f"event: {value['type']}\n" if isinstance(value, dict) and isinstance(value.get("type"), str) else ""
    return f"{name}data: {_text(value)}\n\n"


def _halves(value: Any) -> list[Any]:
    """Returns a text in two pieces; anything else, and an empty text, as it is."""
    middle = len(value) // 2 if isinstance(value, str) else 0
    return [value[:middle], value[middle:]] if middle else [value]


def _openai(message: dict[str, Any], answer: dict[str, Any], whole: bool) -> tuple[str, list[str]]:
    finish, choice = answer.get("finish", "stop"), answer.get("choice", {})
    top = {"id": "chatcmpl-1", "created": 1, "model": "m"}
    usage = {"usage": answer["usage"]} if "usage" in answer else {}
    if whole:
        choices = [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, **choice}]
        return _JSON, [_text({**top, "object": "chat.completion", "choices": choices, **usage})]
    deltas: list[dict[str, Any]] = [{"role": "assistant"}]
    for name, value in message.items():
        if name == "tool_calls" and isinstance(value, list):
            deltas += [delta for place, call in enumerate(value) for delta in _call_deltas(place, call)]
        else:
            deltas += [{name: piece} for piece in _halves(value)]
    chunks: list[dict[str, Any]] = [{"delta": delta, "finish_reason": None} for delta in deltas]
    chunks.append({"delta": {}, "finish_reason": finish, **choice})
    objects = [{**top, "object": "chat.completion.chunk", "choices": [{"index": 0, **chunk}]} for chunk in chunks]
    if usage:
        objects.append({**top, "object": "chat.completion.chunk", "choices": [], **usage})
    return _EVENTS, [f"data: {_text(value)}\n\n" for value in [*objects, "[DONE]"]]


def _call_deltas(place: int, call: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns a whole call as it is streamed: the name first, then the arguments in pieces."""
    function = call.get("function", {})
    first = {"index": place, **call, "function": {**function, "arguments": ""}}
    rest = [
        {"index": place, "function": {"arguments": piece}} for piece in _halves(function.get("arguments", "")) if piece
    ]
    return [{"tool_calls": [delta]} for delta in (first, *rest)]


_GROWS = {"text": ("text", "text_delta"), "thinking": ("thinking", "thinking_delta")}


def _anthropic(message: dict[str, Any], answer: dict[str, Any], whole: bool) -> tuple[str, list[str]]:
    usage = {"input_tokens": 3, "output_tokens": 2} | answer.get("usage", {})
    start = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "usage": usage}
    end = {"stop_reason": answer.get("finish", "end_turn"), "stop_sequence": answer.get("stop_sequence")}
    if whole:
        return _JSON, [_text(start | message | end)]
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start | {"content": []}}]
    for index, block in enumerate(message["content"]):
        begin, deltas = dict(block), list[dict[str, Any]]()
        if block["type"] in _GROWS:
            name, kind = _GROWS[block["type"]]
            begin[name] = ""
            deltas = [{"type": kind, name: piece} for piece in _halves(block[name]) if piece]
        if block["type"] == "thinking":
            begin["signature"] = ""
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        if block["type"] == "tool_use":
            begin["input"] = {}
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in _halves(_text(block["input"]))]
        events.append({"type": "content_block_start", "index": index, "content_block": begin})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    events += [{"type": "message_delta", "delta": end, "usage": usage}, {"type": "message_stop"}]
    return _EVENTS, [_event(event) for event in events]


def _ollama(message: dict[str, Any], answer: dict[str, Any], whole: bool) -> tuple[str, list[str]]:
    counts = {"prompt_eval_count": 3, "eval_count": 2} | answer.get("usage", {})
    top, end = {"model": "m"}, {"done": True, "done_reason": answer.get("finish", "stop"), **counts}
    if whole:
        return _JSON, [_text(top | {"message": {"role": "assistant", "content": "", **message}} | end) + "\n"]
    pieces = [{name: piece} for name, value in message.items() for piece in _halves(value)]
    lines = [top | {"message": {"role": "assistant", "content": "", **piece}, "done": False} for piece in pieces]
    lines.append(top | {"message": {"role": "assistant", "content": ""}} | end)
    return _LINES, [_text(line) + "\n" for line in lines]


_FORMS: dict[str, Callable[[dict[str, Any], dict[str, Any], bool], tuple[str, list[str]]]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "ollama": _ollama,
}
