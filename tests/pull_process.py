"""Downloads in forks of one process, which has imported what a download needs: that takes a second each time else.

A fork does what the process of a download does, but for its start: tests of that, and of how it ends, have real ones.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from abstractllm.providers.huggingface.hub import downloads
from abstractllm.providers.huggingface.hub.downloader.messages import FromDownloader
from abstractllm.providers.huggingface.protocol.channel import Channel
from tests.fake_hub import TOKEN, FakeHub, serving_hub
from tests.waiting import wait_until

_ROOT = Path(__file__).resolve().parents[1]


class ForkedHub:
    """A hub, and the process whose forks download from it.

    Args:
        hub: The hub.
        control: The socket to the process.
    """

    def __init__(self, hub: FakeHub, control: socket.socket) -> None:
        self._hub = hub
        self._control = control

    def emptied(self, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
        """Returns the hub as if it were new; downloads are made in forks until the monkeypatch is undone."""
        wait_until(lambda: not self._hub.open)
        new = FakeHub()
        new.url, new.storage = self._hub.url, self._hub.storage
        vars(self._hub).update(vars(new))

        def fork(module: str, received: Any) -> _Fork:
            return _Fork(self._control)

        # It is subscripted with the type of its messages.
        monkeypatch.setattr(downloads, "ChildProcess", {FromDownloader: fork})
        monkeypatch.setenv("HF_ENDPOINT", self._hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        return self._hub


class _Fork:
    """Takes the place of `ChildProcess`."""

    def __init__(self, control: socket.socket) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(control, [b"x"], [theirs.fileno()])
        self.channel = Channel[FromDownloader](ours, FromDownloader)

    def end(self) -> int:
        self.channel.close()
        self.channel.release()
        return 0

    def kill(self) -> None:
        self.channel.close()

    def log_output(self, level: int) -> None:
        """A fork writes to the tests' own output."""

    def forget(self) -> None:
        self.channel.release()


@contextmanager
def forked_hub(home: Path) -> Iterator[ForkedHub]:
    """Runs a hub, and a process whose forks download from it.

    Args:
        home: The folder of the hub's library.
    """
    ours, theirs = socket.socketpair()
    with serving_hub() as hub, ours:
        kept = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
        variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": TOKEN, "PYTHONPATH": str(_ROOT)}
        with theirs:
            command = [sys.executable, "-m", "tests.pull_process", str(theirs.fileno())]
            process = subprocess.Popen(
                command, env=kept | variables, pass_fds=(theirs.fileno(),), stderr=subprocess.DEVNULL, cwd=_ROOT
            )
        try:
            yield ForkedHub(hub, ours)
        finally:
            ours.close()
            process.wait(60)


def main() -> None:
    """Forks for each descriptor that comes, until the other side closes the socket."""
    from abstractllm.providers.huggingface.hub.downloader import __main__ as downloader

    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    from abstractllm.providers.huggingface.hub.downloader import download, failures  # noqa: F401 # for the forks

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not data:
            return
        if os.fork() == 0:
            control.close()
            sys.argv[1:] = map(str, descriptors)
            downloader.main()
        os.close(descriptors[0])


if __name__ == "__main__":
    main()
