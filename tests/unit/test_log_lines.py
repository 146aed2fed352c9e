"""The form of log records: nothing that a record holds leaves its line, or passes for another field."""

import json
import logging
import re

import pytest

from abstractllm.utils.log_lines import JsonFormatter, StructuredMessage, TextFormatter

CHARACTERS = [
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u061c\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069\ufeff\ud800\udfff\U000e0041",
]
"""Control characters, line ends of Unicode, marks that turn the direction of writing, halves of characters, tags."""
FORGED = "\n2026-01-01T00:00:00.000Z INFO abstractllm.call forged"
START = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ \S+ ")


def record(message: object, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    trace = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("abstractllm.test", logging.INFO, __file__, 1, message, args, trace)


@pytest.mark.parametrize("character", CHARACTERS, ids=[f"U+{ord(character):04X}" for character in CHARACTERS])
def test_what_does_not_print_is_an_escape_wherever_it_stands(character: str) -> None:
    text = f"a{character}b"
    fields = {"request_id": text, "labels": {text: text}, "number": 1}
    for message in (record("said %s", text), record(text), record(StructuredMessage("call", fields))):
        line = TextFormatter().format(message)
        assert line.isprintable()
        assert START.match(line)
        assert "\n" not in (json_line := JsonFormatter().format(message))
        assert json_line.isascii() and json_line.isprintable()
    values = json.loads(JsonFormatter().format(record(StructuredMessage("call", fields))))
    assert (values["request_id"], values["labels"], values["number"]) == (text, {text: text}, 1)


def test_traceback_is_told_in_lines_that_no_record_begins_with() -> None:
    try:
        try:
            raise ValueError(f"first{FORGED}\x1b[2J\rthird")
        except ValueError as error:
            error.add_note(f"noted{FORGED}")
            raise ExceptionGroup(f"several{FORGED}", [KeyError(FORGED), OSError(FORGED)]) from error
    except ExceptionGroup as error:
        failed = record("failed", error=error)
    first, *others = TextFormatter().format(failed).split("\n")
    assert START.match(first) and first.endswith(" failed")
    assert all(line.startswith("  | ") and line.isprintable() for line in others)
    assert any("test_traceback_is_told" in line for line in others)
    assert any("ValueError: first" in line and "\\x1b[2J\\rthird" in line for line in others)
    assert any("KeyError" in line for line in others) and any("OSError" in line for line in others)
    forged = FORGED.strip()
    assert not [line for line in others if line.lstrip(" |+-").startswith(forged)]
    assert forged in "".join(others)
    values = json.loads(JsonFormatter().format(failed))
    assert "ValueError: first" in values["exception"]


def test_traceback_of_wrong_source_is_told() -> None:
    try:
        compile(f"first =\nsecond {FORGED}", "name\nof a file", "exec")
    except SyntaxError as error:
        lines = TextFormatter().format(record("failed", error=error)).split("\n")
    assert all(line.isprintable() for line in lines)
    assert "SyntaxError" in lines[-1]


@pytest.mark.parametrize("value", ["a llm=other", 'a" llm="other', 'a\\" llm="other', "", "a=b", FORGED, "\\"])
def test_value_cannot_be_taken_for_two_fields(value: str) -> None:
    line = TextFormatter().format(record(StructuredMessage("call", {"request_id": value, "llm": "real", "n": 2})))
    fields = re.findall(r' ([a-z_]+)=("(?:[^"\\]|\\.)*"|[^ "]+)', line)
    assert [name for name, _ in fields] == ["request_id", "llm", "n"]
    assert fields[1:] == [("llm", "real"), ("n", "2")]


def test_label_cannot_be_taken_for_a_field_of_its_own() -> None:
    line = TextFormatter().format(record(StructuredMessage("call", {"labels": {"x status": "OK status=OK", "a": "b"}})))
    assert line.endswith(' call labels."x status"="OK status=OK" labels.a=b')


def test_named_value_does_not_replace_the_facts_of_the_record() -> None:
    values = json.loads(JsonFormatter().format(record(StructuredMessage("call", {"level": "DEBUG", "time": "never"}))))
    assert (values["level"], values["message"], values["logger"]) == ("INFO", "call", "abstractllm.test")
    assert values["time"].startswith("20")


def test_long_message_is_cut_and_says_so() -> None:
    for formatter in (TextFormatter(), JsonFormatter()):
        line = formatter.format(record("%s", "x" * 10_000_000))
        assert len(line) < 70_000
        assert "(9934464 characters more)" in line
        fields = {"text": "x" * 10_000_000, "labels": {"key": "x" * 10_000_000}}
        line = formatter.format(record(StructuredMessage("response", fields)))
        assert len(line) < 140_000
        assert "characters more)" in line


def test_other_formatters_show_the_values_too() -> None:
    message = record(StructuredMessage("response", {"request_id": "r1", "labels": {"team": "blue"}}))
    assert logging.Formatter("%(message)s").format(message) == "response request_id=r1 labels.team=blue"


def test_setup_escapes_what_a_request_says(capsys: pytest.CaptureFixture[str]) -> None:
    from abstractllm import create_llm
    from abstractllm.utils.logging import setup_logging

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        setup_logging(logging.DEBUG)
        create_llm("scripted", reply=f"answer{FORGED}", log_content=True).generate(
            f"prompt{FORGED}", request_id=f"r{FORGED}", labels={f"k{FORGED}": f"v{FORGED}"}
        )
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    lines = capsys.readouterr().err.splitlines()
    assert any("answer" in line for line in lines) and any("prompt" in line for line in lines)
    assert not [line for line in lines if not START.match(line) or line.startswith(FORGED.strip())]
