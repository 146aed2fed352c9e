"""Finding stop sequences in text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["StopScanner"]


class StopScanner:
    """Cuts streamed text before the first stop sequence.

    Text that may be the beginning of a stop sequence is held back until more text tells, so nothing that was returned
    needs to be taken back. The joined pieces are those of a search over the whole text: the answer ends with the stop
    sequence that is complete first; of two that are complete at once, the one that begins first counts.

    Args:
        stops: The sequences, each at least one character.

    Attributes:
        stop_sequence: The sequence that ended the text; empty until then.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stop_sequence = ""

    def push(self, text: str) -> str:
        """Takes the next piece and returns the text that is certain now; nothing more once `stop_sequence` is set."""
        if self.stop_sequence:
            return ""
        if not self._stops:
            return text
        self._held += text
        hits = [(place, stop) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if hits:
            place, self.stop_sequence = min(hits, key=lambda hit: (hit[0] + len(hit[1]), hit[0]))
            return self._take(place, rest="")
        return self._take(len(self._held) - self._open_suffix())

    def flush(self) -> str:
        """Returns what was held back, when the text has ended without a stop sequence."""
        return self._take(len(self._held))

    def _take(self, length: int, rest: str | None = None) -> str:
        """Returns the beginning of the held text; what is behind it stays held, or is replaced by `rest`."""
        certain, behind = self._held[:length], self._held[length:]
        self._held = behind if rest is None else rest
        return certain

    def _open_suffix(self) -> int:
        """Returns the length of the longest suffix of the held text that begins a stop sequence."""
        longest = max(map(len, self._stops)) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            suffix = self._held[-length:]
            if any(stop.startswith(suffix) for stop in self._stops):
                return length
        return 0
