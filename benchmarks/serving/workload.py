"""The workloads, and the protocol of the measuring processes: a line of JSON in, a line of JSON out."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

__all__ = [
    "SHORT",
    "VOCABULARY",
    "Figures",
    "Process",
    "StreamTimes",
    "Workload",
    "serve_workloads",
    "settings",
    "step_ms",
    "summarize",
]

VOCABULARY = 8192
SHORT = 16
"""Tokens of a short prompt."""


@dataclass(frozen=True)
class Workload:
    """Clients that all ask at once; each asks again when it is answered."""

    clients: int
    answers: int = 1
    """Answers for each client."""
    prompt_tokens: int = SHORT
    new_tokens: int = 64
    streaming: bool = True
    sampled: bool = False
    """True where every request has a temperature, top-k, top-p and seed of its own; otherwise all are greedy."""
    salt: int = 0
    """A number that makes the prompts differ from those of other runs, so that no prompt is in a prefix cache."""

    @property
    def tokens(self) -> int:
        """New tokens of all answers together."""
        return self.clients * self.answers * self.new_tokens

    def prompt(self, index: int) -> list[int]:
        """Returns the tokens of a request's prompt."""
        numbers = random.Random(f"{self.salt} {index}")
        return [numbers.randrange(1, VOCABULARY) for _ in range(self.prompt_tokens)]

    def text(self, index: int) -> str:
        """Returns the prompt as text, in which one word is one token."""
        return " ".join(f"w{token}" for token in self.prompt(index))


@dataclass(frozen=True)
class Figures:
    """The figures of one run of a workload; `None` where the run does not tell."""

    tokens_per_second: float
    first_token_ms: float | None = None
    """The median over all answers, from the request to the first text."""
    step_ms: float | None = None
    """A decode step, while all clients' answers grow and no prompt is being read."""
    cpu_ms_per_token: float | None = None
    """CPU time that the measured system, without the client, took for a token."""


@dataclass
class StreamTimes:
    """The times at which the tokens of one streamed answer came."""

    sent_at: float
    """The time at which the request was sent, in seconds."""
    tokens: list[tuple[float, int]] = dataclasses.field(default_factory=list)
    """The time at which each piece of text came, in seconds, and the number of tokens until then."""


def settings(index: int) -> dict[str, Any]:
    """Returns sampling settings that differ from request to request."""
    return {
        "temperature": 0.5 + index % 10 / 10,
        "top_k": 20 + index % 60,
        "top_p": 0.8 + index % 15 / 100,
    }


def summarize(workload: Workload, seconds: float, tokens: int, streams: Sequence[StreamTimes]) -> Figures:
    """Computes the figures of a run.

    Args:
        workload: The workload that was run.
        seconds: From the first request to the end of the last answer.
        tokens: New tokens as the server counts them.
        streams: The answers, if they were streamed.

    Raises:
        ValueError: If tokens are missing.
    """
    if tokens != workload.tokens:
        raise ValueError(f"{tokens} tokens came, {workload.tokens} were asked for")
    if not streams:
        return Figures(tokens / seconds)
    first = statistics.median(stream.tokens[0][0] - stream.sent_at for stream in streams)
    return Figures(tokens / seconds, first * 1000, step_ms(streams) if workload.answers == 1 else None)


def step_ms(streams: Sequence[StreamTimes]) -> float | None:
    """Returns the milliseconds of a decode step while all streams grow, or nothing where they hardly do."""
    begin = max(stream.tokens[0][0] for stream in streams)
    steps = []
    for stream in streams:
        inside = [(when, count) for when, count in stream.tokens if when >= begin]
        if len(inside) > 1 and inside[-1][1] > inside[0][1]:
            steps.append((inside[-1][0] - inside[0][0]) / (inside[-1][1] - inside[0][1]))
    return statistics.median(steps) * 1000 if steps else None


def serve_workloads(measure: Callable[[Workload], Figures]) -> None:
    """Runs a measuring process: says that it is ready, then answers each workload with its figures."""
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(dataclasses.asdict(measure(Workload(**json.loads(line))))), flush=True)


class Process:
    """A measuring process, as the process that started it uses it.

    Args:
        module: The module that it runs, which calls `serve_workloads`.
        arguments: Its arguments.
        log: The file for its standard error.
        environment: Variables to add.
    """

    def __init__(self, module: str, *arguments: str, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self._log = log
        self._file: IO[str] = log.open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._file,
            env={**os.environ, **(environment or {})},
            text=True,
        )
        self._read()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def run(self, workload: Workload) -> Figures:
        """Measures a workload."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(dataclasses.asdict(workload)) + "\n")
        self._process.stdin.flush()
        return Figures(**self._read())

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._file.close()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"A measuring process failed:\n{self._log.read_text()[-3000:]}")
        return json.loads(line)
