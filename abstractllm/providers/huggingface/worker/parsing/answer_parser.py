"""One answer's reasoning, text and tool calls, told apart while it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from abstractllm.providers.huggingface.protocol.messages import CallPiece
from abstractllm.providers.huggingface.worker.parsing.reader import Parsing, Reader
from abstractllm.providers.huggingface.worker.parsing.tool_calls import CallFormat, CallReader

__all__ = ["AnswerParser", "Piece", "ReasoningPiece", "TextPiece"]

_SPACE = " \t\r\n"


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A piece of the answer's text."""

    text: str
    begin: int
    """Where it lies in all that the model has written, in characters."""
    end: int


@dataclass(frozen=True, slots=True)
class ReasoningPiece:
    """A piece of what the model thinks."""

    text: str


Piece: TypeAlias = TextPiece | ReasoningPiece | CallPiece


class AnswerParser:
    """Takes an answer in pieces; what it makes of them, joined, does not depend on where they were cut.

    Reasoning is a block at the answer's beginning; the white space around and at the edges of it belongs to neither
    side. White space before a call, and after the last one, is no text either. What looks like a call but is none, or
    calls a tool that was not offered, is text, as the model wrote it; if it breaks off within its arguments, what came
    of these stays, and the rest is text.

    Args:
        block: The texts that begin and end reasoning; None for models without.
        is_inside: Whether the prompt has begun the block already.
        format: How the model writes calls; None if no tool is offered.
        tools: The schemas of the offered tools' arguments, by name.
    """

    def __init__(
        self,
        block: tuple[str, str] | None,
        is_inside: bool = False,
        format: CallFormat | None = None,
        tools: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._block = block
        self._is_inside = is_inside
        self._format = format
        self._pieces: list[Piece] = []
        self._reader = Reader()
        self._calls = CallReader(self._reader, tools or {}, self._pieces.append)
        self.has_reasoned = block is not None and is_inside
        """Whether reasoning has begun."""
        self.is_answering = block is None
        """Whether what comes next is no reasoning, nor can it begin any more."""
        self.is_text = True
        """Whether what was read last is text."""
        self._steps = self._parse()

    @property
    def complete_calls(self) -> int:
        """Calls whose arguments are whole."""
        return self._calls.complete

    def push(self, text: str, is_special: bool = False) -> list[Piece]:
        """Takes the next piece, and returns what is certain now.

        Args:
            text: The piece.
            is_special: Whether it is a special token that marks calls or reasoning.
        """
        self._reader.add(text, is_special)
        return self._go_on()

    def end(self) -> list[Piece]:
        """Returns what was held back, when no more comes."""
        self._reader.has_ended = True
        return self._go_on()

    def _go_on(self) -> list[Piece]:
        next(self._steps, None)
        if not self.is_text and self._calls.kept >= 0:
            self._reader.forget(self._calls.kept)
        pieces = self._pieces.copy()
        self._pieces.clear()
        return pieces

    def _parse(self) -> Parsing[None]:
        if self._block is not None:
            yield from self._reasoning(*self._block)
            self.is_answering = True
        if self._format is None:
            yield from self._plain()
        else:
            yield from self._with_calls(self._format)

    def _reasoning(self, opening: str, closing: str) -> Parsing[None]:
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
            at, found = reader.find((closing,))
            kept = reader.slice(reader.place, at).rstrip(_SPACE)
            if kept:
                self._pieces.append(ReasoningPiece(reader.visible(reader.place, reader.place + len(kept))))
                reader.place += len(kept)
            if found or reader.has_ended:
                break
            reader.forget(reader.place)
            yield
        if found:
            reader.place = at + len(closing)
            self.is_answering = self.is_text = True
            yield from reader.skip_space()
        else:
            reader.place = reader.end

    def _plain(self) -> Parsing[None]:
        reader = self._reader
        while True:
            self._give_text(reader.place, reader.end)
            if reader.has_ended:
                return
            yield

    def _with_calls(self, format: CallFormat) -> Parsing[None]:
        reader = self._reader
        after_call = False
        while True:
            if not format.opening:
                begin = reader.place
                if (yield from reader.skip_space()) not in ("{", "["):
                    reader.place = begin
                    yield from self._plain_after(after_call)
                    return
            else:
                begin = yield from self._text_before(format.opening, after_call)
                if begin < 0:
                    return
            self.is_text = False
            behind_opening = reader.place
            self._calls.kept = -1
            after_call = yield from self._calls.read(format)
            self.is_text = True
            if after_call:
                reader.forget(reader.place)
            elif self._calls.kept >= 0:
                reader.place = self._calls.kept
            else:
                self._give_text(begin, behind_opening)
            if not after_call and not format.opening:
                yield from self._plain()
                return

    def _text_before(self, opening: str, after_call: bool) -> Parsing[int]:
        """Gives out text up to the next opening, and reads that.

        Returns:
            Where the white space before the opening begins; -1 at the end of the answer.
        """
        reader = self._reader
        while True:
            at, found = reader.find((opening,))
            kept = reader.slice(reader.place, at).rstrip(_SPACE)
            if kept:
                self._give_text(reader.place, reader.place + len(kept))
                after_call = False
            if found:
                begin = reader.place
                reader.place = at + len(opening)
                return begin
            if reader.has_ended:
                if not after_call:
                    self._give_text(reader.place, reader.end)
                return -1
            reader.forget(reader.place)
            yield

    def _plain_after(self, after_call: bool) -> Parsing[None]:
        """Text to the end of the answer; nothing if it is white space after a call."""
        begin = self._reader.place
        if after_call and not (yield from self._reader.skip_space()):
            return
        self._reader.place = begin
        yield from self._plain()

    def _give_text(self, begin: int, end: int) -> None:
        if text := self._reader.visible(begin, end):
            self._pieces.append(TextPiece(text, begin, end))
        self._reader.place = end
        self._reader.forget(end)
