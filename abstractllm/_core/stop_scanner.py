"""Finding stop sequences in text that arrives in pieces."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

__all__ = ["StopScanner"]


class StopScanner:
    """Cuts streamed text where a stop sequence begins.

    The answer ends with the stop sequence that is complete first, not with the one that begins first: a stream cannot
    wait for a longer one, and vLLM chooses the same. Of several that are complete with the same character, the one that
    begins first counts, so that no part of a stop sequence is left in the text.

    Text that may be the beginning of a stop sequence is held back until more text tells, so nothing that was returned
    needs to be taken back; the joined pieces do not depend on how the text was cut. The work for a character does not
    depend on the lengths of the sequences.

    Args:
        stops: The sequences, each at least one character.

    Attributes:
        stop_sequence: The sequence that ended the text; empty until then.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._searches = [_Search(stop) for stop in dict.fromkeys(stops)]
        self._held = ""
        self.stop_sequence = ""

    def push(self, text: str) -> str:
        """Takes the next piece and returns the text that is certain now; nothing more once `stop_sequence` is set."""
        if self.stop_sequence:
            return ""
        if not self._searches:
            return text
        hits = [(end, search) for search in self._searches if (end := search.read(text)) is not None]
        self._held += text
        if not hits:
            return self._take_certain()
        first = min(end for end, _ in hits)
        return self._cut(len(self._held) - len(text) + first, [search for end, search in hits if end == first])

    def push_special(self, name: str) -> str:
        """Takes a special token, which is not part of the text but may be part of a stop sequence.

        For the sequences that hold its name the text reads as if the name stood in it; for the others it is not there.

        Args:
            name: The special token as stop sequences name it.

        Returns:
            The text that is certain now.
        """
        if self.stop_sequence:
            return ""
        hits = [search for search in self._searches if name in search.stop and search.read_hidden(name)]
        return self._cut(len(self._held), hits) if hits else self._take_certain()

    def is_in_a_stop(self, name: str) -> bool:
        """Tells whether a special token's name is part of a stop sequence."""
        return any(name in search.stop for search in self._searches)

    def ends_with(self, text: str, name: str) -> bool:
        """Tells whether text and a special token behind it would end the text, without taking them."""
        searches = [search.copy() for search in self._searches]
        longest = max((len(search.stop) for search in searches), default=0)
        if len(text) > longest:
            text = text[len(text) - longest :]  # what comes before is part of no sequence that ends with the name
            for search in searches:
                search.restart()
        return any(
            search.read(text) is not None or (name in search.stop and search.read_hidden(name)) for search in searches
        )

    def flush(self) -> str:
        """Returns what was held back, when the text has ended without a stop sequence; text behind it is a new one."""
        for search in self._searches:
            search.restart()
        return self._take(len(self._held))

    def _cut(self, end: int, complete: Sequence[_Search]) -> str:
        """Ends the text with one of the sequences that are complete.

        Args:
            end: The place in the held text behind them.
            complete: The sequences.
        """
        first = max(complete, key=lambda search: (search.open_characters, len(search.stop)))
        self.stop_sequence = first.stop
        text, self._held = self._held[: end - first.open_characters], ""
        return text

    def _take_certain(self) -> str:
        """Returns the held text up to where a stop sequence may begin."""
        return self._take(len(self._held) - max((search.open_characters for search in self._searches), default=0))

    def _take(self, length: int) -> str:
        """Returns the beginning of the held text; what is behind it stays held."""
        certain, self._held = self._held[:length], self._held[length:]
        return certain


class _Search:
    """The search for one stop sequence (Knuth, Morris and Pratt), character by character.

    Attributes:
        stop: The sequence.
    """

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self._fallbacks = _fallbacks(stop)
        self._matched = 0
        """Characters of the sequence that the text ends with."""
        self._length = 0
        """Characters that have been read."""
        self._hidden: deque[int] = deque(maxlen=len(stop))
        """The places, among the characters that have been read, of the last ones that are not part of the text."""

    @property
    def open_characters(self) -> int:
        """The characters of the text that may be, or are, the beginning of the sequence."""
        while self._hidden and self._hidden[0] < self._length - self._matched:
            self._hidden.popleft()
        return self._matched - len(self._hidden)

    def read(self, text: str) -> int | None:
        """Reads the next characters, up to the end of the sequence.

        Returns:
            The place in the text behind the sequence; None if it is not complete.
        """
        stop, matched, place = self.stop, self._matched, 0
        while place < len(text):
            if not matched and (place := text.find(stop[0], place)) < 0:
                break
            character = text[place]
            while matched and stop[matched] != character:
                matched = self._fallbacks[matched - 1]
            matched += stop[matched] == character
            place += 1
            if matched == len(stop):
                self._matched, self._length = matched, self._length + place
                return place
        self._matched, self._length = matched, self._length + len(text)
        return None

    def read_hidden(self, text: str) -> bool:
        """Reads characters that are not part of the text, and tells whether the sequence is complete."""
        self._hidden.extend(range(self._length, self._length + len(text)))
        return self.read(text) is not None

    def restart(self) -> None:
        """Forgets what has been read."""
        self._matched = 0
        self._hidden.clear()

    def copy(self) -> _Search:
        """Returns a search that is as far as this one."""
        other = _Search.__new__(_Search)
        other.stop, other._fallbacks = self.stop, self._fallbacks
        other._matched, other._length, other._hidden = self._matched, self._length, self._hidden.copy()
        return other


def _fallbacks(stop: str) -> list[int]:
    """Returns for each beginning of a text the length of its longest end that is a shorter beginning."""
    fallbacks = [0]
    length = 0
    for character in stop[1:]:
        while length and stop[length] != character:
            length = fallbacks[length - 1]
        length += stop[length] == character
        fallbacks.append(length)
    return fallbacks
