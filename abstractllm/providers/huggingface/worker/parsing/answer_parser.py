"""One answer's reasoning, text and tool calls, told apart while it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from abstractllm.providers.huggingface.protocol.messages import CallPiece
from abstractllm.providers.huggingface.worker.parsing.call_emitter import CallEmitter
from abstractllm.providers.huggingface.worker.parsing.call_formats import CallFormat
from abstractllm.providers.huggingface.worker.parsing.call_reader import CallReader
from abstractllm.providers.huggingface.worker.parsing.reader import Parsing, Reader

__all__ = ["AnswerParser", "Piece", "ReasoningPiece", "TextPiece"]

_MOST_READ_TWICE = 1 << 14
"""Characters of malformed calls of one answer in which further calls are looked for: inside each other, they would be
read once for each of them."""


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A piece of the answer's text."""

    text: str
    begin: int
    """The place where it begins in all that the model has written, in characters."""
    end: int
    """The place behind it."""


@dataclass(frozen=True, slots=True)
class ReasoningPiece:
    """A piece of the model's reasoning."""

    text: str


Piece: TypeAlias = TextPiece | ReasoningPiece | CallPiece


class AnswerParser:
    """Splits an answer that comes in pieces into reasoning, text and calls.

    The pieces that it returns, joined, do not depend on where the answer was cut.

    Reasoning is a block at the beginning of the answer. White space at its edges, before a call and after the last call
    is dropped, of a very long one the end. A call that is malformed, or that names a tool which was not offered, is
    returned as text, as the model wrote it. If it becomes malformed only within its arguments, the part of them that
    was returned already stays, and the rest is text.

    Args:
        block: The texts that begin and end reasoning; None for a model that does not mark its reasoning.
        is_inside: Whether the prompt ends inside the block.
        format: The format in which the model writes calls; None if no tool is offered.
        tools: The schemas of the offered tools' arguments, by name.
        frame: The texts of which the model may write one before the text of an answer, and the one that it then writes
            behind it; they are no part of it.
    """

    def __init__(
        self,
        block: tuple[str, str] | None,
        is_inside: bool = False,
        format: CallFormat | None = None,
        tools: Mapping[str, Mapping[str, Any]] | None = None,
        frame: tuple[Sequence[str], str] | None = None,
    ) -> None:
        self._block = block
        self._is_inside = is_inside
        self._format = format
        self._pieces: list[Piece] = []
        self._reader = Reader()
        self._calls = CallEmitter(self._reader, tools or {}, self._pieces.append)
        self._call_reader = CallReader(self._reader, self._calls)
        self._frame = frame
        self._frame_closing = ""
        """The text that ends the frame around the answer's text; empty outside a frame."""
        self.has_reasoned = block is not None and is_inside
        """True once reasoning has begun."""
        self.is_answering = block is None
        """True once reasoning is over, or can no longer begin."""
        self.is_text = True
        """True if the characters read last are text."""
        self._text_begin = 0
        """The place where the text begins that has not been returned, while `is_text`."""
        self._read_twice = 0
        """Characters of what looked like calls and was none, so that they were read as text, too."""
        self._steps = self._parse()

    @property
    def complete_calls(self) -> int:
        """The number of calls whose arguments are complete."""
        return self._calls.complete

    @property
    def held(self) -> str:
        """Text that may still turn out to be the beginning of something else, such as white space before a call."""
        return self._reader.visible(self._text_begin, self._reader.end) if self.is_text else ""

    @property
    def settled(self) -> int:
        """The place before which everything has been returned, in characters of all that the model has written."""
        return self._reader.begin

    def push(self, text: str, is_special: bool = False) -> list[Piece]:
        """Takes the next piece of the answer and returns the pieces that are certain now.

        Args:
            text: The piece.
            is_special: Whether it is a special token that marks calls or reasoning.
        """
        self._reader.add(text, is_special)
        return self._advance()

    def end(self) -> list[Piece]:
        """Returns what was held back, when nothing more comes."""
        self._reader.has_ended = True
        return self._advance()

    def _advance(self) -> list[Piece]:
        next(self._steps, None)
        if not self.is_text and self._calls.emitted_to >= 0:
            self._reader.forget(self._calls.emitted_to)
        pieces = self._pieces.copy()
        self._pieces.clear()
        return pieces

    def _parse(self) -> Parsing[None]:
        if self._block is not None:
            yield from self._reasoning(*self._block)
            self.is_answering = True
        if self._frame is not None:
            yield from self._open_frame(*self._frame)
        if self._format is None:
            yield from self._rest_as_text()
        else:
            yield from self._text_and_calls(self._format)

    def _reasoning(self, opening: str, closing: str) -> Parsing[None]:
        """Reads the block of reasoning, if the answer begins with one."""
        reader = self._reader
        if not self._is_inside:
            yield from reader.skip_space()
            if not (yield from reader.take(opening)):
                reader.place = 0
                return
        self.has_reasoned = True
        self.is_text = False
        yield from reader.skip_space()
        while True:
            place, is_closed = reader.find(closing)
            if (end := reader.behind_text(place)) > reader.place:
                self._pieces.append(ReasoningPiece(reader.visible(reader.place, end)))
                reader.place = end
            if is_closed or reader.has_ended:
                break
            reader.forget(reader.place)
            yield
        if is_closed:
            reader.place = place + len(closing)
            self.is_answering = True
            yield from reader.skip_space()
            self.is_text = True
            self._text_begin = reader.place
        else:
            reader.place = reader.end

    def _open_frame(self, openings: Sequence[str], closing: str) -> Parsing[None]:
        """Reads the text before the answer's text, if it is there."""
        reader = self._reader
        begin = reader.place
        yield from reader.skip_space()
        if "" not in openings and not (yield from reader.take_one_of(openings)):
            reader.place = begin
            return
        self._frame_closing = closing
        yield from self._drop_space()

    def _drop_space(self) -> Parsing[None]:
        yield from self._reader.skip_space()
        self._text_begin = self._reader.place
        self._reader.forget(self._reader.place)

    def _rest_as_text(self) -> Parsing[None]:
        reader = self._reader
        while self._frame_closing:
            if (yield from self._text_before((), is_after_call=False)) < 0:
                return
        while True:
            self._emit_text(reader.place, reader.end)
            if reader.has_ended:
                return
            yield

    def _text_and_calls(self, format: CallFormat) -> Parsing[None]:
        reader = self._reader
        is_after_call = False
        while True:
            if not format.opening:
                begin = reader.place
                if (yield from reader.skip_space()) not in ("{", "["):
                    reader.place = begin
                    yield from self._rest_after(is_after_call)
                    return
            else:
                begin = yield from self._text_before((format.opening, format.bare_opening), is_after_call)
                if begin < 0:
                    return
            self.is_text = False
            behind_opening = reader.place
            self._calls.emitted_to = -1
            bare = format.bare_opening
            is_bare = bool(bare) and reader.slice(begin, behind_opening).endswith(bare)
            if is_bare:  # which is the first part of the call
                reader.place -= len(bare)
            is_after_call = yield from self._call_reader.read(format, is_bare=is_bare)
            self.is_text = True
            if is_after_call:
                reader.forget(reader.place)
                self._text_begin = reader.place
            elif self._calls.emitted_to >= 0:
                reader.place = self._text_begin = self._calls.emitted_to
            else:
                self._read_twice += reader.place - behind_opening
                is_much = self._read_twice > _MOST_READ_TWICE
                self._emit_text(begin, reader.place if is_much else behind_opening)
            if not is_after_call and not format.opening:
                yield from self._rest_as_text()
                return

    def _text_before(self, openings: Sequence[str], is_after_call: bool) -> Parsing[int]:
        """Emits the text up to the next opening of calls or the end of the frame, and reads that.

        Args:
            openings: The openings; none where no calls are looked for.
            is_after_call: Whether a call stands before.

        Returns:
            The place where the white space before the opening begins, or where the frame has ended; -1 at the end of
            the answer.
        """
        reader = self._reader
        while True:
            closing = self._frame_closing
            place, literal = reader.find_one_of([literal for literal in (*openings, closing) if literal])
            if (end := reader.behind_text(place)) > reader.place:
                self._emit_text(reader.place, end)
                is_after_call = False
            if literal and literal == closing:
                self._frame_closing = ""
                reader.place = place + len(literal)
                yield from self._drop_space()
                if not openings:
                    return reader.place
                continue
            if literal:
                begin = reader.place
                reader.place = place + len(literal)
                return begin
            if reader.has_ended:
                if not is_after_call:
                    self._emit_text(reader.place, reader.end)
                return -1
            reader.forget(reader.place)
            yield

    def _rest_after(self, is_after_call: bool) -> Parsing[None]:
        """Emits the rest of the answer as text, unless it is white space after a call."""
        begin = self._reader.place
        if is_after_call and not (yield from self._reader.skip_space()):
            return
        self._reader.place = begin
        yield from self._rest_as_text()

    def _emit_text(self, begin: int, end: int) -> None:
        if text := self._reader.visible(begin, end):
            self._pieces.append(TextPiece(text, begin, end))
        self._reader.place = self._text_begin = end
        self._reader.forget(end)
