"""Turning one answer's tokens into text as they come."""

from __future__ import annotations

import codecs
from collections.abc import Callable

from abstractllm.providers.huggingface.worker.token_decoder import TokenDecoder

__all__ = ["Detokenizer", "ExactDetokenizer"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """Turns one answer's tokens into text as they come.

    The pieces that it returns, joined, are the decoded text of all tokens: text that the next token may still change,
    such as an incomplete UTF-8 character or a run of byte tokens, is held back. The `DecodeStream` of tokenizers fails
    where a run of byte tokens turns out not to be UTF-8.

    Args:
        decoder: The tokenizer's decoder.
    """

    def __init__(self, decoder: TokenDecoder) -> None:
        self._decoder = decoder
        self._ids: list[int] = []
        self._context_begin = 0
        """The index of the first token that is decoded again, as context for the tokens behind it."""
        self._context_text = ""
        """The text of the context."""
        self._returned = 0
        """The number of tokens whose text has been returned."""
        self.text = ""
        """All text that has been returned."""

    def push(self, id: int) -> str:
        """Takes the next token and returns the text that is certain now."""
        if not self._decoder.is_text(id):
            return ""
        self._ids.append(id)
        if id in self._decoder.byte_tokens:
            return ""
        text = self._decoder.decode(self._ids[self._context_begin :])
        if text.endswith(_REPLACEMENT) or len(text) <= len(self._context_text):
            return ""
        if not text.startswith(self._context_text):
            return ""
        new = text[len(self._context_text) :]
        if self._decoder.is_local:
            self._context_begin = self._returned
            self._context_text = self._decoder.decode(self._ids[self._context_begin :])
        else:
            self._context_text = text
        self._returned = len(self._ids)
        self.text += new
        return new

    def flush(self) -> str:
        """Returns what was held back, when no more tokens come."""
        text = self._decoder.decode(self._ids)
        new = text[len(self.text) :] if text.startswith(self.text) else ""
        self.text += new
        return new


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
        if not self._decoder.is_text(id):
            return ""
        return self._characters.decode(self._decode_bytes([id]))

    def flush(self) -> str:
        """Returns what was held back, when no more tokens come."""
        return self._characters.decode(b"", True)
