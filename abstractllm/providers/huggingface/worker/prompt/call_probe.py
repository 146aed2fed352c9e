"""Finding out how a chat template writes tool calls, by having it write one."""

from __future__ import annotations

import json
import re
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from abstractllm.providers.huggingface.protocol.messages import CallPiece, ToolCall, Turn
from abstractllm.providers.huggingface.worker.parsing.answer_parser import AnswerParser
from abstractllm.providers.huggingface.worker.parsing.call_formats import CHANNELS, FORMATS, CallFormat
from abstractllm.providers.huggingface.worker.parsing.channel_parser import ChannelParser
from abstractllm.providers.huggingface.worker.prompt.message_form import MessageForm, Render, tool_message

__all__ = ["CallFraming", "CallStyle", "offers_tools", "probe_calls"]

_NAME, _KEY, _VALUE, _ID = "get_probe", "probe_key", "probe_value", "prob12345"
_ARGUMENTS = {_KEY: _VALUE}
_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {_KEY: {"type": "string"}}, "required": [_KEY]}
_TOOL = tool_message(_NAME, "Gets a probe.", _PARAMETERS)
_USER = Turn("user", "Hello")


@dataclass(frozen=True, slots=True)
class CallFraming:
    """The texts around the name and the arguments of a call."""

    before: str
    between: str
    after: str


@dataclass(frozen=True, slots=True)
class CallStyle:
    """The way in which a template writes calls."""

    format: CallFormat
    framing: CallFraming | None
    """None where arguments are written as elements, and not as JSON in a frame."""


def offers_tools(render: Render, form: MessageForm) -> bool:
    """Tells whether a template shows a tool that is offered, with its parameters, to the model."""
    offer = render(form.messages([_USER]), tools=[_TOOL]) or ""
    return _NAME in offer and _KEY in offer


def probe_calls(
    render: Render, form: MessageForm, tokens: Container[str] = (), has_channels: bool = False
) -> CallStyle | None:
    """Has a template offer a tool and write a call, and looks for the format that reads the call back.

    Args:
        render: Renders messages with the template.
        form: The form in which the template takes them.
        tokens: The texts of the tokenizer's added tokens.
        has_channels: Whether calls are messages of a channel.

    Returns:
        None if the template offers no tools, or its calls would not be understood.
    """
    question = form.messages([_USER])
    offer = render(question, tools=[_TOOL]) or ""
    if not offers_tools(render, form):
        return None
    header = render(question, tools=[_TOOL], add_generation_prompt=True) or ""
    call = ToolCall(_ID, _NAME, json.dumps(_ARGUMENTS))
    conversation = render(form.messages([_USER, Turn("assistant", "", calls=(call,))]), tools=[_TOOL])
    if conversation is not None and _VALUE in conversation:
        if has_channels:
            is_read = _reads(CHANNELS, conversation[len(header) :])
            return CallStyle(CHANNELS, None) if is_read else None
        return _written_style(conversation, offer, header)
    return None if has_channels else _explained_style(offer) or _style_of_tokens(tokens)


def _written_style(conversation: str, offer: str, header: str) -> CallStyle | None:
    """Returns the first format that reads the call in a rendered conversation.

    Args:
        conversation: The prompt of a question and a call.
        offer: The prompt of the question alone.
        header: The prompt of the question alone, with the beginning of an answer.
    """
    turn = conversation[_common_length(conversation, offer) :]
    answers = [conversation[len(header) :]] if conversation.startswith(header) else []
    for format in FORMATS:
        candidates = [*answers, turn] if format.opening else answers
        if any(_reads(format, candidate) for candidate in candidates):
            return CallStyle(format, _framing(format, turn))
    return None


def _explained_style(offer: str) -> CallStyle | None:
    """Returns the format that a template which writes no calls explains to the model."""
    for format in FORMATS:
        tags = (format.tags.name[0], format.tags.key[0]) if format.tags else ()
        markers = (format.opening, format.closing, format.separator.strip(), *tags)
        if format.opening and all(marker in offer for marker in markers):
            return CallStyle(format, _framing(format, ""))
    return None


def _style_of_tokens(tokens: Container[str]) -> CallStyle | None:
    """Returns the one format whose opening and closing are tokens, for a template that neither writes nor explains."""
    pairs = [(format.opening, format.closing) for format in FORMATS]
    for format, pair in zip(FORMATS, pairs, strict=True):
        if pairs.count(pair) == 1 and format.opening and all(not text or text in tokens for text in pair):
            return CallStyle(format, None)
    return None


def _common_length(text: str, other: str) -> int:
    """Returns the number of characters before the first difference of two texts; all of `other` if there is none."""
    pairs = enumerate(zip(text, other, strict=False))
    return next((index for index, (left, right) in pairs if left != right), len(other))


def _reads(format: CallFormat, answer: str) -> bool:
    """Tells whether a format reads the call in an answer, and no other call."""
    if format.opening not in answer:  # which a model may leave out, but no template does
        return False
    tools = {_NAME: _PARAMETERS}
    parser = ChannelParser(False, tools) if format is CHANNELS else AnswerParser(None, format=format, tools=tools)
    calls = [piece for piece in (*parser.push(answer), *parser.end()) if isinstance(piece, CallPiece)]
    if parser.complete_calls != 1 or calls[0].name != _NAME:
        return False
    arguments: object = json.loads("".join(piece.arguments for piece in calls))
    return arguments == _ARGUMENTS


def _framing(format: CallFormat, turn: str) -> CallFraming | None:
    """Returns the frame of the call in a turn, or the customary one where the turn has none."""
    if format.body not in ("json", "named", "keyed"):
        return None
    begin = turn.find(format.opening) if format.opening else turn.find("{")
    name = turn.find(_NAME, begin)
    arguments = turn.find("{", name)
    if min(begin, name, arguments) < 0:
        if format.body != "json":
            return None
        return CallFraming(f'{format.opening}\n{{"name": "', '", "arguments": ', f"}}\n{format.closing}")
    _, end = json.JSONDecoder().raw_decode(turn, arguments)
    if format.closing:
        last = turn.find(format.closing, end) + len(format.closing)
    else:
        ending = re.compile(r'(\s*,\s*"id":\s*"[^"]*")?\s*}?\s*]?' if format.body == "json" else "").match(turn, end)
        last = ending.end() if ending else end
    after = re.sub(r'\s*,\s*"id":\s*"[^"]*"', "", turn[end:last])
    return CallFraming(turn[begin:name], turn[name + len(_NAME) : arguments], after)
