"""Compiling the formats that answers must have, by llguidance.

A format is compiled once, outside the batch loop. Each request gets a matcher, which follows its answer.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection
from typing import Any

import torch
from llguidance import LLMatcher, LLParserLimits
from llguidance.hf import from_tokenizer

from abstractllm.errors import UnsupportedFeatureError
from abstractllm.providers.huggingface.protocol.messages import Format
from abstractllm.providers.huggingface.worker.structured.format_errors import invalid_format
from abstractllm.providers.huggingface.worker.structured.matcher import Matcher
from abstractllm.providers.huggingface.worker.structured.sandbox import LIMITS, Sandbox
from abstractllm.providers.huggingface.worker.structured.token_masks import TokenMasks
from abstractllm.providers.huggingface.worker.token_decoder import TokenDecoder

__all__ = ["Grammars"]

_FIELDS = {
    "json_object": "response_format.json_object",
    "json_schema": "response_format.json_schema.schema_json",
    "regex": "response_format.regex",
    "grammar": "response_format.grammar",
}
_LIMITS = LLParserLimits(**LIMITS)
_CHECKED_TOKENS = 2
"""Tokens that a new format is tried with: one that is too complex mostly fails with the first."""
_CACHED_FORMATS = 32


class Grammars:
    """Compiles formats for one model.

    Args:
        tokenizer: The model's transformers tokenizer.
        decoder: The tokenizer's decoder.
        size: The number of logits at each position.
        ends: The tokens that end an answer.
        markers: The special tokens that the format of a tool call may contain.
    """

    def __init__(
        self, tokenizer: Any, decoder: TokenDecoder, size: int, ends: Collection[int], markers: Collection[int] = ()
    ) -> None:
        width = max(size, len(tokenizer))
        self._ends = frozenset(ends)
        self.unavailable = ""
        """The reason why the model's answers cannot be held to a format; empty if they can."""
        try:
            self.tokenizer = from_tokenizer(tokenizer, n_vocab=width, eos_token=sorted(ends) or None)
        except Exception as error:  # llguidance has no exceptions of its own
            self.unavailable = f"its tokenizer cannot be used for it: {error}".splitlines()[0][:300]
        self._masks = TokenMasks(
            width,
            text=[id for id in range(size) if id in ends or decoder.is_text(id)],
            markers=markers,
            unconstrained=[id for id in range(size) if id not in ends],
        )
        self._sandbox = Sandbox(width, {id: token.content for id, token in tokenizer.added_tokens_decoder.items()})
        self._compiled: OrderedDict[tuple[str, str], LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, format: Format, field: str | None = None) -> Matcher:
        """Compiles a format, unless it is among the last ones, and returns a matcher for one answer.

        The compiler is recursive: a deeply nested format needs a thread with a large stack.

        Args:
            format: The format.
            field: The field of the request that errors name, for the format of a tool call; None for a response format.

        Raises:
            InvalidRequestError: If it is malformed, unsatisfiable or too complex, or uses what is not supported.
            UnsupportedFeatureError: If the model's answers cannot be held to a format.
        """
        allowed = self._masks.text if field is None else self._masks.text_and_markers
        field = field or _FIELDS[format.kind]
        if self.unavailable:
            raise UnsupportedFeatureError(
                f"{field}: this model's answers cannot be held to a format: {self.unavailable}", field=field
            )
        key = (format.kind, format.text)
        with self._lock:
            compiled = self._compiled.pop(key, None)
        if compiled is None:
            compiled = self._compile(format, field, allowed)
        with self._lock:
            self._compiled[key] = compiled
            if len(self._compiled) > _CACHED_FORMATS:
                self._compiled.popitem(last=False)
        return Matcher(self._masks, compiled.deep_copy(), field, allowed)

    def _compile(self, format: Format, field: str, allowed: torch.Tensor) -> LLMatcher:
        definition, error = self._sandbox.compile(format.kind, format.text)
        if error:
            raise invalid_format(field, error)
        compiled = LLMatcher(self.tokenizer, definition, log_level=0, limits=_LIMITS)
        if compiled.is_error():
            raise invalid_format(field, compiled.get_error())
        matcher = Matcher(self._masks, compiled.deep_copy(), field, allowed)
        for _ in range(_CHECKED_TOKENS):
            tokens = [token for token in matcher.allowed_tokens() if token not in self._ends]
            if not tokens or matcher.is_complete:
                break
            matcher.accept(tokens[-1])
        return compiled
