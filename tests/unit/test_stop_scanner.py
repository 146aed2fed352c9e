"""Stop sequences in streamed text, against a plain search over the whole."""

from __future__ import annotations

import itertools

from hypothesis import example, given, settings
from hypothesis import strategies as st

from abstractllm._core.stop_scanner import StopScanner

TEXT = st.text(alphabet="ab🙂", max_size=30)
STOPS = st.lists(st.text(alphabet="ab🙂", min_size=1, max_size=4), max_size=4)


def plain_search(text: str, stops: list[str]) -> tuple[str, str]:
    """The text before the sequence that is complete first; of several complete at once, the longest."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            longest = max(complete, key=len)
            return text[: end - len(longest)], longest
    return text, ""


@settings(max_examples=500)
@given(text=TEXT, stops=STOPS, cuts=st.lists(st.integers(0, 30), max_size=6))
@example(text="aab", stops=["ab"], cuts=[1, 2])
@example(text="abab", stops=["bab", "ba"], cuts=[])
def test_pieces_joined_equal_a_plain_search(text: str, stops: list[str], cuts: list[int]) -> None:
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    scanner = StopScanner(stops)
    pieces = [scanner.push(text[begin:end]) for begin, end in itertools.pairwise(bounds)]
    pieces.append(scanner.flush())
    assert ("".join(pieces), scanner.stop_sequence) == plain_search(text, stops)


@given(text=TEXT, stops=STOPS)
def test_only_what_may_begin_a_stop_sequence_is_held_back(text: str, stops: list[str]) -> None:
    scanner = StopScanner(stops)
    given_out = ""
    for index, character in enumerate(text, 1):
        given_out += scanner.push(character)
        if scanner.stop_sequence:
            break
        held = text[len(given_out) : index]
        assert not held or any(stop.startswith(held) for stop in stops)
