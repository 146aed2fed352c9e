"""Compiling the formats that answers must have, by llguidance.

A format is compiled once, outside the batch loop. Each request gets a matcher, which follows its answer.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from llguidance import LLMatcher, LLParserLimits
from llguidance.hf import from_tokenizer

from abstractllm.errors import InvalidRequestError, OverloadedError, UnsupportedFeatureError
from abstractllm.providers.huggingface.protocol.messages import Format
from abstractllm.providers.huggingface.worker.structured.forced_call import ForcedCall, ForcedTool, invalid_tool
from abstractllm.providers.huggingface.worker.structured.format_cache import (
    CompiledFormat,
    FormatCache,
    FormatKey,
    format_key,
)
from abstractllm.providers.huggingface.worker.structured.format_errors import complex_format, invalid_format
from abstractllm.providers.huggingface.worker.structured.grammar_schemas import prepare_grammar
from abstractllm.providers.huggingface.worker.structured.matcher import Matcher
from abstractllm.providers.huggingface.worker.structured.sandbox import JSON_STYLE, LIMITS, Sandbox, Trial
from abstractllm.providers.huggingface.worker.structured.schema_errors import SchemaError
from abstractllm.providers.huggingface.worker.structured.schema_faults import find_fault
from abstractllm.providers.huggingface.worker.structured.schema_grammar import compiler_input
from abstractllm.providers.huggingface.worker.structured.schema_numbers import parse_schema
from abstractllm.providers.huggingface.worker.structured.schema_preparation import prepare_schema
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
_NO_FORCING = '%llguidance {"no_forcing": true}'
_RETRY_SECONDS = 5.0
_DIAGNOSED_TOOLS = 16
"""Required tools that are tried one by one, to find the one at fault."""


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
        self._cache = FormatCache()
        added = tokenizer.added_tokens_decoder.items()
        is_special = () if self.unavailable else (id for id, _ in added if self.tokenizer.is_special_token(id))
        self.special_tokens = {id: tokenizer.added_tokens_decoder[id].content for id in is_special}
        """The tokens, by id, that stand for no text in a format, though their text may be in one."""

    def cached(self, key: FormatKey) -> Matcher | None:
        """Returns a matcher for one answer, if the format is among the last ones that were compiled.

        Raises:
            AbstractLLMError: If the format is among the last ones that were refused.
        """
        compiled = self._cache.get(key)
        if compiled is None:
            return None
        return Matcher(self._masks, compiled.matcher.deep_copy(), compiled.field, compiled.allowed)

    def compile(
        self, format: Format | ForcedCall, field: str | None = None, *, key: FormatKey | None = None
    ) -> Matcher:
        """Compiles a format, unless it is among the last ones, and returns a matcher for one answer.

        The compiler is recursive: a deeply nested format needs a thread with a large stack. To be used from several
        threads at a time.

        Args:
            format: The format.
            field: The field of the request that errors name, for the format of a tool call; None for a response format.
            key: The key under which it is kept; None for that of its text.

        Raises:
            InvalidRequestError: If it is malformed, unsatisfiable or too complex, or uses what is not supported.
            OverloadedError: If the machine is too busy to tell.
            UnsupportedFeatureError: If the model's answers cannot be held to a format.
        """
        call = format if isinstance(format, ForcedCall) else None
        if isinstance(format, ForcedCall):
            format, field = format.format, field or "tools"
        key = key or format_key(format.kind, format.text, field or "")
        if (matcher := self.cached(key)) is not None:
            return matcher
        try:
            compiled = self._compile(format, field, call)
        except (InvalidRequestError, UnsupportedFeatureError) as error:
            self._cache.refuse(key, error)
            raise
        self._cache.keep(key, compiled)
        return Matcher(self._masks, compiled.matcher.deep_copy(), compiled.field, compiled.allowed)

    def refuse(self, key: FormatKey, error: InvalidRequestError) -> None:
        """Keeps the error of a format that was refused before it could be compiled."""
        self._cache.refuse(key, error)

    def _compile(self, format: Format, field: str | None, call: ForcedCall | None) -> CompiledFormat:
        allowed = self._masks.text if field is None else self._masks.text_and_markers
        field = field or _FIELDS[format.kind]
        if self.unavailable:
            raise UnsupportedFeatureError(
                f"{field}: this model's answers cannot be held to a format: {self.unavailable}", field=field
            )
        try:
            definition = self._definition(format, field, call)
        except SchemaError as error:
            raise invalid_format(field, str(error), error.limit) from error
        except TimeoutError as error:
            raise OverloadedError(f"{field}: {error}", field=field, retry_after=_RETRY_SECONDS) from error
        compiled = LLMatcher(self.tokenizer, definition, log_level=0, limits=_LIMITS)
        if compiled.is_error():  # the sandbox compiled it, with a vocabulary of bytes
            raise complex_format(field, compiled.get_error(), "llguidance's limits, with this model's vocabulary")
        matcher = Matcher(self._masks, compiled.deep_copy(), field, allowed)
        for _ in range(_CHECKED_TOKENS):
            tokens = [token for token in matcher.allowed_tokens() if token not in self._ends]
            if not tokens or matcher.is_complete:
                break
            matcher.accept(tokens[-1])
        return CompiledFormat(compiled, field, allowed)

    def _definition(self, format: Format, field: str, call: ForcedCall | None) -> str:
        """Returns a format in llguidance's own form.

        Raises:
            InvalidRequestError: If it cannot be compiled.
            SchemaError: If answers cannot be held to its schema.
            TimeoutError: If the machine is too busy to tell.
        """
        schema, kind, text = None, format.kind, format.text
        if kind == "json_schema":
            schema = prepare_schema(_parsed(text))
            kind, text = compiler_input(schema, JSON_STYLE)
        elif kind == "grammar" and call is None:
            text = prepare_grammar(text)
        trial = self._sandbox.compile(kind, text)
        if not trial.error:
            return _unforced(trial.definition) if self._holds_special_text(text) else trial.definition
        if trial.limit is not None and call is None:
            raise complex_format(field, trial.error, trial.limit)
        if schema is not None and schema.inexact:  # the same with rounded numbers has the same faults
            trial = self._sandbox.compile("json_schema", json.dumps(schema.schema), is_final=False)
            if trial.limit is not None or not trial.error:
                raise SchemaError((), "it is unsatisfiable, or cannot be held to beside its large numbers")
        if schema is not None:
            raise find_fault(schema, trial.error, self._try_schema)
        for tool in () if call is None else call.tools[:_DIAGNOSED_TOOLS]:
            if error := self._error_of_tool(tool, len(call.tools) == 1, trial):  # type: ignore[union-attr]
                raise error
        if trial.limit is not None:
            raise complex_format(field, trial.error, trial.limit)
        raise invalid_format(field, trial.error)

    def _holds_special_text(self, text: str) -> bool:
        """Returns True if a format may hold the text of a token that stands for no text."""
        plain = text.replace("\\", "")
        return any(
            special in text or special in plain or json.dumps(special)[1:-1] in text
            for special in self.special_tokens.values()
        )

    def _error_of_tool(self, tool: ForcedTool, is_only_one: bool, together: Trial) -> InvalidRequestError | None:
        """Returns the error of a tool because of which a call cannot be compiled; None if it is not because of it."""
        if tool.schema.inexact:
            return None
        options = {"x-guidance": tool.schema.options}
        trial = self._try_schema(tool.schema.schema | options)
        if not trial.error and not is_only_one:
            return None
        limit = trial.limit or together.limit
        if trial.error and limit is None:
            return invalid_tool(tool.index, tool.name, find_fault(tool.schema, trial.error, self._try_schema))
        reason = trial.error or together.error
        reason = reason if limit is None else f"it is too complex: {reason}"
        return invalid_tool(tool.index, tool.name, SchemaError((), reason, limit))

    def _try_schema(self, schema: Any) -> Trial:
        return self._sandbox.compile("json_schema", json.dumps(schema), is_final=False)


def _unforced(definition: str) -> str:
    """Returns a format in which the model chooses the tokens of a text that is certain, too.

    llguidance would take those of the tokenizer, which makes the text of a special token the token.
    """
    rules = definition
    if definition.lstrip().startswith("{"):
        (grammar,) = json.loads(definition)["grammars"]
        rules = grammar.get("lark_grammar") or f"start: %json {json.dumps(grammar['json_schema'])}"
    return json.dumps({"grammars": [{"lark_grammar": f"{_NO_FORCING}\n{rules}"}]})


def _parsed(text: str) -> dict[str, Any]:
    try:
        schema = parse_schema(text)
    except (ValueError, RecursionError) as error:
        raise SchemaError((), f"it is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise SchemaError((), "it must be a JSON object")
    return schema
