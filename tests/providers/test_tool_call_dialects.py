"""Calls are put together rightly in every dialect that servers stream them in, and never merged."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abstractllm.providers.openai.tool_calls import ToolCallReader

TOOLS = ("f", "g", "get_weather", "get_time")
Entry = dict[str, Any]
NAMES = st.sampled_from(TOOLS)
ARGUMENTS = st.dictionaries(
    st.sampled_from(["a", "b{", 'c"', "d\\"]), st.integers(0, 9) | st.sampled_from(["}{", '"', "\\", "[x]"]), max_size=2
).map(json.dumps)
CALLS = st.lists(st.tuples(NAMES, ARGUMENTS), min_size=1, max_size=4)


def entry(index: int | None, identity: str | None, name: str | None, arguments: Any) -> Entry:
    """One entry of `tool_calls`, without what is None; an index of -1 is null."""
    fields: Entry = {} if index is None else {"index": None if index < 0 else index}
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return fields | ({} if identity is None else {"id": identity}) | {"function": function}


def read(chunks: list[list[Entry]], tools: tuple[str, ...] = TOOLS, *, is_last: bool = False) -> list[tuple[str, Any]]:
    """The names and arguments that the chunks become; the rules that hold for all events are checked."""
    reader = ToolCallReader(tools)
    deltas = [
        delta
        for place, chunk in enumerate(chunks)
        for delta in reader.read(chunk, is_last=is_last and place == len(chunks) - 1)
    ]
    deltas += reader.end()
    calls: dict[int, list[str]] = {}
    for delta in deltas:
        if delta.index not in calls:
            assert delta.id
            assert delta.name
            assert delta.index == len(calls)
            calls[delta.index] = [delta.id, delta.name, ""]
        else:
            assert (delta.id, delta.name) == ("", "")
        calls[delta.index][2] += delta.arguments_fragment
    assert len({call[0] for call in calls.values()}) == len(calls)
    return [(name, value_of(arguments or "{}")) for _, name, arguments in calls.values()]


def value_of(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


INDICES: dict[str, Callable[[int], int | None]] = {
    "numbered": lambda place: place,
    "numbered from 3": lambda place: place + 3,
    "all zero": lambda place: 0,
    "null": lambda place: -1,
    "absent": lambda place: None,
}
IDS: dict[str, Callable[[int, int], str | None]] = {
    "at first": lambda call, piece: None if piece else f"id_{call}",
    "repeated": lambda call, piece: f"id_{call}",
    "absent": lambda call, piece: None,
    "empty": lambda call, piece: "",
}
FORMS: dict[str, Callable[[str, str], list[tuple[str | None, Any]]]] = {
    "name, then pieces": lambda name, text: [(name, ""), *((None, piece) for piece in halves(text))],
    "name repeated": lambda name, text: [(name, piece) for piece in halves(text)],
    "whole": lambda name, text: [(name, text)],
    "an object": lambda name, text: [(name, json.loads(text))],
    "name in pieces": lambda name, text: [*((piece, None) for piece in halves(name)), (None, text)],
    "name last": lambda name, text: [*((None, piece) for piece in halves(text)), (name, "")],
    "after an empty object": lambda name, text: [(name, "{}"), *((None, piece) for piece in halves(text))],
    "with an empty end": lambda name, text: [(name, text), ("", ""), (None, None)],
}


def halves(text: str) -> list[str]:
    return [piece for piece in (text[: len(text) // 2], text[len(text) // 2 :]) if piece]


def streamed(calls: list[tuple[str, str]], index: str, identity: str, form: str) -> list[list[Entry]]:
    """The calls in a dialect, one entry a chunk."""
    return [
        [entry(INDICES[index](place), IDS[identity](place, piece), name, arguments)]
        for place, (call_name, text) in enumerate(calls)
        for piece, (name, arguments) in enumerate(FORMS[form](call_name, text))
    ]


def expected(calls: list[tuple[str, str]]) -> list[tuple[str, Any]]:
    return [(name, json.loads(text)) for name, text in calls]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("identity", IDS)
@pytest.mark.parametrize("index", INDICES)
@settings(max_examples=10, deadline=None)
@given(calls=CALLS)
def test_calls_in_a_dialect_are_those_that_were_made(index, identity, form, calls):
    # Whether an empty object stands for arguments to come is not to be told from the next call's without a name.
    if form in ("name last", "after an empty object"):
        calls = [(name, text) for name, text in calls if text != "{}"] or [("f", '{"a": 1}')]
    assert read(streamed(calls, index, identity, form)) == expected(calls)


@settings(max_examples=50, deadline=None)
@given(CALLS, st.sampled_from(list(INDICES)), st.sampled_from(list(IDS)), st.booleans())
def test_several_calls_in_one_chunk_are_told_apart(calls, index, identity, in_pieces):
    form = "name, then pieces" if in_pieces else "whole"
    chunk = [piece for entries in streamed(calls, index, identity, form) for piece in entries]
    assert read([chunk]) == expected(calls)


@settings(max_examples=50, deadline=None)
@given(CALLS, st.sampled_from(["numbered", "absent"]), st.sampled_from(["repeated", "at first"]))
def test_calls_whose_pieces_come_in_turns_are_told_apart(calls, index, identity):
    if (index, identity) == ("absent", "at first"):
        identity = "repeated"
    each = [streamed(calls, index, identity, "name, then pieces")]
    by_call = [
        [chunk for chunk in each[0] if chunk[0].get("index") == place or chunk[0].get("id") == f"id_{place}"]
        for place in range(len(calls))
    ]
    turns = [chunks[turn] for turn in range(3) for chunks in by_call if turn < len(chunks)]
    assert read(turns) == expected(calls)


@settings(max_examples=50, deadline=None)
@given(
    CALLS,
    st.sampled_from(list(INDICES)),
    st.sampled_from(list(IDS)),
    st.sampled_from(["name, then pieces", "whole", "an object"]),
    st.booleans(),
)
def test_complete_calls_that_are_repeated_at_the_end_count_once(calls, index, identity, form, with_ids):
    repeated = [
        entry(INDICES[index](place), IDS[identity](place, 0) if with_ids else None, name, json.loads(text))
        for place, (name, text) in enumerate(calls)
    ]
    assert read([*streamed(calls, index, identity, form), repeated], is_last=True) == expected(calls)


@settings(max_examples=50, deadline=None)
@given(st.tuples(NAMES, ARGUMENTS), st.sampled_from(["numbered", "all zero", "null", "absent"]), st.booleans())
def test_an_id_that_is_new_in_each_piece_begins_no_call(call, index, with_name):
    name, text = call
    pieces = [entry(INDICES[index](0), "id_0", name, "")]
    pieces += [
        entry(INDICES[index](0), f"id_{place}", name if with_name else None, piece)
        for place, piece in enumerate(halves(text), 1)
    ]
    assert read([[piece] for piece in pieces]) == expected([call])


@pytest.mark.parametrize(
    ("chunks", "calls"),
    [
        # The same id for every call.
        ([[entry(0, "x", "f", '{"a": 1}')], [entry(0, "x", "f", '{"a": 2}')]], [("f", {"a": 1}), ("f", {"a": 2})]),
        ([[entry(0, "x", "f", '{"a": 1}')], [entry(1, "x", "f", '{"a": 1}')]], [("f", {"a": 1}), ("f", {"a": 1})]),
        # Two equal calls are two where their ids or indices say so.
        ([[entry(0, "a", "f", "{}")], [entry(0, "b", "f", "{}")]], [("f", {}), ("f", {})]),
        ([[entry(0, None, "f", "{}"), entry(0, None, "f", "{}")]], [("f", {}), ("f", {})]),
        # Without arguments at all.
        ([[entry(None, None, "f", None)], [entry(None, None, "g", None)]], [("f", {}), ("g", {})]),
        (
            [[entry(0, "a", "f", "null")], [entry(0, "b", "f", "nu")], [entry(0, None, None, "ll")]],
            [("f", {}), ("f", {})],
        ),
        # The arguments as JSON text once more.
        (
            [[entry(0, "a", "f", '"{\\"a\\":')], [entry(0, None, None, ' 1}"')], [entry(0, "b", "f", '"{}"')]],
            [("f", {"a": 1}), ("f", {})],
        ),
        ([[entry(0, "a", "f", "[1]")], [entry(1, "b", "f", "oops")]], [("f", [1]), ("f", "oops")]),
        # The index comes and goes.
        ([[entry(-1, "a", "f", "")], [entry(0, None, None, '{"a": 1}')]], [("f", {"a": 1})]),
        ([[entry(0, "a", "f", "")], [entry(-1, None, None, '{"a": 1}')]], [("f", {"a": 1})]),
        # Numbered calls that come once more, in the middle and with new ids.
        (
            [
                [entry(0, "a", "f", '{"a": 1}')],
                [entry(1, "b", "g", "{}")],
                [entry(0, "c", "f", '{"a":1}'), entry(1, None, "g", "{}")],
                [entry(2, "d", "f", '{"a": 1}')],
            ],
            [("f", {"a": 1}), ("g", {}), ("f", {"a": 1})],
        ),
        # An empty object before the arguments, in turns.
        (
            [
                [entry(0, "a", "f", "{}"), entry(1, "b", "g", {})],
                [entry(1, None, None, '{"b": 2}'), entry(0, None, None, '{"a": 1}')],
            ],
            [("f", {"a": 1}), ("g", {"b": 2})],
        ),
        # The name so far is repeated as it grows.
        ([[entry(0, "a", "get_", "")], [entry(0, "a", "get_time", "{}")]], [("get_time", {})]),
        # Positions in the list stand in for indices.
        (
            [
                [entry(None, None, "f", ""), entry(None, None, "g", "")],
                [entry(None, None, None, '{"a"'), entry(None, None, None, '{"b"')],
                [entry(None, None, None, ": 1}"), entry(None, None, None, ": 2}")],
            ],
            [("f", {"a": 1}), ("g", {"b": 2})],
        ),
        # Other shapes of an entry.
        ([[{"name": "f", "arguments": "{}"}]], [("f", {})]),
        ([[None, {"id": 7, "index": "0", "function": {"name": "f", "arguments": []}}]], [("f", {})]),
        # White space around the arguments.
        ([[entry(0, "a", "f", "\n")], [entry(0, None, None, '{"a": 1}\n')]], [("f", {"a": 1})]),
    ],
)
def test_other_dialects(chunks, calls):
    assert read(chunks) == calls


def test_calls_without_end_are_an_error():
    reader = ToolCallReader(["f"])
    with pytest.raises(ValueError, match="more than 1000 tool calls"):
        reader.read([entry(None, None, "f", "{}")] * 1001)


def test_a_name_that_never_comes_is_that_of_the_only_tool_and_else_an_error():
    assert read([[entry(0, "a", None, '{"a": 1}')]], ("f",)) == [("f", {"a": 1})]
    with pytest.raises(ValueError, match="without a name"):
        read([[entry(0, "a", None, '{"a": 1}')]])


def test_names_of_tools_that_are_not_known_come_in_pieces_too():
    pieces = [[entry(0, "a", "get_", "")], [entry(0, None, "weather", "")], [entry(0, None, None, "{}")]]
    assert read(pieces, ()) == [("get_weather", {})]


def test_a_name_is_told_as_soon_as_it_is_known():
    reader = ToolCallReader(["f", "get", "get_time"])
    assert [delta.name for delta in reader.read([entry(0, "a", "f", "")])] == ["f"]
    assert reader.read([entry(1, "b", "get", "")]) == []
    assert [delta.name for delta in reader.read([entry(1, None, "_time", "")])] == ["get_time"]
