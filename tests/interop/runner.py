"""A runner's process: asked over its standard input, answering over its standard output, a JSON object a line."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.interop.servers import HANG


class RunnerError(AssertionError):
    """A runner reported a failure of its own, broke off, or hung."""


class Runner:
    """A language's runner, kept for all behaviours."""

    def __init__(self, command: list[str], root: Path, log: Path) -> None:
        self._log = log
        with log.open("w") as output:
            self._process = subprocess.Popen(
                command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True
            )
        self.pid = self._process.pid
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def run(self, task: dict[str, Any], answer: Callable[[dict[str, Any]], Any]) -> Any:
        """Lets it run one behaviour.

        Args:
            task: What it is given.
            answer: Does what it asks for in between.

        Returns:
            What it observed.

        Raises:
            RunnerError: If it says so, breaks off, or hangs.
        """
        self._tell(task)
        while True:
            try:
                line = self._lines.get(timeout=HANG)
            except queue.Empty:
                self.stop()
                raise RunnerError(f"no answer within {HANG:.0f} s\n{self._tail()}") from None
            if not line:
                raise RunnerError(f"the runner ended\n{self._tail()}")
            message = json.loads(line)
            if "ask" in message:
                self._tell({"answer": answer(message["ask"])})
            elif "observed" in message:
                return message["observed"]
            else:
                raise RunnerError(message["failed"])

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _tell(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise RunnerError(f"the runner is gone\n{self._tail()}") from None

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]
