"""The shares of callers: start-time fair queuing, in tokens."""

from __future__ import annotations

from collections import Counter

__all__ = ["VirtualTime"]

_SPARE_TAGS = 64
"""Tags of callers without requests that are kept before those that have become void are dropped."""


class VirtualTime:
    """A virtual time for each caller, which advances by the tokens that they get: who is furthest behind is next.

    A caller who comes with a request after having had none starts at the common virtual time: what they left unused
    is not saved up. What they have used beyond their share, by requests that are still running, still counts.
    """

    def __init__(self) -> None:
        self._common = 0.0
        """The time of the caller who was served last."""
        self._tags: dict[str, float] = {}
        """The callers' times."""
        self._requests: Counter[str] = Counter()
        """The requests of each caller, waiting and running ones."""

    def __getitem__(self, caller: str) -> float:
        """Returns a caller's time."""
        tag = self._tags.get(caller, self._common)
        return tag if caller in self._requests else max(tag, self._common)

    def enter(self, caller: str) -> None:
        """Counts one more request of a caller."""
        self._tags[caller] = self[caller]
        self._requests[caller] += 1

    def leave(self, caller: str) -> None:
        """Counts one request less of a caller."""
        self._requests[caller] -= 1
        if self._requests[caller]:
            return
        del self._requests[caller]
        if not self._requests:
            # Everybody starts anew: nobody competes with what was used before.
            self._tags.clear()
        elif len(self._tags) > 2 * len(self._requests) + _SPARE_TAGS:
            tags = self._tags.items()
            self._tags = {name: tag for name, tag in tags if name in self._requests or tag > self._common}

    def serve(self, caller: str, tokens: float) -> None:
        """Notes that it was a caller's turn, and charges them for it."""
        self._common = max(self._common, self._tags[caller])
        self._tags[caller] += tokens

    def charge(self, caller: str, tokens: float) -> None:
        """Charges a caller who has a request with some more tokens, or gives some back where they are negative."""
        self._tags[caller] += tokens

    def clear(self) -> None:
        """Forgets everything."""
        self._common = 0.0
        self._tags.clear()
        self._requests.clear()
