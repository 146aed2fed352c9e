"""Event streams and lines of JSON are read as their standards say, whatever the pieces they come in."""

import json
import re
from collections.abc import AsyncIterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from abstractllm import ProviderProtocolError
from abstractllm.providers.hosted import event_streams
from abstractllm.providers.hosted.event_streams import EventStreamParser, read_events, read_json_lines, whole_json

FRAGMENTS = [
    *("data", "event", "id", "retry", "x", ":", " ", "\r", "\n", "\r\n", "\n\n", "\r\n\r\n", "a", "{}", "[DONE]"),
    *("data: a\n", "data: b\r\n", "event: ping\r", ": comment\n", "\0", "\u0085", "\u2028", "\ufeff", "é"),
]
STREAMS = st.lists(st.sampled_from(FRAGMENTS), max_size=12).map(lambda pieces: "".join(pieces).encode()) | st.binary(
    max_size=20
)


def reference_events(stream: bytes) -> list[tuple[str, str]]:
    """The data and the type of each event, by the words of the standard, from a stream that is all there."""
    lines = re.split("\r\n|\n|\r", stream.decode("utf-8", "replace").removeprefix("\ufeff"))
    events, data, event_type = [], "", ""
    for line in lines[:-1]:
        if line == "":
            if data != "":
                events.append((data.removesuffix("\n"), event_type))
            data, event_type = "", ""
            continue
        if line.startswith(":"):
            continue
        field, colon, value = line.partition(":")
        value = value.removeprefix(" ") if colon else ""
        if field == "event":
            event_type = value
        elif field == "data":
            data += value + "\n"
    return events


def pieces_of(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted(min(cut, len(stream)) for cut in cuts)
    return [stream[start:end] for start, end in zip([0, *places], [*places, len(stream)], strict=True)]


def parsed(pieces: list[bytes]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The events that were complete, and the one that was cut off."""
    parser = EventStreamParser()
    whole = [event for piece in pieces for event in parser.feed(piece)]
    assert not any(event.is_cut for event in whole)
    cut = list(parser.end())
    assert all(event.is_cut for event in cut)
    return [(event.data, event.name) for event in whole], [(event.data, event.name) for event in cut]


@settings(max_examples=500, deadline=None)
@given(STREAMS, st.lists(st.integers(0, 60), max_size=5))
@example(b"\xef\xbb\xbfdata: a\r\n\r\n", [1, 2, 9, 10, 11])
@example(b"data: a\r\rdata: b\n\n", [8, 9])
@example(b"id: 1\n\ndata\n\ndata:\n\nevent: x\n\nretry: 5\n\ndata: a\n\n", [])
def test_events_are_those_of_the_standard_however_the_bytes_are_cut(stream, cuts):
    whole, cut = parsed(pieces_of(stream, cuts))
    assert whole == reference_events(stream)
    assert whole + cut == reference_events(stream + b"\n\n")


async def async_pieces(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def test_an_event_without_its_empty_line_is_read_and_marked():
    events = [event async for event in read_events(async_pieces([b"data: a\n\nevent: x\nda", b"ta: b"]))]
    assert [(event.data, event.name, event.is_cut) for event in events] == [("a", "", False), ("b", "x", True)]


@pytest.mark.parametrize(
    "pieces",
    [
        [b"data: " + b"x" * 60, b"x" * 60],
        [b"data: " + b"x" * 20 + b"\n"] * 10,
        [b": " + b"x" * 60, b"x" * 60],
    ],
    ids=["line", "event", "comment"],
)
def test_a_line_or_event_beyond_the_limit_is_an_error(monkeypatch, pieces):
    monkeypatch.setattr(event_streams, "MAX_RECORD_BYTES", 100)
    parser = EventStreamParser()
    with pytest.raises(ProviderProtocolError, match="longer than 100 bytes"):
        _ = [event for piece in pieces for event in parser.feed(piece)]


def test_comments_may_go_on_for_ever(monkeypatch):
    monkeypatch.setattr(event_streams, "MAX_RECORD_BYTES", 100)
    parser = EventStreamParser()
    for _ in range(1000):
        assert list(parser.feed(b": still here\r\n")) == []
    assert [event.data for event in parser.feed(b"data: a\n\n")] == ["a"]


VALUES = st.dictionaries(
    st.sampled_from(["a", "b"]), st.text(max_size=5) | st.sampled_from(["\u0085", "\u2028", "\x0b", "\x1c"]), max_size=2
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(VALUES, min_size=1, max_size=4),
    st.sampled_from(["\n", "\r\n", "\n\n", "\n \r\n"]),
    st.sampled_from(["", "\ufeff"]),
    st.booleans(),
    st.lists(st.integers(0, 80), max_size=4),
)
async def test_lines_of_json_end_at_line_feeds_alone(values, ending, mark, has_last_ending, cuts):
    lines = [json.dumps(value, ensure_ascii=False) for value in values]
    stream = (mark + ending.join(lines) + ending * has_last_ending).encode("utf-8", "replace")
    read = [value async for value in read_json_lines(async_pieces(pieces_of(stream, cuts)))]
    assert read == [json.loads(line.encode("utf-8", "replace")) for line in lines]


async def test_a_last_line_that_is_cut_off_is_left_out_and_another_broken_one_is_an_error(monkeypatch):
    assert [line async for line in read_json_lines(async_pieces([b'{"a": 1}\n{"b', b'": 2']))] == [{"a": 1}]
    with pytest.raises(ValueError, match="Expecting"):
        _ = [line async for line in read_json_lines(async_pieces([b"{oops\n{}\n"]))]
    with pytest.raises(ValueError, match="Expecting"):
        _ = [line async for line in read_json_lines(async_pieces([b"oops"]))]
    monkeypatch.setattr(event_streams, "MAX_RECORD_BYTES", 10)
    with pytest.raises(ProviderProtocolError, match="longer than 10 bytes"):
        _ = [line async for line in read_json_lines(async_pieces([b"{" + b" " * 8, b"    }\n"]))]


@pytest.mark.parametrize(
    ("pieces", "body"),
    [
        ([b"\xef\xbb\xbf", b" \r\n", b"{}", b" "], b"\xef\xbb\xbf \r\n{} "),
        ([b"[1]"], b"[1]"),
        ([b"\n", b"data: {}\n\n"], None),
        ([b": {\n\n"], None),
        ([], None),
    ],
)
async def test_an_answer_that_is_one_json_value_is_told_by_how_it_begins(pieces, body):
    whole, rest = await whole_json(async_pieces(pieces))
    assert whole == body
    assert b"".join([piece async for piece in rest]) == (b"" if body is not None else b"".join(pieces))
