"""Answers held to a format: any JSON object, a JSON schema, a regular expression or a grammar, through llguidance.

A format is compiled once, outside the batch loop; each request gets a matcher of its own, which follows its answer and
says at every token which ones may come next.
"""

from __future__ import annotations

import codecs
import math
import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Any

import torch
from llguidance import LLExecutor, LLMatcher, LLParserLimits
from llguidance.hf import from_tokenizer

from abstractllm.errors import AbstractLLMError, InternalError, InvalidRequestError, UnsupportedFeatureError
from abstractllm.providers.huggingface.protocol.messages import Format
from abstractllm.providers.huggingface.worker.structured.sandbox import LIMITS, Sandbox
from abstractllm.providers.huggingface.worker.token_decoder import TokenDecoder

__all__ = ["ExactText", "Grammars", "Matcher", "forbid"]

_FIELDS = {
    "json_object": "response_format.json_object",
    "json_schema": "response_format.json_schema.schema_json",
    "regex": "response_format.regex",
    "grammar": "response_format.grammar",
}
_LIMITS = LLParserLimits(**LIMITS)
_TRIAL_TOKENS = 2
"""Tokens that every new format is tried with: one that is too complex mostly fails at the first."""
_CACHED = 32
_TOO_COMPLEX = {
    "to compile": "3 seconds of processor time",
    "recursion limit": "128 levels of nesting",
    "recursion depth": "1000 levels of nesting",
    "items; max is": f"{LIMITS['max_items_in_row']} alternatives at a place",
    "many items": f"{LIMITS['step_max_items']} parser items a token",
    "many states": f"{LIMITS['max_lexer_states']} lexer states",
    "many expressions": "expressions in the lexer",
    "exhausted": "steps of the lexer",
    "too large": f"{LIMITS['max_grammar_size']} symbols",
    "too big": f"{LIMITS['max_grammar_size']} symbols",
    "TooComplex": "steps of the parser",
}
"""Words of llguidance's errors about limits, and the limits."""


class Grammars:
    """Compiles formats for one model.

    Args:
        tokenizer: The model's transformers tokenizer.
        vocabulary: What its tokens stand for.
        size: Logits at each position.
        ends: Tokens that end an answer.
        markers: Special tokens that the format of a tool call may ask for.
    """

    def __init__(
        self,
        tokenizer: Any,
        vocabulary: TokenDecoder,
        size: int,
        ends: Collection[int],
        markers: Collection[int] = (),
    ) -> None:
        width = max(size, len(tokenizer))
        self.vocabulary = vocabulary
        self._ends = frozenset(ends)
        self.unavailable = ""
        """Why the model's answers cannot be held to a format; empty if they can."""
        try:
            self.tokenizer = from_tokenizer(tokenizer, n_vocab=width, eos_token=sorted(ends) or None)
        except Exception as error:  # llguidance has no exceptions of its own
            self.unavailable = f"its tokenizer cannot be used for it: {error}".splitlines()[0][:300]
        text = [id for id in range(size) if id in ends or vocabulary.is_text(id)]
        self.text = _packed(width, text)
        """`[bytes]`: one bit for each token that a caller's format may allow at all: text, and the end."""
        self.marked = _packed(width, [*text, *markers])
        """`[bytes]`: those, and the markers."""
        self.endless = _packed(width, [id for id in range(size) if id not in ends])
        """`[bytes]`: all but the end: what may come before the format holds."""
        self.masks = torch.zeros((0, len(self.text)), dtype=torch.uint8)
        """`[rows, bytes]`: kept from step to step, for the thread that draws."""
        self.executor = LLExecutor()
        self._trial = Sandbox(width, {id: token.content for id, token in tokenizer.added_tokens_decoder.items()})
        self._compiled: OrderedDict[tuple[str, str], LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, format: Format, field: str | None = None) -> Matcher:
        """Compiles a format, or finds it among the last ones, and gives a matcher for one answer.

        The compiler is recursive: strange formats need a thread with a large stack.

        Args:
            format: What the answer must be.
            field: What a tool call's comes from, for errors; absent for a response format.

        Raises:
            InvalidRequestError: If it is malformed, unsatisfiable, uses what is not supported, or is too complex.
            UnsupportedFeatureError: If the model's answers cannot be held to a format.
        """
        allowed = self.text if field is None else self.marked
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
            if len(self._compiled) > _CACHED:
                self._compiled.popitem(last=False)
        return Matcher(self, compiled.deep_copy(), field, allowed)

    def _compile(self, format: Format, field: str, allowed: torch.Tensor) -> LLMatcher:
        definition, fault = self._trial.compile(format.kind, format.text)
        if fault:
            raise _refused(field, fault)
        compiled = LLMatcher(self.tokenizer, definition, log_level=0, limits=_LIMITS)
        if compiled.is_error():
            raise _refused(field, compiled.get_error())
        trial = Matcher(self, compiled.deep_copy(), field, allowed)
        for _ in range(_TRIAL_TOKENS):
            tokens = [token for token in trial.allowed_tokens() if token not in self._ends]
            if not tokens or trial.is_complete:
                break
            trial.accept(tokens[-1])
        return compiled


class Matcher:
    """Follows one answer and says which tokens may come next.

    Args:
        grammars: What it was compiled by.
        inner: llguidance's matcher.
        field: Where the caller gave the format.
        allowed: `[bytes]`: one bit for each token that it may allow at all.
    """

    def __init__(self, grammars: Grammars, inner: LLMatcher, field: str, allowed: torch.Tensor) -> None:
        self.grammars = grammars
        self.inner = inner
        self.allowed = allowed
        self._field = field
        self.is_on = True
        """Whether the format holds already: not while the model still thinks."""
        self.preamble: int | None = None
        """A token that may come first although the format has no place for it: the format then holds later."""
        self.error: AbstractLLMError | None = None
        """Why it cannot go on."""

    @property
    def is_complete(self) -> bool:
        """Whether the format is fulfilled and nothing but the end may follow."""
        return self.inner.is_stopped() and not self.inner.is_error() and self.inner.is_accepting()

    def accept(self, token: int) -> None:
        """Takes the next token of the answer, which is not an end token.

        Raises:
            InvalidRequestError: If the format turns out to be too complex, or to allow nothing that the model can say.
            InternalError: If the token is not one that was allowed.
        """
        preamble, self.preamble = self.preamble, None
        if token == preamble:
            self.is_on = False
            return
        if self.error is None:
            self.inner.consume_token(token)
            self.check()
        if self.error is not None:
            raise self.error

    def allowed_tokens(self) -> list[int]:
        """The tokens that may come next, end tokens included; for all requests of a batch together see `forbid`.

        Raises:
            InvalidRequestError: If the format is too complex, or allows none.
        """
        whole = torch.frombuffer(bytearray(self.inner.compute_bitmask()), dtype=torch.uint8)
        mask = whole[: len(self.allowed)] & self.allowed
        self.check(bool(mask.any()))
        if self.error is not None:
            raise self.error
        found: list[int] = (_FORBIDDING[mask.long()].flatten() == 0).nonzero().squeeze(1).tolist()
        return found

    def check(self, may_go_on: bool = True) -> None:
        """Notes what is wrong, if anything is.

        Args:
            may_go_on: Whether any token is allowed.
        """
        if self.inner.is_error():
            error = _refused(self._field, self.inner.get_error())
            self.error = error if error.limit else InternalError(error.message)
        elif not may_go_on:
            self.error = _refused(self._field, "it allows no further token that is text")


class ExactText:
    """Turns tokens into the text that a matcher takes them for; a `Detokenizer` may, say, strip a leading space.

    Args:
        grammars: Of the model.
    """

    def __init__(self, grammars: Grammars) -> None:
        self._grammars = grammars
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.text = ""
        """All that has been given out."""

    def push(self, id: int) -> str:
        """Takes the next token and returns the text that is certain now."""
        if not self._grammars.vocabulary.is_text(id):
            return ""
        return self._give(self._decoder.decode(self._grammars.tokenizer.decode_bytes([id])))

    def flush(self) -> str:
        """Returns what was held back, when no token follows."""
        return self._give(self._decoder.decode(b"", True))

    def _give(self, text: str) -> str:
        self.text += text
        return text


def forbid(logits: torch.Tensor, matchers: Sequence[Matcher], places: Sequence[int]) -> None:
    """Puts the logits of all tokens that must not come next at minus infinity.

    A matcher that cannot go on notes its error and forbids only special tokens: its request fails with the next token.

    Args:
        logits: `[rows, vocabulary]`, changed in place.
        matchers: Of the requests that have a format.
        places: The row of each.
    """
    masks, table = _masks(matchers).to(logits.device), _FORBIDDING.to(logits)
    for mask, place in zip(masks, places, strict=True):
        # Adding is eight times as fast as filling where a mask says so: random bits mislead a branch.
        logits[place].add_(table.index_select(0, mask.int()).flatten()[: logits.shape[1]])


def _masks(matchers: Sequence[Matcher]) -> torch.Tensor:
    """`[matchers, bytes]`: one bit for each token that may come next, until the next call."""
    grammars = matchers[0].grammars
    if len(grammars.masks) < len(matchers):
        grammars.masks = grammars.masks.new_zeros((len(matchers), grammars.masks.shape[1]))
    masks = grammars.masks[: len(matchers)]
    holding = [(matcher.inner, index) for index, matcher in enumerate(matchers) if matcher.is_on]
    if holding:  # llguidance refuses to do nothing
        grammars.executor.unsafe_compute_mask_ptr(holding, masks.data_ptr(), masks.shape[1], len(masks))
    for matcher, mask in zip(matchers, masks, strict=True):
        mask &= matcher.allowed
    speaking = masks.any(dim=1).tolist()
    for matcher, mask, speaks in zip(matchers, masks, speaking, strict=True):
        if not matcher.is_on:
            mask.copy_(grammars.endless)
            continue
        matcher.check(speaks)
        if matcher.error is not None:
            mask.copy_(matcher.allowed)
        elif matcher.preamble is not None:
            mask[matcher.preamble // 8] |= 1 << matcher.preamble % 8
    return masks


_SHIFTS = torch.arange(8, dtype=torch.uint8)


def _packed(width: int, tokens: Sequence[int]) -> torch.Tensor:
    """A mask with the bits of some tokens, as long as llguidance writes them: in words of 32 bits."""
    bits = torch.zeros(-(-width // 32) * 32, dtype=torch.uint8)
    bits[list(tokens)] = 1
    return (bits.view(-1, 8) << _SHIFTS).sum(dim=1, dtype=torch.uint8)


_FORBIDDING = torch.where(torch.arange(256)[:, None] >> torch.arange(8) & 1 > 0, 0.0, -math.inf)
"""`[256, 8]`: what a byte of a mask adds to the logits of its tokens."""


def _refused(field: str, reason: str) -> InvalidRequestError:
    words = " ".join(reason.replace("<non-verbose/>", "").split())[:500]
    limit = next((limit for phrase, limit in _TOO_COMPLEX.items() if phrase in reason), None)
    if limit is not None:
        words = f"it is too complex: {words}"
    return InvalidRequestError(f"{field}: {words}", field=field, limit=limit)
