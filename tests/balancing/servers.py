"""Servers in processes of their own, each on its own loopback address and all on one port, as pods have it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.waiting import wait_until

__all__ = ["Fleet", "fleet"]

_COMMAND = (sys.executable, "-m", "abstractllm_cli", "serve", "--config")


class Fleet:
    """Servers of one name, started and ended one by one.

    Args:
        folder: The folder of their files.

    Attributes:
        port: The port of all of them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        with socket.socket() as probe:
            probe.bind(("0.0.0.0", 0))
            self.port: int = probe.getsockname()[1]

    def address(self, name: str) -> str:
        """Returns the IP address of a server: `a` has 127.0.0.2, `b` 127.0.0.3, and so on."""
        return f"127.0.0.{2 + ord(name) - ord('a')}"

    def start(self, name: str, word_seconds: float, settings: Mapping[str, Any] | None = None, words: int = 10) -> None:
        """Starts a server, and waits until it listens.

        Args:
            name: Its name, a letter, with which its answers begin.
            word_seconds: The time for a word.
            settings: Keys of its configuration.
            words: Words of an answer.
        """
        reply = " ".join([name, *("word" for _ in range(words - 1))])
        llm = {"provider": "scripted", "reply": reply, "delay": word_seconds}
        configuration = {"listen": f"{self.address(name)}:{self.port}", "llms": {"echo": llm}, **(settings or {})}
        file, log = self._folder / f"{name}.yaml", self._folder / f"{name}.log"
        file.write_text(yaml.safe_dump(configuration))
        with log.open("wb") as stderr:
            process = subprocess.Popen([*_COMMAND, str(file)], stderr=stderr)
        self._processes[name] = process
        wait_until(lambda: process.poll() is not None or "listening on" in log.read_text("utf-8"))
        assert process.poll() is None, log.read_text("utf-8")

    def kill(self, name: str) -> None:
        """Ends a server by SIGKILL."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def terminate(self, name: str) -> None:
        """Ends a server by SIGTERM, and waits for it."""
        process = self._processes.pop(name)
        process.terminate()
        process.wait(60)

    def close(self) -> None:
        """Ends all of them."""
        for name in list(self._processes):
            self.kill(name)


@contextmanager
def fleet(folder: Path) -> Iterator[Fleet]:
    """Makes a fleet without servers; they end with the context."""
    servers = Fleet(folder)
    try:
        yield servers
    finally:
        servers.close()
