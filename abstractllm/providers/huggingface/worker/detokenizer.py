"""Turning one answer's tokens into text as they come."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from abstractllm.providers.huggingface.worker.token_decoder import TokenDecoder

__all__ = ["Detokenizer", "ExactDetokenizer"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_EACH_BYTE = "abstractllm.replace-each-byte"
_LONGEST_CHARACTER = 4
"""Tokens over which a character may be spread, one for each of its bytes."""


class Detokenizer:
    """Turns one answer's tokens into text as they come.

    The pieces that it returns, joined, are the text that the tokenizer's tokens add behind the context. Bytes that form
    whole characters are text at once; only the beginning of a character, at most three bytes, is held back. Bytes that
    are not UTF-8 become U+FFFD. The work for a token does not depend on how many came before it.

    Args:
        decoder: The tokenizer's decoder.
        context: The tokens before the answer, if it goes on with their text; the last ones that are text count.
    """

    def __init__(self, decoder: TokenDecoder, context: Sequence[int] = ()) -> None:
        self._decoder = decoder
        last = islice(filter(decoder.is_text, reversed(context)), decoder.context_tokens)
        self._context = deque(reversed(list(last)), maxlen=decoder.context_tokens)
        """The last tokens whose text has been returned."""
        self._pending: list[int] = []
        """Tokens behind them whose text may be incomplete, of a tokenizer whose tokens cannot be decoded one by one."""
        errors = _EACH_BYTE if decoder.replaces_each_byte else "replace"
        self._characters = codecs.getincrementaldecoder("utf-8")(errors)

    def push(self, id: int) -> str:
        """Takes the next token and returns the text that is certain now."""
        if not self._decoder.is_text(id):
            return ""
        if self._decoder.is_exact:
            text = self._characters.decode(self._decoder.token_bytes(id, self._context))
            self._context.append(id)
            return text
        self._pending.append(id)
        added = self._decoder.added_text(self._pending, self._context)
        is_incomplete = added is None or added.endswith(_REPLACEMENT)
        return "" if is_incomplete and len(self._pending) < _LONGEST_CHARACTER else self._release(added)

    def flush(self) -> str:
        """Returns what was held back, when no more tokens come, or none that could complete it."""
        text = self._characters.decode(b"", True)
        self._characters.reset()
        return text + self._release(self._decoder.added_text(self._pending, self._context))

    def bytes_of(self, id: int) -> bytes:
        """Returns the bytes that a token would add to the text now; of a special token its name."""
        return self._decoder.token_bytes(id, (*self._context, *self._pending))

    def _release(self, text: str | None) -> str:
        """Returns the text of the tokens that were held back: what they add, or, where that is None, their own."""
        if text is None:
            text = self._decoder.added_text(self._pending, ()) or ""
        self._context.extend(self._pending)
        self._pending.clear()
        return text


class ExactDetokenizer:
    """Turns tokens into the text that the grammar of a format sees; a `Detokenizer` may, say, strip a leading space.

    Args:
        decoder: The tokenizer's decoder.
        decode_bytes: llguidance's function from tokens to their bytes.
    """

    def __init__(self, decoder: TokenDecoder, decode_bytes: Callable[[list[int]], bytes]) -> None:
        self._decoder = decoder
        self._decode_bytes = decode_bytes
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, id: int) -> str:
        """Takes the next token and returns the text that is certain now."""
        return self._characters.decode(self._decode_bytes([id])) if self._decoder.is_text(id) else ""

    def flush(self) -> str:
        """Returns what was held back, when no more tokens come, or none that could complete it."""
        text = self._characters.decode(b"", True)
        self._characters.reset()
        return text

    def bytes_of(self, id: int) -> bytes:
        """Returns the bytes of a token; of a special one its name."""
        return self._decode_bytes([id]) if self._decoder.is_text(id) else self._decoder.token_bytes(id)


def _replace_each_byte(error: UnicodeError) -> tuple[str, int]:
    """Returns a replacement character for each byte that is not UTF-8, and the place behind them."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return _REPLACEMENT * (error.end - error.start), error.end


codecs.register_error(_EACH_BYTE, _replace_each_byte)
