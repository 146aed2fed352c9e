"""The texts and bytes that a tokenizer's tokens stand for."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer

__all__ = ["TokenDecoder"]

_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
_CHARACTERS_PER_COMPOSED = 4
"""Canonical composition turns at most four characters into one, e.g. U+03B1 U+0313 U+0300 U+0345 into U+1F82."""
_BOUNDED_NORMALIZERS = {"NFC", "NFD", "Prepend", "ByteLevel", "Replace"}
"""Normalizers that delete no characters; `Replace` is looked at more closely."""
_POSITIONAL_DECODERS = {"ByteFallback", "Fuse", "Metaspace", "Replace", "Strip", "WordPiece"}
"""Decoders that give a token one text at the beginning and one everywhere else; two are looked at more closely."""
_CONTEXT_TOKENS = 8
"""Tokens whose text may depend on one another, where the decoder is not one of these."""
_CACHED_TOKENS = 1 << 16


class TokenDecoder:
    """Decodes the tokens of one tokenizer, each by what it adds to the text before it.

    A fast tokenizer is copied, so that decoding does not share it with the thread that tokenizes.

    Args:
        tokenizer: A transformers tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._slow = None if tokenizer.is_fast else tokenizer
        self._fast = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else None
        self._structure = json.loads(self._fast.to_str()) if self._fast else {}
        """The description of a fast tokenizer, as in `tokenizer.json`."""
        self._tokens: dict[int, str] = {id: token for token, id in tokenizer.get_vocab().items()}
        added = tokenizer.added_tokens_decoder
        self._added: dict[int, str] = {id: token.content for id, token in added.items()}
        special = frozenset(tokenizer.all_special_ids) | {id for id, token in added.items() if token.special}
        self.special_tokens = {id: self._added.get(id) or self._tokens.get(id, "") for id in special}
        """The names of the special tokens, which are not text, by id."""
        steps = _decoding_steps(self._structure.get("decoder"))
        types = {step["type"] for step in steps}
        self._is_byte_level = types in ({"ByteLevel"}, {"ByteLevel", "Fuse"})
        self._byte_tokens = frozenset(
            id for id, token in self._tokens.items() if "ByteFallback" in types and _BYTE_TOKEN.fullmatch(token)
        )
        """The tokens that stand for one byte."""
        self._is_positional = self._fast is not None and all(map(_is_positional, steps))
        self.is_exact = self._is_byte_level or self._is_positional
        """True if `token_bytes` is exact: the bytes of tokens, joined, are those of their text."""
        self.replaces_each_byte = not self._is_byte_level
        """True if the tokenizer shows each byte that is not UTF-8 as U+FFFD, false if each run that is cut short."""
        self.context_tokens = 1 if self.is_exact else _CONTEXT_TOKENS
        """The tokens before a token on which its text may depend."""
        self._cached_bytes = lru_cache(_CACHED_TOKENS)(self._uncached_bytes)

    def is_text(self, id: int) -> bool:
        """Tells whether a token stands for text: it is not special, and not an id without a token."""
        return id in self._tokens and id not in self.special_tokens

    def token_bytes(self, id: int, context: Sequence[int] = ()) -> bytes:
        """Returns the bytes that a token adds to the text; of a special one its name, of an id without a token none.

        Args:
            id: The token.
            context: The last tokens of the text before it; none at the beginning of a text.
        """
        if self.is_exact or not self.is_text(id):
            return self._cached_bytes(id, is_first=not context)
        return (self.added_text((id,), context) or self.decode((id,))).encode()

    def added_text(self, ids: Sequence[int], context: Sequence[int]) -> str | None:
        """Returns the text that tokens add to the text before them; None where they also change that text.

        Args:
            ids: The tokens, all of them text.
            context: The last tokens of the text before them; none at the beginning of a text.
        """
        before, text = self.decode(context), self.decode((*context, *ids))
        return text[len(before) :] if text.startswith(before) else None

    def _uncached_bytes(self, id: int, is_first: bool) -> bytes:
        if id in self.special_tokens:
            return self.special_tokens[id].encode()
        if id not in self._tokens:
            return b""
        if self._is_byte_level:
            return self._byte_level_bytes(id)
        token = self._tokens[id]
        if id in self._byte_tokens and not (is_first and token < "<0x80>"):  # a space may be stripped there
            return bytes([int(token[3:5], 16)])
        # Behind any token the text is the same, behind itself too.
        return (self.added_text((id,), () if is_first else (id,)) or "").encode()

    def _byte_level_bytes(self, id: int) -> bytes:
        """Returns the bytes for which the characters of a token stand; of an added token, which is text, its own."""
        token = self._tokens[id]
        content = self._added.get(id, token).encode("utf-8", "replace")
        if any(character not in _BYTE_OF_CHARACTER for character in token):
            return content
        mapped = bytes(_BYTE_OF_CHARACTER[character] for character in token)
        if id in self._added:
            try:
                mapped.decode()
            except UnicodeDecodeError:
                return content
        return mapped

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


def _decoding_steps(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Returns the decoders inside a decoder, or itself; none for a tokenizer without one."""
    if decoder is None:
        return []
    return (
        [step for inner in decoder["decoders"] for step in _decoding_steps(inner)]
        if "decoders" in decoder
        else [decoder]
    )


def _is_positional(decoder: dict[str, Any]) -> bool:
    """Tells whether a decoder gives a token the same text wherever it stands, except at the beginning."""
    if decoder["type"] == "Replace":
        pattern: str = decoder["pattern"].get("String", "")
        return len(pattern) == 1
    if decoder["type"] == "Strip":
        return bool(decoder["start"] <= 1 and decoder["stop"] == 0)
    return decoder["type"] in _POSITIONAL_DECODERS


def _byte_characters() -> dict[str, int]:
    """Returns the bytes by the characters that byte-level BPE writes for them (the table of GPT-2's encoder.py)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return table | {chr(256 + index): byte for index, byte in enumerate(others)}


_BYTE_OF_CHARACTER = _byte_characters()
