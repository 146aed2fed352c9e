"""Compiling a format for trial, in a process that may be ended.

llguidance counts its work only now and then: an intersection of a dozen expressions takes it seconds, one of three
dozen for ever, and rules that lead to each other by the thousand overflow its stack. So a format is compiled first
where none of this matters. This file is also that process's program, and imports nothing else of ours.
"""

from __future__ import annotations

import json
import resource
import select
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from llguidance.gbnf_to_lark import any_to_lark

__all__ = ["LIMITS", "Sandbox"]

LIMITS: dict[str, Any] = {
    "max_items_in_row": 2000,
    "step_max_items": 50_000,
    "max_lexer_states": 25_000,  # of 1 to 2 kB each
    "max_grammar_size": 500_000,
    "verbose_errors": False,  # the long form quotes the answer
}
"""What llguidance bounds by itself."""
_SECONDS = 3
"""Of processor time for one format."""
_PATIENCE_SECONDS = 60.0
"""Of waiting for it, on a machine that does something else."""
_MEMORY_BYTES = 1 << 30
_STACK_BYTES = 32 << 20
"""Less than the engine's own thread has, so that what overflows it does so here."""
_JSON: Any = {
    "whitespace_flexible": False,  # a model could fill its whole window with spaces
    "item_separator": ", ?",
    "key_separator": ": ?",
    "lenient": False,
    "coerce_one_of": False,
}
"""How JSON is written: the options of llguidance's JSON compiler, over those that a schema may bring along."""
_TOKENS = 2
"""What is too complex mostly fails with the first of an answer."""


class Sandbox:
    """Says whether formats can be compiled; to be used from one thread.

    Args:
        size: Tokens of the vocabulary.
        special: Special tokens by id: a grammar may name them.
    """

    def __init__(self, size: int, special: Mapping[int, str]) -> None:
        self._vocabulary = json.dumps({"size": size, "special": dict(special)})
        self._processes: list[subprocess.Popen[bytes]] = []
        weakref.finalize(self, _end, self._processes)

    def compile(self, kind: str, text: str) -> tuple[str, str]:
        """Compiles a format.

        Args:
            kind: `json_object`, `json_schema`, `regex` or `grammar`.
            text: The schema, the expression or the grammar.

        Returns:
            The format as llguidance writes it, and why it cannot be compiled; empty if it can.
        """
        process = self._processes[0] if self._processes else self._start()
        assert process.stdin and process.stdout
        try:
            process.stdin.write(json.dumps((kind, text)).encode() + b"\n")
            process.stdin.flush()
            answered, _, _ = select.select([process.stdout], [], [], _PATIENCE_SECONDS)
            answer = process.stdout.readline() if answered else b""
        except BrokenPipeError:
            answer = b""
        if answer:
            definition, fault = json.loads(answer)
            return definition, fault
        _end(self._processes)
        return "", f"it takes more than {_SECONDS} seconds, {_MEMORY_BYTES >> 20} MiB or the stack there is to compile"

    def _start(self) -> subprocess.Popen[bytes]:
        # It ends by itself when its input ends, with the engine.
        process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdin
        process.stdin.write(self._vocabulary.encode() + b"\n")
        self._processes.append(process)
        return process


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    while processes:
        process = processes.pop()
        process.kill()
        process.communicate()


class _Bytes:
    """A vocabulary of single bytes, with a model's special tokens in their places."""

    bos_token_id = None

    def __init__(self, size: int, special: Mapping[str, str]) -> None:
        self.tokens = [b""] * (size + 257)
        self.tokens[size : size + 256] = [bytes([byte]) for byte in range(256)]
        self.eos_token_id = size + 256
        self.tokens[self.eos_token_id] = b"<end>"
        for id, name in special.items():
            self.tokens[int(id)] = name.encode()
        self.special_token_ids = [*map(int, special), self.eos_token_id]
        self._first = size

    def __call__(self, text: bytes) -> list[int]:
        return [self._first + byte for byte in text]


def _serve() -> None:
    """Compiles what comes, a line each, and says what is wrong with it."""
    vocabulary = json.loads(sys.stdin.buffer.readline())
    tokenizer = LLTokenizer(TokenizerWrapper(_Bytes(vocabulary["size"], vocabulary["special"])))
    tokens = range(vocabulary["size"], vocabulary["size"] + 256)
    for line in sys.stdin.buffer:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        used = int(usage.ru_utime + usage.ru_stime)
        resource.setrlimit(resource.RLIMIT_CPU, (used + _SECONDS, resource.RLIM_INFINITY))
        definition, fault = "", ""
        try:
            definition = _definition(*json.loads(line))
            fault = _fault(tokenizer, tokens, definition)
        except Exception as error:  # the converter from GBNF raises plain ones
            fault = f"{error}"
        sys.stdout.write(json.dumps((definition, fault)) + "\n")
        sys.stdout.flush()


def _definition(kind: str, text: str) -> str:
    """The format in llguidance's own form; a grammar without a rule `start` is taken for GBNF."""
    match kind:
        case "json_object":
            return LLMatcher.grammar_from_json_schema('{"type": "object"}', overrides=_JSON)
        case "json_schema":
            return LLMatcher.grammar_from_json_schema(text, overrides=_JSON)
        case "regex":
            return LLMatcher.grammar_from_regex(text)
        case _:
            return LLMatcher.grammar_from_lark(_as_lark(text))


def _as_lark(text: str) -> str:
    try:
        return any_to_lark(text)
    except Exception as error:
        raise ValueError(f"it has no rule start, and it is not GBNF: {error}") from error


def _fault(tokenizer: LLTokenizer, tokens: range, definition: str) -> str:
    matcher = LLMatcher(tokenizer, definition, log_level=0, limits=LLParserLimits(**LIMITS))
    for _ in range(_TOKENS):
        if matcher.is_error() or matcher.is_stopped():
            break
        mask = matcher.compute_bitmask()
        allowed = [id for id in tokens if mask[id // 8] >> id % 8 & 1]
        if not allowed:
            break
        matcher.consume_token(allowed[0])
    return matcher.get_error()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere it is not kept, or not taken
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, resource.RLIM_INFINITY))
    threading.stack_size(_STACK_BYTES)
    thread = threading.Thread(target=_serve)
    thread.start()
    thread.join()
