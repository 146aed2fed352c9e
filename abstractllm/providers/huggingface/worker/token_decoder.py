"""From tokens to text, piece by piece and exactly."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

__all__ = ["Detokenizer", "TokenDecoder"]

_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_COMPOSING_SHRINKAGE = 4
"""Canonical composition turns at most four characters into one, e.g. U+03B1 U+0313 U+0300 U+0345 into U+1F82."""


class TokenDecoder:
    """What the tokens of one tokenizer stand for.

    A fast tokenizer is copied, so decoding never meets the tokenizing thread.

    Args:
        tokenizer: A transformers tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._slow = None if tokenizer.is_fast else tokenizer
        self._fast = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else None
        self._structure = json.loads(self._fast.to_str()) if self._fast else {}
        decoder = json.dumps(self._structure.get("decoder"))
        self._bytes_of = _byte_characters() if '"ByteLevel"' in decoder else None
        self._tokens: dict[int, str] = {id: token for token, id in tokenizer.get_vocab().items()}
        added = tokenizer.added_tokens_decoder
        self._added: dict[int, str] = {id: token.content for id, token in added.items()}
        self._special = frozenset(tokenizer.all_special_ids) | {id for id, token in added.items() if token.special}
        byte_fallback = '"ByteFallback"' in decoder
        self.bytes = frozenset(
            id for id, token in self._tokens.items() if byte_fallback and _BYTE_TOKEN.fullmatch(token)
        )
        """Tokens that stand for one byte and are decoded together with those beside them."""
        self.is_local = self._fast is not None
        """Whether a text can be decoded from the middle on."""

    def is_text(self, id: int) -> bool:
        """Whether a token is not special, nor one of a model's spare rows that stand for nothing."""
        return id in self._tokens and id not in self._special

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones left out; never with a lone surrogate."""
        if self._fast:
            text = self._fast.decode(list(ids), skip_special_tokens=True)
        else:
            assert self._slow is not None
            text = self._slow.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token; empty for an id that stands for nothing."""
        token = self._tokens.get(id, "")
        if id in self._added:
            return self._added[id].encode()
        if id in self.bytes:
            return bytes([int(token[3:5], 16)])
        if self._bytes_of and all(character in self._bytes_of for character in token):
            return bytes(self._bytes_of[character] for character in token)
        return token.replace("\N{LOWER ONE EIGHTH BLOCK}", " ").encode("utf-8", "replace")

    def most_characters(self, window: int) -> int | None:
        """How many characters, white space around them not counted, `window` tokens can hold at the very most.

        `None` where no such bound exists: where unknown characters share a token, or a normalizer may delete any
        number of them.
        """
        model = self._structure.get("model") or {}
        normalizers, splitters = _kinds(self._structure.get("normalizer")), _kinds(self._structure.get("pre_tokenizer"))
        every_byte_has_a_token = model.get("byte_fallback") or "ByteLevel" in (*normalizers, *splitters)
        if model.get("type") != "BPE" or not every_byte_has_a_token:
            return None
        if not set(normalizers) <= {"NFC", "NFD", "Prepend", "ByteLevel", "Replace"} or self._replaces_with_less():
            return None
        if any(token.get("lstrip") or token.get("rstrip") for token in self._structure.get("added_tokens", ())):
            return None
        shrinkage = _COMPOSING_SHRINKAGE if "NFC" in normalizers else 1
        return window * shrinkage * max(map(len, self._tokens.values()))

    def _replaces_with_less(self) -> bool:
        normalizer = self._structure.get("normalizer") or {}
        for step in normalizer.get("normalizers", [normalizer]):
            if step.get("type") == "Replace":
                pattern = step["pattern"].get("String")
                if pattern is None or len(step["content"]) < len(pattern):
                    return True
        return False


class Detokenizer:
    """Turns one answer's tokens into text as they come.

    What has been given out, joined, is the decoded text of all tokens: text that the next token may still change (an
    incomplete UTF-8 character, a run of byte tokens) is held back. tokenizers' own `DecodeStream` gives an error there,
    when a run of byte tokens turns out not to be UTF-8.

    Args:
        vocabulary: The tokens' meaning.
    """

    def __init__(self, vocabulary: TokenDecoder) -> None:
        self._vocabulary = vocabulary
        self._ids: list[int] = []
        self._context = 0
        """Where the tokens begin that are decoded again, as context for those that are not given out yet."""
        self._given = 0
        """How many tokens have been given out."""
        self._context_text = ""
        self.text = ""
        """All that has been given out."""

    def push(self, id: int) -> str:
        """Takes the next token and returns the text that is certain now."""
        if not self._vocabulary.is_text(id):
            return ""
        self._ids.append(id)
        if id in self._vocabulary.bytes:
            return ""
        text = self._vocabulary.decode(self._ids[self._context :])
        if text.endswith(_REPLACEMENT) or len(text) <= len(self._context_text):
            return ""
        if not text.startswith(self._context_text):
            return ""
        new = text[len(self._context_text) :]
        if self._vocabulary.is_local:
            self._context = self._given
            self._context_text = self._vocabulary.decode(self._ids[self._context :])
        else:
            self._context_text = text
        self._given = len(self._ids)
        self.text += new
        return new

    def flush(self) -> str:
        """Returns what was held back, when no token follows."""
        text = self._vocabulary.decode(self._ids)
        new = text[len(self.text) :] if text.startswith(self.text) else ""
        self.text += new
        return new


def _kinds(part: dict[str, Any] | None) -> list[str]:
    """The types of a normalizer or pre-tokenizer and of those inside it."""
    if part is None:
        return []
    inner = part.get("normalizers", part.get("pretokenizers", []))
    return [kind for step in inner for kind in _kinds(step)] if inner else [part["type"]]


def _byte_characters() -> dict[str, int]:
    """The characters by which byte-level BPE writes bytes (the table of GPT-2's encoder.py)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return table | {chr(256 + index): byte for index, byte in enumerate(others)}
