"""The watchdog of a child process: notices one that gives no sign of life, or gets no further."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from abstractllm.providers.huggingface.protocol.channel import Channel, encode
from abstractllm.providers.huggingface.protocol.messages import LOADING, Ping, Pong

__all__ = ["Patience", "Watchdog"]

logger = logging.getLogger("abstractllm.engine")

_LONGEST_INTERVAL = 1.0
"""Seconds between two pings, at most."""
_INTERVALS = 8
"""Pings in the time that a process may be silent, at least."""
_MARGIN = 2
"""Intervals before a bound in which its end counts as reached: what follows is to be done within the bound."""
_STARTING_FACTOR = 4
"""Starting a process, loading a library or a file of weights may hold up all threads of a process."""
_SUSPICIOUS_SECONDS = 5.0
"""Seconds of silence after which no request is given to the process, and the LLM does not count as ready."""


@dataclass(frozen=True, slots=True)
class Patience:
    """The bounds on what a process may be waited for, in seconds."""

    heartbeat: float = 30.0
    """A sign of life; four times as long for the first one, and while a model is loading."""
    step: float = 600.0
    """The end of one piece of work."""
    load: float = 1800.0
    """Progress of the loading of a model."""


class Watchdog:
    """Pings a process, and measures how long it is silent and how long each piece of its work lasts.

    Only time counts in which this process itself runs: if a machine sleeps, or is stopped as a whole, the process is
    not to be blamed. So the time between two pings counts as two intervals at most, and the age of a piece of work is
    measured here and not by the process. Nor does time count in which something that the process has sent waits to be
    taken.

    Args:
        channel: The connection to the process.
        on_timeout: Called once, in the watchdog's thread, with the bound that is exceeded, in words that follow the
            name of the process.
        on_silence: Called, in the watchdog's thread, with True when the silence becomes suspicious, and with False when
            it ends.
        patience: Returns the bounds, as they are now.
        is_loaded: Returns True once the model is loaded, and of a process that loads none.
    """

    def __init__(
        self,
        channel: Channel[Any],
        *,
        on_timeout: Callable[[str], None],
        on_silence: Callable[[bool], None] = lambda _: None,
        patience: Callable[[], Patience] = Patience,
        is_loaded: Callable[[], bool] = lambda: True,
    ) -> None:
        self.silence = 0.0
        """Seconds since the last sign of life."""
        self._channel = channel
        self._patience = patience
        self._is_loaded = is_loaded
        self._on_silence = on_silence
        self._on_timeout = on_timeout
        self._stopped = threading.Event()
        self._was_heard = self._has_started = False
        self._heard_at = 0.0
        self._pong: Pong | None = None
        """The last answer to a ping, until it has been looked at."""
        self._work: dict[str, tuple[int, float]] = {}
        """The number and the age of each piece of work that the process is at."""
        self._is_suspicious = False

    def start(self) -> None:
        """Begins to ping, in a thread of its own."""
        threading.Thread(target=self._run, name="child-watchdog", daemon=True).start()

    def stop(self) -> None:
        """Ends the thread, soon."""
        self._stopped.set()

    def heard(self, message: object) -> None:
        """Notes a message of the process: any is a sign of life."""
        if isinstance(message, Pong):
            self._pong = message
        self._heard_at = time.monotonic()
        self._was_heard = True

    def _run(self) -> None:
        last = time.monotonic()
        while True:
            self._channel.send(encode(Ping()), urgent=True)
            interval = min(_LONGEST_INTERVAL, self._patience().heartbeat / _INTERVALS)
            if self._stopped.wait(interval):
                return
            now = time.monotonic()
            try:
                if reason := self.tick(min(now - last, 2 * interval), interval):
                    self._on_timeout(reason)
                    return
            except Exception:  # raised further it would leave the process unwatched
                logger.exception("a process cannot be watched; it will be again")
            last = now

    def tick(self, seconds: float, interval: float) -> str:
        """Takes account of time that has passed.

        Args:
            seconds: The time, as far as it counts.
            interval: Seconds until the next tick.

        Returns:
            The bound that is exceeded, in words; empty if none is.
        """
        patience = self._patience()
        if self._was_heard:
            self._was_heard, self._has_started = False, True
            self.silence = min(seconds, time.monotonic() - self._heard_at)
        elif self._channel.is_drained:
            self.silence += seconds
        is_loaded = self._has_started and self._is_loaded()
        self._suspect(is_loaded and self.silence >= min(_SUSPICIOUS_SECONDS, patience.heartbeat / 2))
        bound = patience.heartbeat * (1 if is_loaded else _STARTING_FACTOR)
        if self.silence > bound - _MARGIN * interval:
            return f"gave no sign of life within {bound:g} s"
        pong, self._pong = self._pong, None
        if pong is not None:
            self._work = {name: (number, self._age(name, number, seconds)) for name, number in pong.work.items()}
        for name, (_, age) in self._work.items():
            bound = patience.load if name == LOADING else patience.step
            if age > bound - _MARGIN * interval:
                return f"got no further with {name} within {bound:g} s"
        return ""

    def _age(self, name: str, number: int, seconds: float) -> float:
        """Returns the age of a piece of work; one that the process was not yet at is new."""
        before, age = self._work.get(name, (None, 0.0))
        return age + seconds if before == number else 0.0

    def _suspect(self, is_suspicious: bool) -> None:
        if is_suspicious != self._is_suspicious:
            self._is_suspicious = is_suspicious
            self._on_silence(is_suspicious)
