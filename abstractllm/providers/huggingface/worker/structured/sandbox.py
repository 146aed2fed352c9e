"""Compiling a format in a sandbox: a process that may run out of time, memory or stack.

llguidance checks its limits only now and then: an intersection of a dozen expressions takes it seconds, one of three
dozen never ends, and a chain of thousands of rules overflows its stack. So each format is compiled in the sandbox
first. This file is also the program of that process, and imports nothing else of this package.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from llguidance.gbnf_to_lark import any_to_lark

__all__ = ["JSON_STYLE", "LIMITS", "Sandbox", "Trial"]

LIMITS: dict[str, Any] = {
    "max_items_in_row": 2000,
    "step_max_items": 50_000,
    "max_lexer_states": 25_000,  # of 1 to 2 kB each
    "max_grammar_size": 500_000,
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 200_000,
    "verbose_errors": False,  # the long form quotes the answer
}
"""The limits that llguidance checks."""
_LIMIT_TEXTS = {
    "max_items_in_row": f"{LIMITS['max_items_in_row']} alternatives at a place",
    "step_max_items": f"{LIMITS['step_max_items']} parser items a token",
    "max_lexer_states": f"{LIMITS['max_lexer_states']} lexer states",
    "max_grammar_size": f"{LIMITS['max_grammar_size']} symbols",
    "initial_lexer_fuel": f"{LIMITS['initial_lexer_fuel']} steps to build the lexer",
    "step_lexer_fuel": f"{LIMITS['step_lexer_fuel']} steps of the lexer a token",
}
_RAISED = 1000
"""The factor by which a limit is raised, to learn whether it is the one that a format is beyond."""
_CPU_SECONDS = 3
"""Processor time for one format."""
_TIMEOUT_SECONDS = 60.0
"""The longest wait for it, on a machine that is busy with something else."""
_MEMORY_BYTES = 1 << 30
_STACK_BYTES = 32 << 20
"""Less than the engine's compiling thread has, so that a format which overflows a stack overflows this one."""
_OUT_OF_MEMORY = 3
"""The status with which the process ends where Python has no memory left."""
_NESTING_TEXT = "1000 levels of nesting"
JSON_STYLE: Any = {
    "whitespace_flexible": False,  # a model could fill its whole context window with spaces
    "item_separator": ", ?",
    "key_separator": ": ?",
}
"""Options of llguidance's JSON compiler for white space."""
_JSON_OPTIONS: Any = JSON_STYLE | {"lenient": False, "coerce_one_of": False}
"""Options of llguidance's JSON compiler; they override those that a schema may contain."""
_CHECKED_TOKENS = 2
"""Tokens that a format is tried with: one that is too complex mostly fails with the first."""


@dataclass(frozen=True)
class Trial:
    """The outcome of compiling a format."""

    definition: str = ""
    """The format in llguidance's own form."""
    error: str = ""
    """The reason why it cannot be compiled; empty if it can."""
    limit: str | None = None
    """The limit that it is beyond, if that is the reason."""
    seconds: float = 0.0
    """Processor time that it took."""


class Sandbox:
    """Tries whether formats can be compiled; a process for each thread that does so at a time.

    Args:
        size: Tokens of the vocabulary.
        special: The special tokens, by id: a grammar may name them.
    """

    def __init__(self, size: int, special: Mapping[int, str]) -> None:
        self._vocabulary = json.dumps({"size": size, "special": dict(special)})
        self._idle: list[subprocess.Popen[bytes]] = []
        weakref.finalize(self, _end_all, self._idle)

    def compile(self, kind: str, text: str, *, is_final: bool = True) -> Trial:
        """Compiles a format.

        Args:
            kind: `json_object`, `json_schema`, `regex` or `grammar`.
            text: The schema, the expression or the grammar.
            is_final: False if the limit behind an error does not matter.

        Raises:
            TimeoutError: If the machine is too busy to tell.
            RuntimeError: If the process ended for a reason that is not the format's.
        """
        trial = self._try(kind, text)
        if is_final and trial.error and trial.limit is None and trial.definition:
            return replace(trial, limit=self._limit_behind(kind, text, trial.error))
        return trial

    def _limit_behind(self, kind: str, text: str, error: str) -> str | None:
        """Returns the limit whose raising changes an error, as the words of the error may be the caller's own."""
        trial = self._try(kind, text, *_LIMIT_TEXTS)
        if trial.error == error:
            return None
        seconds = trial.seconds
        for name, limit in _LIMIT_TEXTS.items():
            if seconds > 2 * _CPU_SECONDS:
                break
            trial = self._try(kind, text, name)
            seconds += trial.seconds
            if trial.error != error:
                return limit
        return "several limits of the compiler"

    def _try(self, kind: str, text: str, *raised: str) -> Trial:
        process = self._idle.pop() if self._idle else self._start()
        assert process.stdin and process.stdout
        is_over = False
        try:
            process.stdin.write(json.dumps((kind, text, raised)).encode() + b"\n")
            process.stdin.flush()
            readable, _, _ = select.select([process.stdout], [], [], _TIMEOUT_SECONDS)
            is_over = not readable
            reply = process.stdout.readline() if readable else b""
        except BrokenPipeError:
            reply = b""
        if reply:
            self._idle.append(process)
            return Trial(*json.loads(reply))
        if is_over:
            process.kill()
            process.communicate()
            raise TimeoutError(
                f"the machine had no {_CPU_SECONDS} seconds of processor time within {_TIMEOUT_SECONDS:.0f}"
            )
        process.communicate()
        limit = _limit_of_status(process.returncode)
        return Trial("", f"it takes more than {limit} to compile", limit, _CPU_SECONDS)

    def _start(self) -> subprocess.Popen[bytes]:
        # The program in this file does without it: importing the package would take longer than most compilations.
        from abstractllm.providers.huggingface.protocol.launcher import launch_command

        # It ends when its input ends: with the engine at the latest. Other signals are ignored, as in the engine.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        try:
            process = subprocess.Popen(
                launch_command(str(Path(__file__)), at_parents_end=signal.SIGKILL),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        assert process.stdin
        process.stdin.write(self._vocabulary.encode() + b"\n")
        return process


def _limit_of_status(status: int) -> str:
    """Returns the limit that the process was beyond, by the status with which it ended.

    Raises:
        RuntimeError: If it was none.
    """
    match -status:
        case signal.SIGXCPU:
            return f"{_CPU_SECONDS} seconds of processor time"
        case signal.SIGABRT:  # Rust's end where it gets no memory
            return f"{_MEMORY_BYTES >> 20} MiB of memory"
        case signal.SIGSEGV | signal.SIGBUS:
            return f"{_STACK_BYTES >> 20} MiB of stack"
    if status == _OUT_OF_MEMORY:
        return f"{_MEMORY_BYTES >> 20} MiB of memory"
    raise RuntimeError(f"the process that tries formats ended with the status {status}")


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
        began = time.process_time()
        resource.setrlimit(resource.RLIMIT_CPU, (int(began) + _CPU_SECONDS, resource.RLIM_INFINITY))
        definition, error, limit = "", "", None
        try:
            kind, text, raised = json.loads(line)
            definition = _definition(kind, text)
            error = _error(tokenizer, tokens, definition, raised)
        except MemoryError:
            os._exit(_OUT_OF_MEMORY)
        except RecursionError:
            error, limit = "it is nested too deeply", _NESTING_TEXT
        except (
            BaseException
        ) as exception:  # the converter from GBNF raises plain ones; a panic of Rust is none of those
            error = f"{exception}" or type(exception).__name__
        sys.stdout.write(json.dumps((definition, error, limit, time.process_time() - began)) + "\n")
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
    except RecursionError:
        raise
    except Exception as error:
        raise ValueError(f"it has no rule start, and it is not GBNF: {error}") from error


def _error(tokenizer: LLTokenizer, tokens: range, definition: str, raised: Collection[str]) -> str:
    """Returns llguidance's error about a format and the first tokens of an answer; empty if there is none."""
    limits = LIMITS | {name: LIMITS[name] * _RAISED for name in raised}
    matcher = LLMatcher(tokenizer, definition, log_level=0, limits=LLParserLimits(**limits))
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
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)  # the engine process ignores it, and hands that down
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # of which the engine process makes something else
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # other systems ignore it or refuse it
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, resource.RLIM_INFINITY))
    threading.stack_size(_STACK_BYTES)
    thread = threading.Thread(target=_serve)
    thread.start()
    thread.join()
