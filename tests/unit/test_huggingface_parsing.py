"""Reasoning, text and tool calls told apart in an answer, wherever it is cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abstractllm.providers.huggingface.protocol.messages import CallPiece
from abstractllm.providers.huggingface.worker.parsing.answer_parser import AnswerParser, ReasoningPiece, TextPiece
from abstractllm.providers.huggingface.worker.parsing.call_formats import FORMATS, CallFormat
from abstractllm.providers.huggingface.worker.parsing.json_reader import read_json
from abstractllm.providers.huggingface.worker.parsing.reader import Reader

THINK = ("<think>", "</think>")


def of_kind(body: str, opening: str, closing: str = "") -> CallFormat:
    """The first format of a kind."""
    return next(one for one in FORMATS if (one.body, one.opening) == (body, opening) and one.closing.endswith(closing))


CODER, HERMES = of_kind("elements", "<tool_call>"), of_kind("json", "<tool_call>")
MISTRAL_NEW, MISTRAL = of_kind("named", "[TOOL_CALLS]"), of_kind("json", "[TOOL_CALLS]")
PHI = of_kind("json", "<|tool_call|>", "<|/tool_call|>")
GRANITE = next(one for one in FORMATS if one.opening == "<|tool_call|>" and not one.closing)
PYTHON_TAG, LLAMA = of_kind("json", "<|python_tag|>"), of_kind("json", "")
TOOLS: dict[str, Any] = {
    "weather": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    "now": {},
}


def parse(
    text: str,
    format: CallFormat | None = HERMES,
    *,
    cuts: tuple[int, ...] = (),
    block: tuple[str, str] | None = None,
    is_inside: bool = False,
    tools: dict[str, Any] = TOOLS,
) -> tuple[list[Any], AnswerParser]:
    """Parses a text that comes in pieces, and returns ("text", ...), ("reasoning", ...), (name, arguments)."""
    parser = AnswerParser(block, is_inside, format, tools)
    pieces = []
    for begin, end in zip((0, *cuts), (*cuts, len(text)), strict=True):
        pieces += parser.push(text[begin:end])
    joined: list[Any] = []
    ids = set()
    for piece in (*pieces, *parser.end()):
        if isinstance(piece, TextPiece | ReasoningPiece):
            kind = "text" if isinstance(piece, TextPiece) else "reasoning"
            assert piece.text
            if joined and joined[-1][0] == kind:
                joined[-1] = (kind, joined[-1][1] + piece.text)
            else:
                joined.append((kind, piece.text))
        elif piece.name:
            ids.add(piece.id)
            assert (piece.index, piece.arguments) == (len(ids) - 1, "")
            joined.append((piece.name, ""))
        else:
            assert piece.index == len(ids) - 1
            joined[-1] = (joined[-1][0], joined[-1][1] + piece.arguments)
    assert all(len(call_id) == 9 and call_id.isalnum() for call_id in ids)
    return joined, parser


CALL = '{"name": "weather", "arguments": {"city": "Paris", "days": 3}}'
ARGUMENTS = '{"city": "Paris", "days": 3}'


@pytest.mark.parametrize(
    ("format", "text", "calls"),
    [
        (HERMES, f"<tool_call>\n{CALL}\n</tool_call>", [("weather", ARGUMENTS)]),
        (HERMES, f"<tool_call>{CALL}</tool_call>\n<tool_call>\n{CALL}\n</tool_call>\n", [("weather", ARGUMENTS)] * 2),
        (HERMES, '<tool_call>{"arguments": {"a": 1}, "name": "now"}</tool_call>', [("now", '{"a": 1}')]),
        (HERMES, '<tool_call>{"name": "now", "arguments": "{\\"a\\": 1}"}</tool_call>', [("now", '{"a": 1}')]),
        (HERMES, '<tool_call>{"id": [1, {}], "name": "now"}</tool_call>', [("now", "{}")]),
        (HERMES, f"<tool_call>\n{CALL[:-1]}\n</tool_call>", [("weather", ARGUMENTS)]),
        (HERMES, f"<tool_call>\n{CALL}", [("weather", ARGUMENTS)]),
        (HERMES, '<tool_call>{"name": "now", "arguments": {"a": "1\n2"}}</tool_call>', [("now", '{"a": "1\\n2"}')]),
        (
            CODER,
            "<tool_call>\n<function=weather>\n<parameter=city>\nNew\nYork 5\n</parameter>\n<parameter=days>\n3\n"
            "</parameter>\n</function>\n</tool_call>",
            [("weather", '{"city": "New\\nYork 5", "days": 3}')],
        ),
        (CODER, "<tool_call><function=now></function></tool_call>", [("now", "{}")]),
        (MISTRAL, f"[TOOL_CALLS] [{CALL}, {CALL}]", [("weather", ARGUMENTS)] * 2),
        (MISTRAL, f"[TOOL_CALLS]{CALL}", [("weather", ARGUMENTS)]),
        (MISTRAL_NEW, f"[TOOL_CALLS]weather[ARGS]{ARGUMENTS}", [("weather", ARGUMENTS)]),
        (MISTRAL_NEW, "[TOOL_CALLS]now[CALL_ID]abc[ARGS]{}[TOOL_CALLS]now[ARGS]{}", [("now", "{}")] * 2),
        (PHI, f"<|tool_call|>[{CALL}]<|/tool_call|>", [("weather", ARGUMENTS)]),
        (GRANITE, f"<|tool_call|>[{CALL}]", [("weather", ARGUMENTS)]),
        (PYTHON_TAG, f"<|python_tag|>{CALL.replace('arguments', 'parameters')}", [("weather", ARGUMENTS)]),
        (LLAMA, CALL.replace("arguments", "parameters"), [("weather", ARGUMENTS)]),
        (LLAMA, f"\n{CALL}; {CALL}\n", [("weather", ARGUMENTS)] * 2),
    ],
)
def test_calls_are_read_in_every_known_format(format: CallFormat, text: str, calls: list[Any]) -> None:
    pieces, parser = parse(text, format)
    assert pieces == calls
    assert parser.complete_calls == len(calls)
    assert all(isinstance(json.loads(arguments), dict) for _, arguments in pieces)


def test_arguments_are_given_out_as_they_come() -> None:
    parser = AnswerParser(None, False, HERMES, TOOLS)
    assert parser.push('<tool_call>{"name": "weather", "arguments"') == []
    begin, *_ = parser.push(': {"ci')
    assert isinstance(begin, CallPiece)
    assert (begin.index, begin.name) == (0, "weather")
    for part in ('ty": "', "Pa", "ris", '"', "}"):
        assert "".join(piece.arguments for piece in parser.push(part) if isinstance(piece, CallPiece)) == part
    assert parser.complete_calls == 1
    assert parser.push("}\n</tool_call>") == []


def test_text_before_between_and_after_calls_stays_text_in_its_place() -> None:
    call = f"<tool_call>\n{CALL}\n</tool_call>"
    pieces, _ = parse(f"First. \n{call}\n\nThen {call}\n end ")
    assert pieces == [
        ("text", "First."),
        ("weather", ARGUMENTS),
        ("text", "\n\nThen"),
        ("weather", ARGUMENTS),
        ("text", "\n end "),
    ]


@pytest.mark.parametrize(
    ("format", "text"),
    [
        (HERMES, "<tool_call>\n{'name': 'weather'}\n</tool_call>"),
        (HERMES, 'a <tool_call>{"name": "unknown", "arguments": {}}</tool_call> b'),
        (HERMES, '<tool_call>{"name": "now", "arguments": [1]}</tool_call>'),
        (HERMES, '<tool_call>{"name": "now", "arguments": "no JSON"}</tool_call>'),
        (HERMES, '<tool_call>{"name": "now"'),
        (HERMES, "<tool_call>\n"),
        (HERMES, "the tag <tool_call"),
        (CODER, f"<tool_call>{CALL}</tool_call>"),
        (CODER, "<tool_call><function=unknown></function></tool_call>"),
        (CODER, "<tool_call>\n<function=now>\n<parameter=a>\n1"),
        (MISTRAL, "[TOOL_CALLS] none"),
        (MISTRAL_NEW, "[TOOL_CALLS]unknown[ARGS]{}"),
        (LLAMA, '{"name": "Bob", "parameters": {}}'),
        (LLAMA, '{"answer": 42} '),
        (LLAMA, f"I would say {CALL}"),
        (LLAMA, " [1, 2]"),
    ],
)
def test_what_is_no_call_is_given_back_as_text(format: CallFormat, text: str) -> None:
    pieces, parser = parse(text, format)
    assert pieces == [("text", text)]
    assert parser.complete_calls == 0


def test_a_call_that_breaks_off_in_its_arguments_keeps_what_came_and_the_rest_is_text() -> None:
    pieces, parser = parse('<tool_call>{"name": "now", "arguments": {"a": [1, 2')
    assert (pieces, parser.complete_calls) == ([("now", '{"a": [1, 2')], 0)
    pieces, parser = parse("""<tool_call>{"name": "now", "arguments": {"a": 'b'}}</tool_call>""")
    assert (pieces, parser.complete_calls) == ([("now", '{"a": '), ("text", "'b'}}</tool_call>")], 0)


@pytest.mark.parametrize("name", ["weather", "now"])
def test_arguments_in_elements_take_the_type_of_the_schema(name: str) -> None:
    values = {
        "city": "12",
        "days": "12",
        "flag": "true",
        "list": '["a", 1]',
        "word": "twelve",
        "both": "12",
        "nan": "NaN",
    }
    properties = {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "flag": {"type": "boolean"},
        "list": {"type": "array"},
        "word": {"type": "integer"},
        "both": {"type": ["string", "null"]},
        "nan": {"type": "number"},
    }
    parameters = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    tools = {"weather": {"properties": properties}, "now": {"properties": [1]}}
    pieces, _ = parse(f"<tool_call>\n<function={name}>\n{parameters}</function>\n</tool_call>", CODER, tools=tools)
    typed = {**values, "days": 12, "flag": True, "list": ["a", 1]}
    assert json.loads(pieces[0][1]) == (typed if name == "weather" else values)


@pytest.mark.parametrize(
    ("text", "is_inside", "expected"),
    [
        ("<think>\nHm.\n\nOk.\n</think>\n\nHello ", False, [("reasoning", "Hm.\n\nOk."), ("text", "Hello ")]),
        ("\n<think>Hm</think>Hello", False, [("reasoning", "Hm"), ("text", "Hello")]),
        ("<think>\n\n</think>\n\nHello", False, [("text", "Hello")]),
        ("Hm.\n</think>\nHello", True, [("reasoning", "Hm."), ("text", "Hello")]),
        ("<think>Hm. ", False, [("reasoning", "Hm.")]),
        ("  Hello <think> is a tag</think>", False, [("text", "  Hello <think> is a tag</think>")]),
        ("<thin", False, [("text", "<thin")]),
        ("Hm </thin", True, [("reasoning", "Hm </thin")]),
        ("", True, []),
    ],
)
def test_reasoning_is_a_block_at_the_beginning(text: str, is_inside: bool, expected: list[Any]) -> None:
    for format in (None, HERMES):
        pieces, parser = parse(text, format, block=THINK, is_inside=is_inside)
        assert pieces == expected
        assert parser.has_reasoned == (is_inside or text.lstrip().startswith("<think>"))


def test_special_tokens_are_read_but_never_text() -> None:
    parser = AnswerParser(None, False, MISTRAL_NEW, TOOLS)
    pieces = [*parser.push("Look: "), *parser.push("[TOOL_CALLS]", is_special=True), *parser.push("nothing ")]
    pieces += [*parser.push("[TOOL_CALLS]", is_special=True), *parser.push("now"), *parser.push("[ARGS]", True)]
    pieces += [*parser.push("{}"), *parser.end()]
    assert "".join(piece.text for piece in pieces if isinstance(piece, TextPiece)) == "Look: nothing"
    assert parser.complete_calls == 1


FRAGMENTS = [
    *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<think>", "</think>", "<function=", "</function>"),
    *(
        "<parameter=city>",
        "</parameter>",
        "weather",
        "now",
        CALL,
        ARGUMENTS,
        CALL[:30],
        CALL[30:],
        '{"name": "now"',
        "}",
    ),
    *(
        "{",
        "[",
        "]",
        ",",
        '"',
        "\\",
        "\\u00e9",
        ":",
        " ",
        "\n",
        "\n\n",
        "<",
        "[T",
        "a",
        "12",
        "-1.5e3",
        "true",
        "é",
        ";",
        ">",
    ),
    *(f"<tool_call>\n{CALL}\n</tool_call>", f"[TOOL_CALLS]now[ARGS]{ARGUMENTS}", "<think>\nHm\n</think>\n\n"),
    "<tool_call>\n<function=weather>\n<parameter=city>\nX\n</parameter>\n</function>\n</tool_call>",
]


@settings(max_examples=400, deadline=None)
@given(data=st.data(), fragments=st.lists(st.sampled_from(FRAGMENTS), max_size=12), is_inside=st.booleans())
def test_any_cut_of_a_text_gives_the_same(data: st.DataObject, fragments: list[str], is_inside: bool) -> None:
    text = "".join(fragments)
    format = data.draw(st.sampled_from([None, *FORMATS]))
    block = data.draw(st.sampled_from([None, THINK]))
    cuts = tuple(sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=30))))
    whole, one = parse(text, format, block=block, is_inside=is_inside)
    for places in (cuts, tuple(range(1, len(text)))):
        cut, other = parse(text, format, block=block, is_inside=is_inside, cuts=places)
        assert cut == whole
        assert (one.complete_calls, one.has_reasoned, one.is_answering, one.is_text) == (
            other.complete_calls,
            other.has_reasoned,
            other.is_answering,
            other.is_text,
        )
    if not any(kind in TOOLS for kind, _ in whole) and block is None:
        assert "".join(part for _, part in whole) == text
    assert sum(_is_object(part) for kind, part in whole if kind in TOOLS) >= one.complete_calls


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(value=JSON, is_ascii=st.booleans(), indent=st.sampled_from([None, 2]), junk=st.sampled_from(["", " ", "x", "}"]))
def test_json_is_read_to_its_end_and_no_further(value: Any, is_ascii: bool, indent: int | None, junk: str) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii, indent=indent)
    reader, read = Reader(), []
    reader.add(text + " " + junk)
    reader.has_ended = True
    steps = read_json(reader, read.append)
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert end.value.value
    assert (json.loads("".join(read)), reader.place) == (value, len(text))


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet='{}[],:"\\u0a1e-.tf ', max_size=12))
def test_json_reader_and_json_module_agree_on_what_is_json(text: str) -> None:
    reader, read = Reader(), []
    reader.add(text)
    reader.has_ended = True
    with pytest.raises(StopIteration) as end:
        next(read_json(reader, read.append))
    try:
        json.loads(text)
        is_json = True
    except ValueError:
        is_json = False
    assert (end.value.value and not text[reader.place :].strip()) == is_json


def test_json_may_be_nested_to_any_depth() -> None:
    depth = 100_000
    reader, read = Reader(), []
    reader.add('[{"a":' * depth + "1" + "}]" * depth)
    reader.has_ended = True
    with pytest.raises(StopIteration) as end:
        next(read_json(reader, read.append))
    assert end.value.value
    assert reader.place == reader.end
