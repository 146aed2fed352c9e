"""The command in a process of its own, without and with a terminal."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

COMMAND = [sys.executable, "-m", "abstractllm_cli"]
GENERATE = ("generate", "--provider", "scripted")
ENDLESS = '--option=script=[{"text": "first"}, {"delay": 3000}, {"text": "never"}]'
FAILING = '--option=script=[{"text": "half"}, {"error": "RATE_LIMITED", "message": "slow down", "retry_after": 2}]'


def run(*arguments: str, stdin: str | bytes = "") -> subprocess.CompletedProcess[str]:
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run([*COMMAND, *arguments], input=data, capture_output=True, timeout=90)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@contextmanager
def start(*arguments: str, **streams: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([*COMMAND, *arguments], **streams)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Terminal:
    """A pseudo terminal, and the command that runs in it."""

    def __init__(self, *arguments: str, **streams: int) -> None:
        self._master, slave = os.openpty()
        # A session of its own, so that Ctrl-C typed into the terminal reaches the command.
        self.process = subprocess.Popen(
            [sys.executable, "-c", _IN_TERMINAL, *COMMAND[1:], *arguments],
            **({"stdin": slave, "stdout": slave, "stderr": slave} | streams),
            start_new_session=True,
        )
        os.close(slave)
        self.seen = ""

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait_for(self, text: str) -> None:
        """Reads on until `text` was shown after what was waited for before."""
        end = time.monotonic() + 60
        while text not in self.seen:
            assert time.monotonic() < end, f"{text!r} was not shown: {self.seen!r}"
            if select.select([self._master], [], [], 1)[0]:
                self.seen += self._read()
        self.seen = self.seen.split(text, 1)[1]

    def rest(self) -> str:
        while piece := self._read():
            self.seen += piece
        self.process.wait(60)
        return self.seen

    def _read(self) -> str:
        try:
            return os.read(self._master, 65536).decode()
        except OSError:  # the last process closed the terminal
            return ""


# Makes the terminal the controlling one of the session, then becomes the command.
_IN_TERMINAL = (
    "import fcntl, os, sys, termios; "
    "fcntl.ioctl(next(fd for fd in (0, 1, 2) if os.isatty(fd)), termios.TIOCSCTTY, 0); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
