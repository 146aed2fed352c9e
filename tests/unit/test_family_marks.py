"""The marks of model families: however an answer is cut into pieces, its parts are the same, and no text is lost."""
# ruff: noqa: RUF001 - models' marks are what they are

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abstractllm.providers.huggingface.protocol.messages import CallPiece
from abstractllm.providers.huggingface.worker.parsing.answer_parser import AnswerParser, ReasoningPiece, TextPiece
from abstractllm.providers.huggingface.worker.parsing.call_formats import FORMATS, CallFormat
from abstractllm.providers.huggingface.worker.parsing.call_texts import (
    arguments_of_bare_object,
    arguments_of_python_call,
)
from abstractllm.providers.huggingface.worker.parsing.channel_parser import ChannelParser

TOOLS: dict[str, Any] = {"weather": {"type": "object", "properties": {"city": {"type": "string"}}}, "now": {}}
ARGUMENTS = '{"city": "Paris"}'
CALLS = [
    *(f'{{"name": "weather", "arguments": {ARGUMENTS}}}', f'{{"weather": {ARGUMENTS}}}', f"weather{ARGUMENTS}"),
    *(
        'weather(city="Paris")',
        "now()",
        '[weather(city="a)]"), now()]',
        'call:weather{city:<|"|>a}<|"|>}',
        "call:now{}",
    ),
    *("<function=weather>\n<parameter=city>\nX\n</parameter>\n</function>", "weather\n<arg_key>city</arg_key>\n"),
    *("<arg_value>1</arg_value>", '<invoke name="now">\n</invoke>', '<invoke name="weather"><parameter name="city">'),
    *("function<｜tool▁sep｜>weather\n```json\n", "functions.weather:0", "\n```", "weather", "now", ARGUMENTS),
]
PIECES = [*CALLS, *(" ", "\n", "[", "]", "{", "}", "(", ")", ",", '"', "'", "\\", "<", "a", "1", "é", "\n\n", "text ")]

Outcome = tuple[list[tuple[str, str]], int]


def outcome(parser: AnswerParser, text: str, cuts: list[int]) -> Outcome:
    """The parts of an answer that comes in pieces, those of one kind joined, and the number of whole calls."""
    pieces = []
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        pieces += parser.push(text[begin:end])
    joined: list[tuple[str, str]] = []
    for piece in (*pieces, *parser.end()):
        match piece:
            case TextPiece(text=part):
                kind = "text"
            case ReasoningPiece(text=part):
                kind = "reasoning"
            case CallPiece(index=index, name=name, arguments=part):
                kind = f"call {index}"
                part = f"{name}:" if name else part
            case other:
                raise AssertionError(other)
        if joined and joined[-1][0] == kind:
            joined[-1] = (kind, joined[-1][1] + part)
        else:
            joined.append((kind, part))
    return joined, parser.complete_calls


def check(data: st.DataObject, new_parser: Callable[[], AnswerParser], text: str) -> Outcome:
    places = data.draw(st.lists(st.integers(0, len(text)), max_size=6).map(sorted)) if text else []
    whole = outcome(new_parser(), text, [])
    assert outcome(new_parser(), text, places) == whole
    assert outcome(new_parser(), text, list(range(1, len(text)))) == whole
    return whole


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: f"{format.body} {format.opening}")
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_cut_of_calls_gives_the_same_and_what_is_no_call_is_text(data: st.DataObject, format: CallFormat) -> None:
    fragments = data.draw(st.lists(st.sampled_from([*PIECES, *format.markers * 2, format.opening]), max_size=10))
    text = "".join(fragments)
    parts, _ = check(data, lambda: AnswerParser(None, False, format, TOOLS), text)
    if all(kind == "text" for kind, _ in parts):
        assert "".join(part for _, part in parts) == text


@settings(max_examples=200, deadline=None)
@given(
    data=st.data(),
    fragments=st.lists(st.sampled_from(["<response>", "</response>", "<resp", "</", "<think>", "</think>", *PIECES])),
)
def test_any_cut_of_a_framed_answer_gives_the_same(data: st.DataObject, fragments: list[str]) -> None:
    text = "".join(fragments)
    for format in (None, FORMATS[0]):
        frame = (("<response>",), "</response>")
        check(data, lambda: AnswerParser(("<think>", "</think>"), False, format, TOOLS, frame), text)  # noqa: B023


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<response>\nIt is 4.\n</response>", [("text", "It is 4.")]),
        ("<think>Hm.</think>\n<response>It is 4.</response>\n", [("reasoning", "Hm."), ("text", "It is 4.")]),
        ("<response>a</response> b", [("text", "ab")]),
        ("<response>It is", [("text", "It is")]),
        ("<response>It is </resp", [("text", "It is </resp")]),
        ("An <response>element</response> in text", [("text", "An <response>element</response> in text")]),
        ("<respond>", [("text", "<respond>")]),
    ],
)
def test_a_frame_is_one_at_the_beginning(text: str, expected: list[tuple[str, str]]) -> None:
    for format in (None, FORMATS[0]):
        parser = AnswerParser(("<think>", "</think>"), False, format, TOOLS, (("<response>",), "</response>"))
        assert outcome(parser, text, [])[0] == expected


CHANNEL_PIECES = [
    *("<|start|>assistant", "<|channel|>analysis", "<|channel|>commentary", "<|channel|>final", "<|message|>"),
    *("<|end|>", "<|call|>", "<|return|>", " to=functions.weather", " to=browser.open", "<|constrain|>json"),
    *("<|channel|>final<|message|>", "<|channel|>analysis<|message|>", ARGUMENTS, "{}", " ", "\n", "text", "<|", ">"),
]


@settings(max_examples=500, deadline=None)
@given(data=st.data(), fragments=st.lists(st.sampled_from(CHANNEL_PIECES), max_size=14), is_in_message=st.booleans())
def test_any_cut_of_channels_gives_the_same(data: st.DataObject, fragments: list[str], is_in_message: bool) -> None:
    check(data, lambda: ChannelParser(is_in_message, TOOLS), "".join(fragments))


FINAL = "<|channel|>final<|message|>"
ANALYSIS = "<|channel|>analysis<|message|>"
TO = "<|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>"


@pytest.mark.parametrize(
    ("text", "expected", "calls"),
    [
        (f"{ANALYSIS}Hm.<|end|><|start|>assistant{FINAL}Yes.<|return|>", [("reasoning", "Hm."), ("text", "Yes.")], 0),
        (f"{FINAL}Yes.", [("text", "Yes.")], 0),
        (f"{ANALYSIS}Hm.", [("reasoning", "Hm.")], 0),
        (f"{ANALYSIS}One.<|end|><|start|>assistant{ANALYSIS}Two.<|end|>", [("reasoning", "One.\n\nTwo.")], 0),
        (
            f"<|channel|>commentary<|message|>I look.<|end|>{TO}{ARGUMENTS}<|call|>",
            [("text", "I look."), ("call 0", f"weather:{ARGUMENTS}")],
            1,
        ),
        (
            f" to=functions.weather<|channel|>commentary json<|message|>{ARGUMENTS}<|call|>",
            [("call 0", f"weather:{ARGUMENTS}")],
            1,
        ),
        (f"{TO}{ARGUMENTS}<|call|>{TO}{{}}<|call|>", [("call 0", f"weather:{ARGUMENTS}"), ("call 1", "weather:{}")], 2),
        (f"{TO}" + '{"city": "Pa', [("call 0", 'weather:{"city": "Pa')], 0),
        (f"{TO}Paris<|call|>", [("text", "Paris")], 0),
        ("<|channel|>commentary to=functions.none<|message|>{}<|call|>", [("text", "{}")], 0),
        ("<|channel|>analysis to=python<|message|>1+1<|call|>", [("reasoning", "1+1")], 0),
        ("Just text.", [("text", "Just text.")], 0),
        ("<|channel|>fin", [], 0),
        (f"{FINAL}One.<|end|><|start|>assistant{FINAL}Two.", [("text", "One.\n\nTwo.")], 0),
        (f"{ANALYSIS}Hm.{FINAL}Yes.", [("reasoning", "Hm."), ("text", "Yes.")], 0),
        ("", [], 0),
    ],
)
def test_channels_are_reasoning_calls_and_text(text: str, expected: list[tuple[str, str]], calls: int) -> None:
    assert outcome(ChannelParser(False, TOOLS), text, []) == (expected, calls)


def test_a_continued_final_message_goes_on_as_text() -> None:
    assert outcome(ChannelParser(True, {}), " sir.<|return|>", []) == ([("text", " sir.")], 0)


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('(city="Paris", days=3)', {"city": "Paris", "days": 3}),
        (
            "(a='it\\'s', b=[1, 2.5, -3], c={'x': None, 'y': True})",
            {"a": "it's", "b": [1, 2.5, -3], "c": {"x": None, "y": True}},
        ),
        ("(a=true, b=null, c=(1,))", {"a": True, "b": None, "c": [1]}),
        ("()", {}),
        ('(a="""x\ny""")', {"a": "x\ny"}),
    ],
)
def test_arguments_in_pythons_form_are_json(text: str, arguments: dict[str, Any]) -> None:
    assert json.loads(arguments_of_python_call(text)) == arguments


@pytest.mark.parametrize(
    "text",
    [
        "('Paris')",
        "(**x)",
        "(a=open('x'))",
        "(a=1+1)",
        "(a=b'x')",
        "(a=1j)",
        "(a=1e999)",
        "(a={1: 2})",
        "(a=)",
        "(a=...)",
        f"(a={'[' * 5000}{']' * 5000})",
        f"(a='{'x' * 70_000}')",
    ],
)
def test_what_is_no_literal_is_no_call(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        arguments_of_python_call(text)


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{city:<|"|>Paris<|"|>,days:3}', {"city": "Paris", "days": 3}),
        (
            '{a:<|"|>5551234<|"|>, b:true, c:[1,<|"|>x<|"|>], d:{e:null}}',
            {"a": "5551234", "b": True, "c": [1, "x"], "d": {"e": None}},
        ),
        ('{<|"|>k:y<|"|>:1.5e3,"q":"r"}', {"k:y": 1500.0, "q": "r"}),
        ("{a:word}", {"a": "word"}),
        ("{}", {}),
    ],
)
def test_objects_without_quotes_are_json(text: str, arguments: dict[str, Any]) -> None:
    assert json.loads(arguments_of_bare_object(text, '<|"|>')) == arguments


@pytest.mark.parametrize(
    "text", ["{a}", "{a:1 b:2", "[1]", '{a:<|"|>x}', "{:1}", "{a:" + "[" * 100 + "]" * 100 + "}", "{a:1}x"]
)
def test_what_is_no_object_is_no_call(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        arguments_of_bare_object(text, '<|"|>')
