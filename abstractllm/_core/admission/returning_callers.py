"""The callers who have just got an answer and are about to ask again, as they did before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

__all__ = ["ReturningCallers"]

LONGEST_ABSENCE = 0.25
"""Seconds within which a caller who asks one question after another comes again."""
_MOST_REGULARS = 1024
"""Callers who are known to come again in time; of more, those who last did so the longest ago are forgotten."""


class ReturningCallers:
    """Callers without a request who are expected to come again at once.

    One who sends a request after each answer is away for a moment in between. If each place that becomes free in that
    moment went to somebody who always has requests waiting, that one would get far more than their share, though the
    others want theirs (Iyer and Druschel, "Anticipatory scheduling", SOSP 2001, describe the same for disks). Only a
    caller who came again in time before is expected to do so.
    """

    def __init__(self) -> None:
        self._left_at: dict[str, float] = {}
        """The callers who have no request any more, and since when; the longest first."""
        self._regular: OrderedDict[str, None] = OrderedDict()
        """Those who came again in time after the answer before their last one, or after the last; the latest last."""

    def leave(self, caller: str, now: float) -> None:
        """Notes that a caller has got an answer, and has no other request."""
        self._forget(now)
        self._left_at.pop(caller, None)
        self._left_at[caller] = now

    def come(self, caller: str, now: float) -> None:
        """Notes that a caller sends a request."""
        left_at = self._left_at.pop(caller, None)
        if left_at is None:
            return
        if now - left_at <= LONGEST_ABSENCE:
            self._regular[caller] = None
            self._regular.move_to_end(caller)
            if len(self._regular) > _MOST_REGULARS:
                self._regular.popitem(last=False)
        else:
            self._regular.pop(caller, None)

    def expected(self, now: float) -> Iterator[tuple[str, float]]:
        """Yields the callers who are expected to come again, and the times at which they left."""
        self._forget(now)
        return ((caller, left_at) for caller, left_at in self._left_at.items() if caller in self._regular)

    def _forget(self, now: float) -> None:
        """Forgets those who did not come in time."""
        while self._left_at:
            caller, left_at = next(iter(self._left_at.items()))
            if now - left_at <= LONGEST_ABSENCE:
                return
            del self._left_at[caller]
            self._regular.pop(caller, None)
