"""Finding stop sequences in text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["StopScanner"]


class StopScanner:
    """Cuts streamed text before the first stop sequence.

    Text that may be the beginning of a stop sequence is held back until it is known not to be one, so what has been
    given out never needs to be taken back, and the joined pieces equal a plain search over the whole text: the cut is
    at the earliest place where any of the sequences begins, and of several beginning there the longest-listed first
    one that is complete first wins.

    Args:
        stops: The sequences, each at least one character.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = ""
        """The sequence that was found; empty until then."""

    def push(self, text: str) -> str:
        """Takes the next piece and returns what can be given out; nothing more once `found` is set."""
        if self.found:
            return ""
        if not self._stops:
            return text
        self._held += text
        hits = [(at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if hits:
            at, self.found = min(hits, key=lambda hit: (hit[0] + len(hit[1]), hit[0]))
            given, self._held = self._held[:at], ""
            return given
        keep = self._open_suffix()
        given, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return given

    def flush(self) -> str:
        """Returns what was held back, when the text has ended without a stop sequence."""
        given, self._held = self._held, ""
        return given

    def _open_suffix(self) -> int:
        """The length of the longest suffix of the held text that begins a stop sequence."""
        longest = max(map(len, self._stops)) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            suffix = self._held[-length:]
            if any(stop.startswith(suffix) for stop in self._stops):
                return length
        return 0
