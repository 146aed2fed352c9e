"""The program of an engine process."""

from __future__ import annotations

import socket
import sys

import pytest

from abstractllm.providers.huggingface.protocol.messages import ToEngine
from abstractllm.providers.huggingface.worker import __main__ as program


def test_threads_that_wait_for_the_batch_loop_wait_for_a_fraction_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    default, intervals = sys.getswitchinterval(), []

    class Worker:
        def __init__(self, channel: object) -> None: ...

        def run(self) -> None:
            intervals.append(sys.getswitchinterval())

    monkeypatch.setattr(program, "Worker", Worker)
    monkeypatch.setattr(program, "Channel", {ToEngine: lambda connection, received: connection.close()})
    monkeypatch.setattr(program, "settle_signals", lambda: None)
    monkeypatch.setattr(sys, "argv", ["worker", str(ours.detach())])
    try:
        program.main()
    finally:
        sys.setswitchinterval(default)
        theirs.close()
    assert intervals == [pytest.approx(program.SWITCH_SECONDS, rel=0.01)]
    assert default / 10 >= program.SWITCH_SECONDS
