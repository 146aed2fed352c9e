"""Random answers that a schema allows, byte by byte: a model of nothing but the format."""

from __future__ import annotations

import json
import random
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from abstractllm.providers.huggingface.worker.structured import sandbox
from abstractllm.providers.huggingface.worker.structured.schema_grammar import compiler_input
from abstractllm.providers.huggingface.worker.structured.schema_numbers import parse_schema
from abstractllm.providers.huggingface.worker.structured.schema_preparation import prepare_schema

__all__ = ["accepts", "answers", "compile_schema", "texts"]

_TOKENIZER = LLTokenizer(TokenizerWrapper(sandbox._ByteTokenizer(0, {})))
_ENDS = b'"}],:'
_LONGEST = 300


def compile_schema(text: str) -> LLMatcher:
    """The matcher of a schema; raises SchemaError where it is refused by its words, ValueError by the compiler."""
    definition = sandbox._definition(*compiler_input(prepare_schema(parse_schema(text)), sandbox.JSON_STYLE))
    matcher = LLMatcher(_TOKENIZER, definition, log_level=0, limits=LLParserLimits(**sandbox.LIMITS))
    if matcher.is_error():
        raise ValueError(matcher.get_error())
    return matcher


def accepts(matcher: LLMatcher, text: str) -> bool:
    matcher = matcher.deep_copy()
    data = text.encode()
    return matcher.try_consume_tokens([*data]) == len(data) and matcher.is_accepting()


def answers(matcher: LLMatcher, count: int, seed: int = 0) -> list[Any]:
    """Values of answers that ended by themselves, out of some tries."""
    return [json.loads(text) for text in texts(matcher, count, seed)]


def texts(matcher: LLMatcher, count: int, seed: int = 0) -> list[bytes]:
    """Answers that ended by themselves, out of some tries."""
    chance = random.Random(seed)
    return [text for _ in range(count) if (text := _answer(matcher.deep_copy(), chance)) is not None]


def _answer(matcher: LLMatcher, chance: random.Random) -> bytes | None:
    answer = bytearray()
    while not matcher.is_stopped() and not (matcher.is_accepting() and chance.random() < 0.4):
        mask = matcher.compute_bitmask()
        allowed = [byte for byte in range(256) if mask[byte // 8] >> byte % 8 & 1]
        if not allowed:
            assert matcher.is_accepting(), f"stuck after {bytes(answer)!r}: {matcher.get_error()}"
            break
        ends = [byte for byte in allowed if byte in _ENDS]
        plain = [byte for byte in allowed if 32 <= byte < 127]
        choice = chance.random()
        if ends and (choice < 0.5 or len(answer) > _LONGEST):
            allowed = ends
        elif plain and choice < 0.85:
            allowed = plain
        byte = chance.choice(allowed)
        answer.append(byte)
        assert matcher.consume_token(byte), matcher.get_error()
        if len(answer) > 2 * _LONGEST:
            return None
    return bytes(answer)
