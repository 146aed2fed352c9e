"""Stop sequences in streamed text, against a plain search over the whole."""

from __future__ import annotations

import inspect
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from abstractllm import create_llm
from abstractllm._core import stop_scanner
from abstractllm._core.stop_scanner import StopScanner
from abstractllm.types import TextDelta, Tool

TEXT = st.text(alphabet="ab🙂", max_size=30)
STOPS = st.lists(st.text(alphabet="ab🙂", min_size=1, max_size=4), max_size=4)
SPECIAL = ("<x>", "<y>")


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


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        (" The user is a", ["a", "is"], (" The user ", "is")),  # whatever their order in the list
        ("there", ["re", "he"], ("t", "he")),
        ("hello", ["lo", "ell"], ("h", "ell")),
        ("one two three", ["two three", "wo"], ("one t", "wo")),  # complete first, although it begins later
        ("a\n\nb", ["\n\n", "\n"], ("a", "\n")),
        ("ab", ["b", "ab"], ("", "ab")),  # complete at once: the one that begins first
    ],
)
def test_of_overlapping_sequences_the_one_that_is_complete_first_counts(
    text: str, stops: list[str], expected: tuple[str, str]
) -> None:
    for pieces in ([text], list(text)):
        scanner = StopScanner(stops)
        assert ("".join(map(scanner.push, pieces)), scanner.stop_sequence) == expected


@pytest.mark.parametrize(
    ("steps", "options", "expected"),
    [
        ([{"text": "one two three four"}], {"stop": ["two three", "wo"]}, ("one t", "STOP_SEQUENCE", "wo")),
        ([{"text": "one two three"}], {"stop": ["wo", "two"]}, ("one ", "STOP_SEQUENCE", "two")),
        ([{"text": "one two three"}], {"stop": ["two three"], "max_tokens": 2}, ("one two", "MAX_TOKENS", "")),
        (
            [{"text": "one two"}, {"tool_call": {"id": "1", "name": "f", "arguments": {}}}, {"text": " three"}],
            {"stop": ["two three"], "tools": [Tool("f", "", "{}")]},
            ("one two three", "TOOL_CALLS", ""),
        ),
    ],
)
def test_a_scripted_llm_ends_where_a_local_one_does(
    steps: list[Any], options: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    with create_llm("scripted", script=steps) as llm:
        answer = llm.complete("Count", **options)
        events = list(llm.stream("Count", **options))
    assert (answer.text, answer.finish_reason.name, answer.stop_sequence) == expected
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == answer.text


def reference_with_special(events: list[str], stops: list[str]) -> tuple[str, str]:
    """Searches after each event, for each sequence, in the text with the special tokens that it names."""
    for count in range(1, len(events) + 1):
        hits = []
        for stop in stops:
            view = [event for event in events[:count] if event not in SPECIAL or event in stop]
            joined = "".join(view)
            last = events[count - 1] if events[count - 1] in view else ""
            ends = [end for end in range(len(joined) - len(last) + 1, len(joined) + 1) if joined[:end].endswith(stop)]
            if ends:
                begin, place, visible = ends[0] - len(stop), 0, 0
                for event in view:
                    visible += 0 if event in SPECIAL else max(0, min(len(event), begin - place))
                    place += len(event)
                hits.append((visible, -len(stop), stop))
        if hits:
            visible, _, stop = min(hits)
            return "".join(event for event in events if event not in SPECIAL)[:visible], stop
    return "".join(event for event in events if event not in SPECIAL), ""


@settings(max_examples=500)
@given(
    events=st.lists(st.sampled_from(["a", "b", *SPECIAL]), max_size=20),
    stops=st.lists(st.lists(st.sampled_from(["a", "b", *SPECIAL]), min_size=1, max_size=4).map("".join), max_size=4),
)
@example(events=["<x>"], stops=["<x>"])
@example(events=["a", "<x>", "<y>", "b"], stops=["a<x>b"])
@example(events=["<x>", "<x>", "a"], stops=["<x>a"])
def test_special_tokens_count_as_their_names_for_the_sequences_that_name_them(
    events: list[str], stops: list[str]
) -> None:
    scanner = StopScanner(stops)
    pieces = [scanner.push_special(event) if event in SPECIAL else scanner.push(event) for event in events]
    pieces.append(scanner.flush())
    assert ("".join(pieces), scanner.stop_sequence) == reference_with_special(events, stops)


def test_a_part_of_a_special_tokens_name_is_not_found_in_it() -> None:
    scanner = StopScanner(["x>", "eom"])
    assert scanner.push("a") + scanner.push_special("<x>") + scanner.push("b") == "ab"
    assert not scanner.stop_sequence
    assert not scanner.is_in_a_stop("<x>")


def test_a_look_ahead_takes_nothing() -> None:
    scanner = StopScanner(["a<x>"])
    scanner.push("b")
    assert scanner.ends_with("a", "<x>")
    assert not scanner.ends_with("b", "<x>")
    assert scanner.push_special("<x>") == ""
    assert not scanner.stop_sequence


def test_what_comes_after_a_flush_does_not_complete_a_sequence_of_before() -> None:
    scanner = StopScanner(["ab"])
    assert scanner.push("a") + scanner.flush() + scanner.push("b") == "ab"
    assert not scanner.stop_sequence


@contextmanager
def counted_lines() -> Iterator[Callable[[], int]]:
    """Counts the lines of the scanner's code that run."""
    lines = 0
    file = inspect.getsourcefile(stop_scanner)

    def trace(frame: Any, event: str, argument: object) -> Any:
        nonlocal lines
        if frame.f_code.co_filename != file:
            return None
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lambda: lines
    finally:
        sys.settrace(before)


@pytest.mark.parametrize(
    ("stops", "text"),
    [
        (["a" * 255 + "b"], "a" * 600),
        (["ab" * 127 + "ac"], "ab" * 300),
        (["a" * length + "b" for length in range(240, 256)], "a" * 600),
        (["a" * (255 - length) + "b" + "a" * length for length in range(16)], ("a" * 250 + "c") * 2),
    ],
)
def test_the_work_for_a_character_does_not_depend_on_the_sequences_lengths(stops: list[str], text: str) -> None:
    scanner = StopScanner(stops)
    with counted_lines() as count:
        for character in text:
            scanner.push(character)
        assert count() < 100 * len(text) * len(stops)


def test_a_look_ahead_looks_at_the_end_of_a_long_text_alone() -> None:
    scanner = StopScanner(["ab<x>"])
    scanner.push("a")
    assert scanner.ends_with(" " * 10_000 + "ab", "<x>")
    assert not scanner.ends_with("b" + " " * 10_000, "<x>")
    with counted_lines() as count:
        scanner.ends_with(" " * 10_000, "<x>")
        assert count() < 200
