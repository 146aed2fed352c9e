"""The programs of `clients/`, which call through each language's client at a steady rate."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.balancing.name_server import NAME, NameServer

__all__ = ["BUILDS", "Call", "Program"]

FOLDER = Path(__file__).resolve().parent / "clients"
ROOT = FOLDER.parents[2]


@dataclass(frozen=True)
class Call:
    """One call, as a program saw it.

    Args:
        at: The second at which it began, since the first one.
        seconds: The time that it took.
        server: The name of the server that answered; empty if none did.
        error: The error that it ended with.
    """

    at: float
    seconds: float
    server: str
    error: str


def _python(folder: Path) -> list[str]:
    return [sys.executable, str(FOLDER / "python/main.py")]


def _go(folder: Path) -> list[str]:
    _run(["go", "build", "-o", str(folder / "program"), "."], FOLDER / "go")
    return [str(folder / "program")]


def _java(folder: Path) -> list[str]:
    _run(["sh", str(FOLDER / "java/build.sh"), str(folder)], ROOT)
    return ["java", "-cp", (folder / "classpath").read_text().strip()]


def _node(folder: Path) -> list[str]:
    _run(["sh", str(ROOT / "tests/interop/runners/node/build.sh")], ROOT)
    return ["node", str(FOLDER / "node/main.mjs")]


BUILDS: dict[str, Callable[[Path], list[str]]] = {"python": _python, "go": _go, "java": _java, "node": _node}
"""By language: builds the program in a folder, and returns the command that starts it."""


class Program:
    """A program that runs.

    Args:
        language: The language.
        command: The command, as `BUILDS` returns it.
        names: The server of names that it asks.
        port: The port of the servers.
        folder: A folder for its files.
        load_balancing: The policy.
        rate: Calls in a second.
        seconds: The time for which it begins calls.
        token: The token of its calls.
        service_config: gRPC's service configuration in place of the client's own; for Go and Python.
    """

    def __init__(
        self,
        language: str,
        command: Sequence[str],
        names: NameServer,
        port: int,
        folder: Path,
        *,
        load_balancing: str = "round_robin",
        rate: float,
        seconds: float,
        token: str = "",
        service_config: str = "",
    ) -> None:
        self.language = language
        self._folder = folder
        self._names = names
        address = f"dns://127.0.0.1:{names.port}/{NAME}:{port}"
        if language == "java":
            # Java resolves names itself, and has a file for them in place of a server.
            self.write_hosts()
            address = f"dns:///{NAME}:{port}"
            properties = [f"-Djdk.net.hosts.file={self._hosts}", "-Dsun.net.inetaddr.ttl=1"]
            arguments = [address, load_balancing, str(rate), str(seconds), token]
            line = [command[0], "-Xmx128m", *properties, *command[1:], "Main", *arguments]
        else:
            task = {
                "address": address,
                "load_balancing": load_balancing,
                "rate": rate,
                "seconds": seconds,
                "token": token,
                "service_config": service_config,
            }
            line = [*command, json.dumps(task)]
        self._log = folder / f"{language}-{secrets.token_hex(4)}.log"
        with self._log.open("wb") as log:
            # Node's gRPC asks the system for names, unless it is told to ask the server that the address names.
            variables = {**os.environ, "GRPC_NODE_USE_ALTERNATIVE_RESOLVER": "true"}
            self._process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log, text=True, env=variables)
        self.calls: list[Call] = []
        """The calls that have ended."""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def _hosts(self) -> Path:
        return self._folder / "hosts"

    def write_hosts(self) -> None:
        """Tells Java of a change of the addresses."""
        lines = "".join(f"{address} {NAME}\n" for address in self._names.addresses)
        draft = self._hosts.with_suffix(".new")
        draft.write_text(f"127.0.0.1 localhost\n{lines}")
        draft.rename(self._hosts)

    def wait(self, timeout: float) -> list[Call]:
        """Waits until it has made all its calls, and returns them."""
        status = self._process.wait(timeout)
        self._reader.join(timeout)
        assert status == 0, self._log.read_text(errors="replace")[-3000:]
        return self.calls

    def stop(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            at, seconds, outcome = line.rstrip("\n").split(" ", 2)
            is_error = outcome.startswith("error: ")
            self.calls.append(Call(float(at), float(seconds), "" if is_error else outcome, outcome if is_error else ""))


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-5000:]}{done.stderr[-5000:]}")
