"""Reading calls whose arguments are elements, Python's literals, or objects whose keys have no quotes."""

from __future__ import annotations

import json

from abstractllm.providers.huggingface.worker.parsing.argument_types import ArgumentTypes
from abstractllm.providers.huggingface.worker.parsing.call_emitter import LONGEST_NAME, CallEmitter
from abstractllm.providers.huggingface.worker.parsing.call_formats import Tags
from abstractllm.providers.huggingface.worker.parsing.call_texts import (
    arguments_of_bare_object,
    arguments_of_python_call,
)
from abstractllm.providers.huggingface.worker.parsing.reader import Parsing, Reader

__all__ = ["TextCalls"]

_LONGEST_VALUE = 1 << 20
_LONGEST_CALL = 1 << 18
"""Characters of a call that is read as a whole."""
_FENCE = "```"
_PYTHON_QUOTES = ("'", '"')
_CLOSERS = {"(": ")", "[": "]", "{": "}"}


class TextCalls:
    """Reads the calls of one answer that are not JSON.

    Args:
        reader: The answer.
        calls: Emits the calls.
    """

    def __init__(self, reader: Reader, calls: CallEmitter) -> None:
        self._reader = reader
        self._calls = calls

    def elements(self, tags: Tags, closing: str) -> Parsing[bool]:
        """Reads calls with an element for each argument.

        Args:
            tags: The texts around the parts of a call.
            closing: The text behind the calls, which is read only where nothing else ends a call.

        Returns:
            Whether they were well formed.
        """
        reader = self._reader
        while True:
            yield from reader.skip_space()
            if not (yield from reader.take(tags.name[0])):
                return False
            if not (yield from self._call_of_elements(tags, closing)):
                return False
            if not tags.end:
                return True
            if not (yield from reader.is_followed_by(tags.name[0])):
                return True

    def _call_of_elements(self, tags: Tags, closing: str) -> Parsing[bool]:
        """Reads a call behind the text before its name."""
        reader, calls = self._reader, self._calls
        if tags.name[1]:
            name = ((yield from reader.take_until(tags.name[1], LONGEST_NAME)) or "").strip()
        else:
            name = yield from self._word("<\n")
        if name not in calls.tools:
            return False
        types, is_first = ArgumentTypes(calls.tools[name]), True
        while True:
            yield from reader.skip_space()
            tag = yield from reader.take_one_of((tags.key[0], tags.end or closing))
            if tag != tags.key[0]:
                break
            parameter = yield from self._parameter(tags, closing)
            if parameter is None:
                return False
            if is_first:
                calls.begin(name)
            key, text = parameter
            value = types.as_json(key, text)
            calls.emit_arguments(f"{'{' if is_first else ', '}{json.dumps(key, ensure_ascii=False)}: {value}")
            is_first = False
        if not tag and (tags.end or (yield from reader.peek())):
            return False
        if is_first:
            calls.begin(name)
        calls.emit_arguments("{}" if is_first else "}")
        calls.complete += 1
        return True

    def _parameter(self, tags: Tags, closing: str) -> Parsing[tuple[str, str] | None]:
        """Reads an argument behind the text before its key: the key and the text, or None if it is malformed."""
        reader = self._reader
        key = yield from reader.take_until(tags.key[1], LONGEST_NAME)
        if key is None:
            return None
        if tags.value[0]:
            yield from reader.skip_space()
            if not (yield from reader.take(tags.value[0])):
                return None
        text = yield from self._value(tags, closing)
        if text is None:
            return None
        return key.strip(), text.removeprefix("\n").removesuffix("\n")

    def _value(self, tags: Tags, closing: str) -> Parsing[str | None]:
        """Reads an argument's text, which may hold the tag that ends it, but not with what follows an argument."""
        reader = self._reader
        begin, followers = reader.place, (tags.key[0], tags.end or closing)
        while True:
            text = yield from reader.take_until(tags.value[1], _LONGEST_VALUE - (reader.place - begin))
            if text is None:
                return None
            behind = reader.place
            is_over = not (yield from reader.skip_space()) or bool((yield from reader.take_one_of(followers)))
            reader.place = behind
            if is_over:
                return reader.slice(begin, behind - len(tags.value[1]))

    def python(self) -> Parsing[bool]:
        """Reads a call such as `weather(city="Paris")`, a list of such, or calls behind each other, also in a fence.

        Returns:
            Whether they were well formed.
        """
        reader = self._reader
        yield from reader.skip_space()
        is_fenced = bool((yield from reader.take_one_of((f"{_FENCE}python", _FENCE))))
        if not (yield from self._python_calls()):
            return False
        yield from reader.skip_space()
        return not is_fenced or (yield from reader.take(_FENCE))

    def _python_calls(self) -> Parsing[bool]:
        reader = self._reader
        is_list = (yield from reader.skip_space()) == "["
        reader.place += is_list
        while True:
            yield from reader.skip_space()
            if not (yield from self._whole_call("(", _PYTHON_QUOTES, is_python=True)):
                return False
            character = yield from reader.skip_space()
            if is_list and character == "]":
                reader.place += 1
                return True
            if character == "," or (character == ";" and not is_list):
                reader.place += 1
            elif is_list or not (character.isalpha() or character == "_"):
                return not is_list

    def bare(self, quote: str) -> Parsing[bool]:
        """Reads a call such as `call:weather{city:<|"|>Paris<|"|>}`.

        Args:
            quote: The text around strings.

        Returns:
            Whether it was well formed.
        """
        yield from self._reader.skip_space()
        if not (yield from self._reader.take("call:")):
            return False
        return (yield from self._whole_call("{", (quote, '"'), is_python=False))

    def _whole_call(self, bracket: str, quotes: tuple[str, ...], is_python: bool) -> Parsing[bool]:
        """Reads a name and what is between the brackets behind it, and emits the call as a whole."""
        reader = self._reader
        name = yield from self._word(f"{bracket}\n")
        if name not in self._calls.tools or (yield from reader.peek()) != bracket:
            return False
        text = yield from self._bracketed(quotes, is_escaped=is_python)
        if text is None:
            return False
        try:
            arguments = arguments_of_python_call(text) if is_python else arguments_of_bare_object(text, quotes[0])
            arguments.encode()
        except ValueError:
            return False
        self._calls.emit_call(name, arguments)
        return True

    def _word(self, ends: str) -> Parsing[str]:
        """Reads up to one of some characters, which is not read; empty if it does not come soon."""
        reader = self._reader
        begin = reader.place
        while (character := (yield from reader.peek())) and character not in ends:
            if reader.place - begin > LONGEST_NAME:
                return ""
            reader.place += 1
        return reader.slice(begin, reader.place).strip()

    def _bracketed(self, quotes: tuple[str, ...], is_escaped: bool) -> Parsing[str | None]:
        """Reads from a bracket up to the one that closes it.

        Args:
            quotes: The texts around strings, in which brackets do not count.
            is_escaped: Whether a backslash in a string escapes the next character.

        Returns:
            The text, brackets included; None if it does not end.
        """
        reader, closers, quote = self._reader, list[str](), ""
        begin, first_characters = reader.place, {quote[0] for quote in quotes}
        while (character := (yield from reader.peek())) and reader.place - begin < _LONGEST_CALL:
            if quote and is_escaped and character == "\\":
                reader.place += 1
                yield from reader.peek()
            elif character in first_characters:
                literal = yield from reader.take_one_of((quote,) if quote else quotes)
                if literal:
                    quote = "" if quote else literal
                    continue
            elif not quote and character in _CLOSERS:
                closers.append(_CLOSERS[character])
            elif not quote and character in ")]}":
                if closers.pop() != character:
                    return None
                if not closers:
                    reader.place += 1
                    return reader.slice(begin, reader.place)
            reader.place += 1
        return None
