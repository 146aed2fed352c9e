"""`abstractllm generate`, as its users run it: a process of its own, with the provider that plays scripts."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.unit.cli.support import COMMAND, FAILING, GENERATE, run


def test_an_answer_goes_to_the_standard_output() -> None:
    done = run(*GENERATE, "What is said")
    assert (done.returncode, done.stdout, done.stderr) == (0, "What is said\n", "")


def test_the_answer_is_the_same_when_it_is_not_streamed() -> None:
    done = run(*GENERATE, "--no-stream", "What is said")
    assert (done.returncode, done.stdout, done.stderr) == (0, "What is said\n", "")


@pytest.mark.parametrize("argument", [(), ("-",)])
def test_a_prompt_is_read_from_the_standard_input(argument: tuple[str, ...]) -> None:
    done = run(*GENERATE, *argument, stdin="two\nlines — ü\n")
    assert (done.returncode, done.stdout) == (0, "two\nlines — ü\n")


def test_undecodable_input_is_wrong_usage() -> None:
    done = run(*GENERATE, stdin=b"abc\xff")
    assert done.returncode == 2
    assert "not UTF-8 text (byte 3)" in done.stderr


def test_a_prompt_that_is_no_text_is_refused_by_name() -> None:
    done = subprocess.run([*COMMAND, *GENERATE, b"abc\xff"], capture_output=True, timeout=90, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: INVALID_REQUEST: prompt holds a lone surrogate")


def test_json_is_the_whole_completion() -> None:
    done = run(*GENERATE, "--json", "--max-tokens", "2", "one two three", "--seed", "7")
    completion = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert completion["text"] == "one two"
    assert completion["finish_reason"] == "max_tokens"
    assert completion["usage"] == {
        "input_tokens": 3,
        "output_tokens": 2,
        "cached_input_tokens": None,
        "reasoning_tokens": None,
    }
    assert completion["message"] == {"role": "assistant", "parts": [{"text": "one two"}]}


def test_json_with_stream_is_one_event_a_line() -> None:
    script = '[{"reasoning": "hm"}, {"text": "a b"}, {"tool_call": {"id": "1", "name": "f", "arguments": {"x": 1}}}]'
    done = run(*GENERATE, "--json", "--stream", "hi", "--option", f"script={script}")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [next(iter(event)) for event in events] == [
        "started",
        "reasoning_delta",
        "text_delta",
        "text_delta",
        "tool_call_delta",
        "tool_call_delta",
        "finished",
    ]
    assert "".join(event["text_delta"]["text"] for event in events if "text_delta" in event) == "a b"
    assert events[-1]["finished"]["message"]["parts"] == [
        {"reasoning": {"text": "hm"}},
        {"text": "a b"},
        {"tool_call": {"id": "1", "name": "f", "arguments_json": '{"x": 1}'}},
    ]


def test_options_reach_the_request() -> None:
    done = run(*GENERATE, "one two three four", "--stop", "three", "--stop", "two", "--temperature", "0")
    assert done.stdout == "one \n"


def test_a_cut_answer_is_noted() -> None:
    done = run(*GENERATE, "one two", "--max-tokens", "1")
    assert (done.returncode, done.stdout) == (0, "one\n")
    assert done.stderr == "note: the answer was cut at the greatest number of tokens\n"


def test_a_failure_is_one_line_with_its_reason() -> None:
    done = run(*GENERATE, "hi", FAILING)
    assert (done.returncode, done.stdout, done.stderr) == (1, "half\n", "error: RATE_LIMITED: slow down\n")


@pytest.mark.parametrize("stream", [(), ("--stream",)])
def test_a_failure_with_json_is_an_object(stream: tuple[str, ...]) -> None:
    done = run(*GENERATE, "hi", FAILING, "--json", *stream)
    error = json.loads(done.stdout.splitlines()[-1])["error"]
    assert (done.returncode, done.stderr) == (1, "")
    assert (error["reason"], error["message"], error["retry_after"]) == ("RATE_LIMITED", "slow down", 2)
    assert error["retryable"] is True


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--temperature", "3"), "error: INVALID_REQUEST: parameters.temperature: must be at most 2, got 3.0"),
        (("--temperature", "nan"), "error: INVALID_REQUEST: parameters.temperature: must be "),
        (("--max-tokens", "-1"), "error: INVALID_REQUEST: parameters.max_tokens: must be at least 1, got -1"),
        (("--reasoning-effort", "huge"), "error: INVALID_REQUEST: parameters.reasoning_effort: "),
        (("--option", "beam=1"), "error: UNSUPPORTED_PARAMETER: "),
        (("--timeout", "0"), "error: INVALID_REQUEST: timeout: must be greater than 0 seconds"),
        (("--provider", "nobody"), "error: NOT_CONFIGURED: unknown provider 'nobody'"),
    ],
)
def test_a_refused_request_names_the_field(arguments: tuple[str, ...], said: str) -> None:
    done = run(*GENERATE, "hi", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(said)


def test_a_model_that_cannot_be_loaded_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "llms.yaml"
    path.write_text("llms: {broken: {provider: scripted, load_error: no weights}}")
    done = run("generate", "--config", str(path), "hello")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: MODEL_LOAD_FAILED: no weights\n")
