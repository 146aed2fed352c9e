"""Compiling a format in a sandbox: a process that may run out of time, memory or stack.

llguidance checks its limits only now and then: an intersection of a dozen expressions takes it seconds, one of three
dozen never ends, and a chain of thousands of rules overflows its stack. So each format is compiled in the sandbox
first. This file is also the program of that process, and imports nothing else of this package.
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
"""The limits that llguidance checks."""
_CPU_SECONDS = 3
"""Processor time for one format."""
_TIMEOUT_SECONDS = 60.0
"""The longest wait for it, on a machine that is busy with something else."""
_MEMORY_BYTES = 1 << 30
_STACK_BYTES = 32 << 20
"""Less than the engine's compiling thread has, so that a format which overflows a stack overflows this one."""
_JSON_OPTIONS: Any = {
    "whitespace_flexible": False,  # a model could fill its whole context window with spaces
    "item_separator": ", ?",
    "key_separator": ": ?",
    "lenient": False,
    "coerce_one_of": False,
}
"""Options of llguidance's JSON compiler; they override those that a schema may contain."""
_CHECKED_TOKENS = 2
"""Tokens that a format is tried with: one that is too complex mostly fails with the first."""


class Sandbox:
    """Tries whether formats can be compiled; to be used from one thread.

    Args:
        size: Tokens of the vocabulary.
        special: The special tokens, by id: a grammar may name them.
    """

    def __init__(self, size: int, special: Mapping[int, str]) -> None:
        self._vocabulary = json.dumps({"size": size, "special": dict(special)})
        self._processes: list[subprocess.Popen[bytes]] = []
        weakref.finalize(self, _end_all, self._processes)

    def compile(self, kind: str, text: str) -> tuple[str, str]:
        """Compiles a format.

        Args:
            kind: `json_object`, `json_schema`, `regex` or `grammar`.
            text: The schema, the expression or the grammar.

        Returns:
            The format in llguidance's own form, and the reason why it cannot be compiled, which is empty if it can.
        """
        process = self._processes[0] if self._processes else self._start()
        assert process.stdin and process.stdout
        try:
            process.stdin.write(json.dumps((kind, text)).encode() + b"\n")
            process.stdin.flush()
            readable, _, _ = select.select([process.stdout], [], [], _TIMEOUT_SECONDS)
            reply = process.stdout.readline() if readable else b""
        except BrokenPipeError:
            reply = b""
        if reply:
            definition, error = json.loads(reply)
            return definition, error
        _end_all(self._processes)
        return "", (
            f"it takes more than {_CPU_SECONDS} seconds of processor time, {_MEMORY_BYTES >> 20} MiB of memory or "
            f"{_STACK_BYTES >> 20} MiB of stack to compile"
        )

    def _start(self) -> subprocess.Popen[bytes]:
        # It ends when its input ends: with the engine at the latest.
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


def _end_all(processes: list[subprocess.Popen[bytes]]) -> None:
    while processes:
        process = processes.pop()
        process.kill()
        process.communicate()


class _ByteTokenizer:
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
    """Compiles the formats that come in, one on each line, and writes a line with the result of each."""
    vocabulary = json.loads(sys.stdin.buffer.readline())
    tokenizer = LLTokenizer(TokenizerWrapper(_ByteTokenizer(vocabulary["size"], vocabulary["special"])))
    tokens = range(vocabulary["size"], vocabulary["size"] + 256)
    for line in sys.stdin.buffer:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        used = int(usage.ru_utime + usage.ru_stime)
        resource.setrlimit(resource.RLIMIT_CPU, (used + _CPU_SECONDS, resource.RLIM_INFINITY))
        definition, error = "", ""
        try:
            definition = _definition(*json.loads(line))
            error = _error(tokenizer, tokens, definition)
        except Exception as exception:  # the converter from GBNF raises plain ones
            error = f"{exception}"
        sys.stdout.write(json.dumps((definition, error)) + "\n")
        sys.stdout.flush()


def _definition(kind: str, text: str) -> str:
    """Returns a format in llguidance's own form; a grammar without a rule `start` is taken for GBNF."""
    match kind:
        case "json_object":
            return LLMatcher.grammar_from_json_schema('{"type": "object"}', overrides=_JSON_OPTIONS)
        case "json_schema":
            return LLMatcher.grammar_from_json_schema(text, overrides=_JSON_OPTIONS)
        case "regex":
            return LLMatcher.grammar_from_regex(text)
        case _:
            return LLMatcher.grammar_from_lark(_as_lark(text))


def _as_lark(text: str) -> str:
    try:
        return any_to_lark(text)
    except Exception as error:
        raise ValueError(f"it has no rule start, and it is not GBNF: {error}") from error


def _error(tokenizer: LLTokenizer, tokens: range, definition: str) -> str:
    """Returns llguidance's error about a format and the first tokens of an answer; empty if there is none."""
    matcher = LLMatcher(tokenizer, definition, log_level=0, limits=LLParserLimits(**LIMITS))
    for _ in range(_CHECKED_TOKENS):
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
    if sys.platform == "linux":  # other systems ignore it or refuse it
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, resource.RLIM_INFINITY))
    threading.stack_size(_STACK_BYTES)
    thread = threading.Thread(target=_serve)
    thread.start()
    thread.join()
