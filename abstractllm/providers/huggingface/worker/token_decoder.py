"""The texts and bytes that a tokenizer's tokens stand for."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

__all__ = ["TokenDecoder"]

_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
_CHARACTERS_PER_COMPOSED = 4
"""Canonical composition turns at most four characters into one, e.g. U+03B1 U+0313 U+0300 U+0345 into U+1F82."""
_BOUNDED_NORMALIZERS = {"NFC", "NFD", "Prepend", "ByteLevel", "Replace"}
"""Normalizers that delete no characters; `Replace` is looked at more closely."""


class TokenDecoder:
    """Decodes the tokens of one tokenizer.

    A fast tokenizer is copied, so that decoding does not share it with the thread that tokenizes.

    Args:
        tokenizer: A transformers tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._slow = None if tokenizer.is_fast else tokenizer
        self._fast = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else None
        self._structure = json.loads(self._fast.to_str()) if self._fast else {}
        """The description of a fast tokenizer, as in `tokenizer.json`."""
        decoder = json.dumps(self._structure.get("decoder"))
        self._byte_of_character = _byte_characters() if '"ByteLevel"' in decoder else None
        self._tokens: dict[int, str] = {id: token for token, id in tokenizer.get_vocab().items()}
        added = tokenizer.added_tokens_decoder
        self._added: dict[int, str] = {id: token.content for id, token in added.items()}
        self._special = frozenset(tokenizer.all_special_ids) | {id for id, token in added.items() if token.special}
        has_byte_tokens = '"ByteFallback"' in decoder
        self.byte_tokens = frozenset(
            id for id, token in self._tokens.items() if has_byte_tokens and _BYTE_TOKEN.fullmatch(token)
        )
        """The tokens that stand for one byte, and are decoded together with their neighbours."""
        self.is_local = self._fast is not None
        """True if a part of the tokens can be decoded without those before it."""

    def is_text(self, id: int) -> bool:
        """Tells whether a token stands for text: it is not special, and not an id without a token."""
        return id in self._tokens and id not in self._special

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of tokens without the special ones; a lone surrogate becomes a replacement character."""
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
        """Returns the bytes of one token; none for an id without a token."""
        token = self._tokens.get(id, "")
        if id in self._added:
            return self._added[id].encode()
        if id in self.byte_tokens:
            return bytes([int(token[3:5], 16)])
        if self._byte_of_character and all(character in self._byte_of_character for character in token):
            return bytes(self._byte_of_character[character] for character in token)
        return token.replace("\N{LOWER ONE EIGHTH BLOCK}", " ").encode("utf-8", "replace")

    def max_characters(self, window: int) -> int | None:
        """Returns the most characters, without white space around them, that a number of tokens can hold.

        Args:
            window: The number of tokens.

        Returns:
            None where there is no such bound: where unknown characters share a token, or a normalizer may delete any
            number of characters.
        """
        model = self._structure.get("model") or {}
        normalizers, splitters = _types(self._structure.get("normalizer")), _types(self._structure.get("pre_tokenizer"))
        every_byte_has_a_token = model.get("byte_fallback") or "ByteLevel" in (*normalizers, *splitters)
        if model.get("type") != "BPE" or not every_byte_has_a_token:
            return None
        if not set(normalizers) <= _BOUNDED_NORMALIZERS or self._has_shortening_replacement():
            return None
        if any(token.get("lstrip") or token.get("rstrip") for token in self._structure.get("added_tokens", ())):
            return None
        composed = _CHARACTERS_PER_COMPOSED if "NFC" in normalizers else 1
        return window * composed * max(map(len, self._tokens.values()))

    def _has_shortening_replacement(self) -> bool:
        """Tells whether the normalizer replaces any text by a shorter one."""
        normalizer = self._structure.get("normalizer") or {}
        for step in normalizer.get("normalizers", [normalizer]):
            if step.get("type") == "Replace":
                pattern = step["pattern"].get("String")
                if pattern is None or len(step["content"]) < len(pattern):
                    return True
        return False


def _types(part: dict[str, Any] | None) -> list[str]:
    """Returns the types of a normalizer or pre-tokenizer and of the steps inside it."""
    if part is None:
        return []
    inner = part.get("normalizers", part.get("pretokenizers", []))
    return [type for step in inner for type in _types(step)] if inner else [part["type"]]


def _byte_characters() -> dict[str, int]:
    """Returns the bytes by the characters that byte-level BPE writes for them (the table of GPT-2's encoder.py)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return table | {chr(256 + index): byte for index, byte in enumerate(others)}
