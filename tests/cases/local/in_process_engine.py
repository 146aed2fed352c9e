"""Engines whose worker runs in a thread of the test's process, so that torch is imported once for all of them."""

from __future__ import annotations

import socket
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest

from abstractllm.providers.huggingface.engine import supervisor
from abstractllm.providers.huggingface.protocol.channel import Channel
from abstractllm.providers.huggingface.protocol.messages import FromEngine, ToEngine
from abstractllm.providers.huggingface.worker import server

MODELS: dict[str, Any] = {}
"""The loaded models, by the directory or name that they were loaded by."""
_LONGEST_END = 60.0
"""Seconds."""


class InProcessEngine:
    """Takes the place of `EngineProcess`: the same worker, behind the same channel, in this process."""

    pid = 0
    running: ClassVar[weakref.WeakSet[InProcessEngine]] = weakref.WeakSet()

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.channel = Channel[FromEngine](ours, FromEngine)
        self.status = 0
        self.running.add(self)
        self._worker = _Worker(Channel[ToEngine](theirs, ToEngine))
        threading.Thread(target=server._run_or_end_process, args=(self._worker.run,), daemon=True).start()

    def end(self) -> int:
        self.running.discard(self)
        self.channel.close()
        self._worker.has_read.wait(_LONGEST_END)
        if self._worker.engine is not None:
            self._worker.engine.stop()
        self.channel.release()
        return self.status

    def log_output(self, level: int) -> None:
        """An engine of this process prints nothing by itself."""

    def last_words(self) -> str:
        return ""

    def forget(self) -> None:
        self.channel.release()


class _Worker(server.Worker):
    engine: Any = None
    """The batch loop, which an engine process takes with it when it ends."""

    def __init__(self, channel: Channel[ToEngine]) -> None:
        super().__init__(channel)
        self.has_read = threading.Event()
        """Set once the reader has come to the end of the channel, where it would end the process."""

    def _read(self) -> None:
        try:
            super()._read()
        finally:
            self.has_read.set()

    def _start_batching(self, model: Any, settings: Any) -> Any:
        MODELS[settings.model] = model
        self.engine = super()._start_batching(model, settings)
        return self.engine


def use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets engines be of this kind, until the monkeypatch is undone."""

    def end_engines(code: int) -> None:
        """Ends no process: a thread returns after this; one that has failed takes all engines with it."""
        for engine in list(InProcessEngine.running) if code else ():
            engine.status = code
            engine.channel.close()

    monkeypatch.setattr(server, "end_process", end_engines)
    monkeypatch.setattr(supervisor, "EngineProcess", InProcessEngine)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")


@contextmanager
def engines_in_process() -> Iterator[None]:
    """Lets engines be of this kind that start meanwhile; they are to be closed before its end."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(monkeypatch)
        yield
