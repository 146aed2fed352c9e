"""The work for a piece of an answer does not grow with what came before it, whatever a caller makes the model write.

Work is counted, not timed: the lines of the parser's code that run, and the characters that it copies.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from abstractllm.providers.huggingface.worker.parsing import reader
from abstractllm.providers.huggingface.worker.parsing.answer_parser import AnswerParser, ReasoningPiece, TextPiece
from abstractllm.providers.huggingface.worker.parsing.call_formats import FORMATS
from abstractllm.providers.huggingface.worker.parsing.channel_parser import ChannelParser

FOLDER = str(Path(reader.__file__).parent)
TOOLS: dict[str, Any] = {"weather": {"type": "object"}}
THINK = ("<think>", "</think>")
OPENINGS = {
    "json": "<tool_call>",
    "elements": "<seed:tool_call>",
    "python": "<|tool_call_start|>",
    "bare": "<|tool_call>",
    "named": "[TOOL_CALLS]",
}


def parser(kind: str) -> AnswerParser:
    match kind:
        case "text":
            return AnswerParser(None)
        case "reasoning":
            return AnswerParser(THINK, is_inside=True)
        case "reasoning?":
            return AnswerParser(THINK)
        case "channels":
            return ChannelParser(is_in_message=False, tools=TOOLS)
        case _:
            format = next(one for one in FORMATS if (one.body, one.opening) == (kind, OPENINGS[kind]))
            return AnswerParser(None, format=format, tools=TOOLS)


def work(kind: str, pieces: list[str], monkeypatch: pytest.MonkeyPatch, is_special: bool = False) -> int:
    """Returns the lines that run, and the characters that are copied, for an answer in these pieces."""
    total = 0
    slice_of = reader.Reader.slice

    def counted_slice(self: reader.Reader, begin: int, end: int) -> str:
        nonlocal total
        total += max(0, end - begin)
        return slice_of(self, begin, end)

    def trace(frame: Any, event: str, argument: object) -> Any:
        nonlocal total
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        total += event == "line"
        return trace

    subject, written = parser(kind), []
    with monkeypatch.context() as patch:
        patch.setattr(reader.Reader, "slice", counted_slice)
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            for piece in pieces:
                written += subject.push(piece, is_special)
            written += subject.end()
        finally:
            sys.settrace(before)
    shown = "".join(piece.text for piece in written if isinstance(piece, TextPiece | ReasoningPiece))
    assert is_special or not shown or shown in "".join(pieces)
    return total


SHAPES: list[tuple[str, list[str], str]] = [
    ("text", [], " \n"),
    ("reasoning", ["a"], "\n" * 20),
    ("reasoning?", [], "\n" * 20),
    ("reasoning?", ["<think>a</think>"], "\n" * 20),
    ("channels", ["<|channel|>analysis<|message|>a"], "\n" * 20),
    ("json", ["a"], " " * 20),
    ("json", ["<tool_call>"], " " * 20),
    ("json", ["<tool_call>"], "<tool_call>"),
    ("json", ['<tool_call>{"a": "'], "long and longer "),
    ("json", ['<tool_call>{"name": "weather", "arguments": {"a": "'], " " * 100),
    ("json", ['<tool_call>{"name": "weather", "arguments": {"a": "'], '<tool_call>{\\"name'),
    ("named", ["[TOOL_CALLS]"], "weather"),
    ("elements", ["<seed:tool_call><function=weather><parameter=x>"], "some text "),
    ("elements", [], "<seed:tool_call><function=weather><parameter=x>"),
    ("python", [], "<|tool_call_start|>[weather("),
    ("python", [], "<|tool_call_start|>[weather(a='"),
    ("bare", [], "<|tool_call>call:weather{"),
    ("bare", [], '<|tool_call>call:weather{a:<|"|>'),
]


@pytest.mark.parametrize(("kind", "beginning", "unit"), SHAPES)
def test_four_times_the_answer_is_four_times_the_work(
    kind: str, beginning: list[str], unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 800 if kind in ("python", "bare") else 200
    once, four_times = (work(kind, [*beginning, *[unit] * times], monkeypatch) for times in (count, 4 * count))
    assert four_times < 5 * once


def test_calls_inside_each_other_are_not_each_read_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def nested(count: int) -> list[str]:
        return ["<|tool_call>call:weather{"] * count + ["}"] * count

    once, four_times = (work("bare", nested(count), monkeypatch) for count in (700, 2800))
    assert four_times < 6 * once


def test_special_tokens_that_are_no_text_cost_each_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("text", "json", "reasoning"):
        once, four_times = (work(kind, ["<|x|>"] * count, monkeypatch, is_special=True) for count in (500, 2000))
        assert four_times < 5 * once


@pytest.mark.parametrize("cuts", [1, 7, 1000])
def test_of_very_long_white_space_before_a_call_the_end_is_dropped(cuts: int) -> None:
    text = "a" + " " * 200 + '<tool_call>{"name": "weather", "arguments": {}}</tool_call>'
    subject = parser("json")
    pieces = [piece for begin in range(0, len(text), cuts) for piece in subject.push(text[begin : begin + cuts])]
    pieces += subject.end()
    assert "".join(piece.text for piece in pieces if isinstance(piece, TextPiece)) == "a" + " " * 136
    assert subject.complete_calls == 1
