"""Keeping what callers write from becoming control tokens, such as the end of a turn.

transformers does the same (`sanitize_control_tokens`), but takes two private characters out of every text, and searches
a text of one character per control token and character.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

from abstractllm.errors import InvalidRequestError
from abstractllm.validation import replace_surrogates

__all__ = ["ControlTokens"]

_PRIVATE = "\U000f0000-\U000ffffd\U00100000-\U0010fffd"
"""Characters without a meaning, of which two that a conversation does not hold mark its control tokens."""
_NEWLINE = "\n"
"""A text before a piece of a prompt, without which some tokenizers would write a space there."""


class ControlTokens:
    """The control tokens of a tokenizer and its chat templates; to be used from one thread.

    Args:
        tokenizer: A transformers tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        templates = tokenizer.chat_template or {}
        sources = [templates] if isinstance(templates, str) else list(templates.values())
        self._source = "".join(sources)
        """The texts of the chat templates: some tokenizers have another one for conversations with tools."""
        self._marked = _any_of(text for source in sources for text in tokenizer._get_control_tokens(source))
        self._added = _any_of(text for text in tokenizer.added_tokens_encoder if not text.isspace())
        self._newline: list[int] = tokenizer.encode(_NEWLINE, add_special_tokens=False)
        self._ids_as_text: dict[str, list[int]] = {}

    def find(self, text: str) -> str | None:
        """Returns the first added token in a text; None if there is none."""
        match = self._added.search(text) if self._added else None
        return match.group() if match else None

    def encode(self, render: Callable[..., str], arguments: Mapping[str, Any]) -> list[int]:
        """Returns the tokens of a rendered conversation, in which its own control tokens are plain text.

        Args:
            render: Renders the arguments to the prompt.
            arguments: What the template is given: texts, numbers, lists and dictionaries of such. Control tokens in the
                dictionaries' keys are not recognized.

        Raises:
            InvalidRequestError: If a control token cannot be written as text, or no character is left to mark it.
        """
        begin, end = _free_characters(json.dumps(arguments, ensure_ascii=False) + self._source)
        marked = {name: self._mark(value, begin, end) for name, value in arguments.items()}
        # JSON in earlier calls and in schemas may hold escaped lone surrogates, which no tokenizer takes.
        prompt = replace_surrogates(render(**marked))
        # Functions of the template, such as `split`, may tear a pair of marks apart.
        pieces = re.split(f"{begin}([^{begin}{end}]*){end}|[{begin}{end}]", prompt)
        texts, as_text = pieces[::2], pieces[1::2]
        ids: list[int] = self._tokenizer.encode(texts[0], add_special_tokens=False)
        for control_token, text_ids in zip(as_text, self._encode_behind(texts[1:]), strict=True):
            if control_token:
                ids += self._encode_as_text(control_token)
            ids += text_ids
        return ids

    def _mark(self, value: Any, begin: str, end: str) -> Any:
        """Returns a value in which the control tokens of all texts are marked."""
        match value:
            case str():
                return self._marked.sub(f"{begin}\\g<0>{end}", value) if self._marked else value
            case dict():
                return {key: self._mark(inner, begin, end) for key, inner in value.items()}
            case list() | tuple():
                return [self._mark(inner, begin, end) for inner in value]
            case _:
                return value

    def _encode_behind(self, texts: list[str]) -> list[list[int]]:
        """Returns the tokens of texts inside a prompt."""
        held = [text for text in texts if text]
        if not held:
            return [[] for _ in texts]
        encoded = self._tokenizer([_NEWLINE + text for text in held], add_special_tokens=False)["input_ids"]
        tokens = iter([self._without_newline(ids, text) for ids, text in zip(encoded, held, strict=True)])
        return [next(tokens) if text else [] for text in texts]

    def _without_newline(self, ids: list[int], text: str) -> list[int]:
        if ids[: len(self._newline)] == self._newline:
            return ids[len(self._newline) :]
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _encode_as_text(self, text: str) -> list[int]:
        """Returns the tokens of a control token that is written as plain text, which are no control token."""
        ids = self._ids_as_text.get(text)
        if ids is None:
            ids = list(self._tokenizer._encode_without_added_tokens(_NEWLINE + text))
            if ids[: len(self._newline)] == self._newline:
                ids = ids[len(self._newline) :]
            else:
                ids = list(self._tokenizer._encode_without_added_tokens(text))
            if self._tokenizer.added_tokens_encoder.get(text) in ids:
                raise InvalidRequestError(
                    f"prompt: it holds {text[:80]!r}, which the model's tokenizer cannot tell from its control token",
                    field="prompt",
                    requested=text[:80],
                )
            if text in self._tokenizer.added_tokens_encoder:
                self._ids_as_text[text] = ids
        return ids


def _free_characters(text: str) -> tuple[str, str]:
    """Returns two private characters that a text does not hold.

    Raises:
        InvalidRequestError: If it holds all of them.
    """
    used = set(re.findall(f"[{_PRIVATE}]", text))
    characters = map(chr, chain(range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE)))
    free = (character for character in characters if character not in used)
    begin, end = next(free, ""), next(free, "")
    if not end:
        raise InvalidRequestError("prompt: it holds all private characters of Unicode", field="prompt")
    return begin, end


def _any_of(texts: Iterable[str]) -> re.Pattern[str] | None:
    """Returns a pattern of the longest of some texts at a place, which compares no character with each of the texts."""
    root: dict[str, Any] = {}
    for text in filter(None, texts):
        node = root
        for character in text:
            node = node.setdefault(character, {})
        node[""] = {}
    return re.compile(_alternatives(root)) if root else None


def _alternatives(node: dict[str, Any]) -> str:
    """Returns the pattern of what may follow at a node of a tree of texts by their characters; its end has no name."""
    branches = []
    for character, inner in node.items():
        if character:
            literal = re.escape(character)
            while len(inner) == 1 and "" not in inner:
                ((character, inner),) = inner.items()
                literal += re.escape(character)
            branches.append(literal + ("" if set(inner) == {""} else _alternatives(inner)))
    return f"(?:{'|'.join(branches)}){'?' if '' in node else ''}"
