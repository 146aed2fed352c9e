"""One answer of a model that writes messages into channels: analysis, commentary with calls, final."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from abstractllm.providers.huggingface.worker.parsing.answer_parser import AnswerParser, ReasoningPiece, TextPiece
from abstractllm.providers.huggingface.worker.parsing.channel_marks import (
    ANALYSIS,
    CALL,
    CHANNEL,
    END,
    MESSAGE,
    RETURN,
    START,
)
from abstractllm.providers.huggingface.worker.parsing.reader import Parsing

__all__ = ["ChannelParser"]

_ENDS = (END, CALL, RETURN, START, CHANNEL)
_HEADER_BEGINNINGS = (START, CHANNEL, MESSAGE, "assistant", "to=")
_LONGEST_HEADER = 400
_CHANNEL_NAME = re.compile(rf"{re.escape(CHANNEL)}\s*(\w+)")
_RECIPIENT = re.compile(r"to=([^\s<]+)")
_FUNCTIONS = "functions."
_BETWEEN = "\n\n"
"""The text between two messages of a kind."""


class ChannelParser(AnswerParser):
    """Splits an answer in OpenAI's harmony format, that of GPT-OSS, into reasoning, text and calls.

    Messages of the channel `analysis` are reasoning. Messages to an offered function are calls; all others are text:
    `final` is the answer, and `commentary` what the model says before it calls. Headers and marks are never text.

    Args:
        is_in_message: Whether the prompt ends inside a message, which the answer goes on with.
        tools: The schemas of the offered tools' arguments, by name.
    """

    def __init__(self, is_in_message: bool, tools: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(None, tools=tools)
        self._is_in_message = is_in_message
        self.is_answering = is_in_message
        self.is_text = is_in_message
        self._has_text = False

    def _parse(self) -> Parsing[None]:
        reader = self._reader
        if self._is_in_message:
            yield from self._text()
        while True:
            begin = reader.place
            yield from reader.skip_space()
            header = yield from self._header()
            if header is None:
                reader.place = begin
                yield from self._text()
            else:
                yield from self._message(header)
            if reader.has_ended and reader.place == reader.end:
                return

    def _header(self) -> Parsing[str | None]:
        """Reads the header of a message; returns None if there is none."""
        reader = self._reader
        beginning = yield from reader.take_one_of(_HEADER_BEGINNINGS)
        if beginning == MESSAGE:
            return ""
        if not beginning:
            # At the end of the answer there is nothing to read.
            return None if (yield from reader.peek()) else ""
        rest = yield from reader.take_until(MESSAGE, _LONGEST_HEADER)
        if rest is None and reader.has_ended:
            reader.place = reader.end  # a header that was cut off
            return ""
        return None if rest is None else beginning + rest

    def _message(self, header: str) -> Parsing[None]:
        """Reads the body of a message."""
        channel, recipient = _CHANNEL_NAME.search(header), _RECIPIENT.search(header)
        name = recipient[1].removeprefix(_FUNCTIONS) if recipient else ""
        if name in self._calls.tools:
            yield from self._call(name)
        elif channel and channel[1] == ANALYSIS:
            yield from self._analysis()
        else:
            yield from self._text()

    def _analysis(self) -> Parsing[None]:
        reader = self._reader
        is_first, self.is_text = True, False
        yield from reader.skip_space()
        while True:
            place, end = reader.find_one_of(_ENDS)
            if (behind := reader.behind_text(place)) > reader.place:
                visible = reader.visible(reader.place, behind)
                if is_first and self.has_reasoned:
                    visible = _BETWEEN + visible
                is_first, self.has_reasoned = False, True
                self._pieces.append(ReasoningPiece(visible))
                reader.place = behind
            if end or reader.has_ended:
                self._leave(place, end)
                return
            reader.forget(reader.place)
            yield

    def _text(self) -> Parsing[None]:
        reader = self._reader
        self.is_answering = self.is_text = True
        self._text_begin = reader.place
        is_first = True
        while True:
            place, end = reader.find_one_of(_ENDS)
            if reader.has_ended and not end:
                place = reader.end
            if text := reader.visible(reader.place, place):
                if is_first and self._has_text:
                    self._pieces.append(TextPiece(_BETWEEN, reader.place, reader.place))
                is_first, self._has_text = False, True
                self._pieces.append(TextPiece(text, reader.place, place))
            reader.place = self._text_begin = place
            reader.forget(place)
            if end or reader.has_ended:
                self._leave(place, end)
                return
            yield

    def _call(self, name: str) -> Parsing[None]:
        """Reads the arguments of a call; what is behind them, or instead of them, is text."""
        reader = self._reader
        self.is_answering, self.is_text = True, False
        begin = reader.place
        self._calls.emitted_to = -1
        is_object = (yield from reader.skip_space()) == "{"
        if is_object and (yield from self._calls.stream_arguments(name)):
            yield from reader.skip_space()
        else:
            reader.place = max(begin, self._calls.emitted_to)
        self._calls.emitted_to = -1
        yield from self._text_or_end()

    def _text_or_end(self) -> Parsing[None]:
        reader = self._reader
        end = yield from reader.take_one_of(_ENDS)
        if end:
            self._leave(reader.place - len(end), end)
        elif (yield from reader.peek()):
            yield from self._text()

    def _leave(self, place: int, end: str) -> None:
        """Goes behind the end of a message; what begins the next one's header is not read."""
        reader = self._reader
        self.is_text = False
        reader.place = place if end in (START, CHANNEL) else place + len(end)
        if not end:
            reader.place = reader.end
        reader.forget(reader.place)
