"""Reading the tool calls of an answer."""

from __future__ import annotations

import re

from abstractllm.providers.huggingface.worker.parsing.call_emitter import LONGEST_NAME, CallEmitter
from abstractllm.providers.huggingface.worker.parsing.call_formats import CallFormat, Tags
from abstractllm.providers.huggingface.worker.parsing.json_calls import JsonCalls
from abstractllm.providers.huggingface.worker.parsing.reader import Parsing, Reader
from abstractllm.providers.huggingface.worker.parsing.text_calls import TextCalls

__all__ = ["CallReader"]

_NUMBER_OF_CALL = re.compile(r":[0-9]+$")
"""The number of a call behind its name, as Kimi K2 writes it."""


class CallReader:
    """Reads the calls of one answer.

    Nothing of a call is emitted until it has named an offered tool and its arguments begin.

    Args:
        reader: The answer.
        calls: Emits the calls.
    """

    def __init__(self, reader: Reader, calls: CallEmitter) -> None:
        self._reader = reader
        self._calls = calls
        self._json_calls = JsonCalls(reader, calls)
        self._text_calls = TextCalls(reader, calls)

    def read(self, format: CallFormat, *, is_bare: bool = False) -> Parsing[bool]:
        """Reads what follows an opening.

        Args:
            format: The format.
            is_bare: Whether the opening was left out, and so may be the closing.

        Returns:
            Whether it was well formed; if not, the reader stands at the first character that is wrong.
        """
        match format:
            case CallFormat(body="json"):
                is_valid = yield from self._json_calls.objects(is_bare=not format.opening)
            case CallFormat(body="keyed"):
                is_valid = yield from self._json_calls.keyed()
            case CallFormat(body="named"):
                is_valid = yield from self._named(format)
            case CallFormat(body="python"):
                has_objects = yield from self._has_objects()
                is_valid = yield from (self._json_calls.objects(False) if has_objects else self._text_calls.python())
            case CallFormat(body="bare"):
                is_valid = yield from self._text_calls.bare(format.quote)
            case CallFormat(body="elements", tags=Tags() as tags):
                is_valid = yield from self._text_calls.elements(tags, format.closing)
                if is_valid and not tags.end:
                    return True
            case _:
                raise AssertionError(f"{format.body} is not read after an opening")
        if is_valid and format.closing and (yield from self._reader.skip_space()):
            if is_bare:
                yield from self._reader.take_one_of((format.closing,))
                return True
            is_valid = yield from self._reader.take(format.closing)
        return is_valid

    def _has_objects(self) -> Parsing[bool]:
        """Tells whether an object follows, or a list that begins with one; reads nothing."""
        reader = self._reader
        begin = reader.place
        if (yield from reader.skip_space()) == "[":
            reader.place += 1
        is_object = (yield from reader.skip_space()) == "{"
        reader.place = begin
        return is_object

    def _named(self, format: CallFormat) -> Parsing[bool]:
        """Reads a name, a separator and the arguments; several times where each call has texts around it."""
        reader, (opening, closing) = self._reader, format.call
        while True:
            if opening:
                yield from reader.skip_space()
                if not (yield from reader.take(opening)):
                    return False
            title = yield from reader.take_until(format.separator, LONGEST_NAME)
            name = _named_tool(title or "", format)
            if name not in self._calls.tools or (yield from reader.skip_space()) != "{":
                return False
            if not (yield from self._calls.stream_arguments(name)):
                return False
            if not closing:
                return True
            if (yield from reader.skip_space()) and not (yield from reader.take(closing)):
                return False
            if not (yield from reader.is_followed_by(opening)):
                return True


def _named_tool(title: str, format: CallFormat) -> str:
    """Returns the name of the tool in what stands before a separator."""
    name = (title.partition(format.id_separator)[0] if format.id_separator else title).strip()
    if format.prefix and name.startswith(format.prefix):
        name = _NUMBER_OF_CALL.sub("", name.removeprefix(format.prefix))
    return name
