"""The command as its users run it: a process of its own, with the provider that plays scripts."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

COMMAND = [sys.executable, "-m", "abstractllm_cli"]
GENERATE = ("generate", "--provider", "scripted")
ENDLESS = '--option=script=[{"text": "first"}, {"delay": 3000}, {"text": "never"}]'
FAILING = '--option=script=[{"text": "half"}, {"error": "RATE_LIMITED", "message": "slow down", "retry_after": 2}]'


def run(*arguments: str, stdin: str | bytes = "") -> subprocess.CompletedProcess[str]:
    given = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run([*COMMAND, *arguments], input=given, capture_output=True, timeout=90)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@contextmanager
def start(*arguments: str, **streams: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([*COMMAND, *arguments], **streams)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Terminal:
    """A pseudo terminal, and the command that runs in it."""

    def __init__(self, *arguments: str, **streams: int) -> None:
        self._master, slave = os.openpty()
        # A session of its own, so that Ctrl-C typed into the terminal reaches the command.
        self.process = subprocess.Popen(
            [sys.executable, "-c", _IN_TERMINAL, *COMMAND[1:], *arguments],
            **({"stdin": slave, "stdout": slave, "stderr": slave} | streams),
            start_new_session=True,
        )
        os.close(slave)
        self.seen = ""

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait_for(self, text: str) -> None:
        """Reads on until `text` was shown after what was waited for before."""
        end = time.monotonic() + 60
        while text not in self.seen:
            assert time.monotonic() < end, f"{text!r} was not shown: {self.seen!r}"
            if select.select([self._master], [], [], 1)[0]:
                self.seen += self._read()
        self.seen = self.seen.split(text, 1)[1]

    def rest(self) -> str:
        while piece := self._read():
            self.seen += piece
        self.process.wait(60)
        return self.seen

    def _read(self) -> str:
        try:
            return os.read(self._master, 65536).decode()
        except OSError:  # the last process closed the terminal
            return ""


# Makes the terminal the controlling one of the session, then becomes the command.
_IN_TERMINAL = (
    "import fcntl, os, sys, termios; "
    "fcntl.ioctl(next(fd for fd in (0, 1, 2) if os.isatty(fd)), termios.TIOCSCTTY, 0); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("generate", "hi", "--option", "beam"), "--option: must be KEY=VALUE, got 'beam'"),
        (("generate", "hi", "--option", "a=1", "--option", "a=2"), "--option: a is given twice"),
        (("generate", "hi", "--max-tokens", "many"), "--max-tokens"),
        (("generate", "hi", "--llm", "local"), "--llm: only --address and --config have LLMs by name"),
        (("generate", "hi", "--address", "127.0.0.1:1", "--provider", "openai"), "--provider: a server has its own"),
        (("chat", "--address", "127.0.0.1:1", "--config", __file__), "--config: a server has its own"),
        (("chat", "--config", __file__, "--provider", "openai"), "--provider: the file names the providers"),
        (("llms", "--config", "no such file"), "--config"),
        (("config", "set", "temperature"), "KEY=VALUE: must be KEY=VALUE, got 'temperature'"),
        (("nonsense",), "No such command 'nonsense'"),
    ],
)
def test_wrong_usage_ends_with_2_and_names_the_argument(arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_missing_prompt_at_a_terminal_is_wrong_usage() -> None:
    with Terminal(*GENERATE) as terminal:
        assert "PROMPT: missing" in terminal.rest()
        assert terminal.process.returncode == 2


def test_ctrl_c_stops_a_streamed_answer() -> None:
    with start(*GENERATE, "hi", ENDLESS, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == b"first"  # written before the answer is whole
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
        assert (process.returncode, rest, errors) == (130, b"\n", b"")


def test_ctrl_c_stops_a_whole_answer() -> None:
    with start(*GENERATE, "--json", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode in (130, -signal.SIGINT), errors


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    words = '--option=script=[{"text": "first "}, {"delay": 0.2}, {"text": "' + "word " * 200_000 + '"}]'
    with start(*GENERATE, "hi", words[:100_000] + '"}]', stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(5) == b"first"
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""


def test_a_terminal_is_shown_no_control_characters_of_the_model() -> None:
    script = r'--option=script=[{"text": "a\u001b[31mred\u0007\tb"}]'
    assert run(*GENERATE, "hi", script).stdout == "a\x1b[31mred\x07\tb\n"
    with Terminal(*GENERATE, "hi", script) as terminal:
        assert "\x1b[31m" not in (shown := terminal.rest())
        assert shown.split() == ["a[31mred", "b"]


def test_thoughts_are_shown_on_a_terminal_alone() -> None:
    script = '--option=script=[{"reasoning": "thinking"}, {"text": "answer"}]'
    assert run(*GENERATE, "hi", script).stdout == "answer\n"
    with Terminal(*GENERATE, "hi", script) as terminal:
        shown = terminal.rest()
        assert shown.index("thinking") < shown.index("answer")


def test_a_piped_conversation_answers_every_line() -> None:
    done = run("chat", "--provider", "scripted", stdin="one\n\n/system be brief\n/reset\n/what\n /two\n/quit\nthree\n")
    assert (done.returncode, done.stdout) == (0, "one\n /two\n")
    assert done.stderr.splitlines() == [
        "(system prompt set)",
        "(conversation forgotten)",
        "unknown command /what; /help lists them",
    ]


def test_a_piped_conversation_ends_at_its_first_failure() -> None:
    done = run("chat", "--provider", "scripted", FAILING, stdin="one\ntwo\n")
    assert (done.returncode, done.stdout, done.stderr) == (1, "half\n", "error: RATE_LIMITED: slow down\n")


def test_a_conversation_at_a_terminal() -> None:
    with Terminal("chat", "--provider", "scripted", "--option", "delay=0.3") as terminal:
        terminal.wait_for("> ")
        terminal.type("a " + "b " * 400 + "\n")
        terminal.wait_for("\na b")  # the echo of what was typed has no line feed before it
        terminal.type("\x03")
        terminal.wait_for("(stopped)")
        terminal.wait_for("> ")
        terminal.type("\x03")  # at the prompt: a new line
        terminal.wait_for("> ")
        terminal.type("still here\n")
        terminal.wait_for("\nstill here")
        terminal.wait_for("> ")
        terminal.type("\x04")
        terminal.rest()
        assert terminal.process.returncode == 0


def test_a_failure_at_a_terminal_does_not_end_the_conversation() -> None:
    with Terminal("chat", "--provider", "scripted", FAILING) as terminal:
        for _ in range(2):
            terminal.wait_for("> ")
            terminal.type("hi\n")
            terminal.wait_for("error: RATE_LIMITED: slow down")
        terminal.type("/quit\n")
        terminal.rest()
        assert terminal.process.returncode == 0


def test_without_a_configuration_the_providers_are_listed() -> None:
    assert {"huggingface", "scripted"} <= set(run("llms").stdout.split())
    names = [provider["name"] for provider in json.loads(run("llms", "--json").stdout)["providers"]]
    assert names == run("llms").stdout.split()


def test_the_version_is_the_packages() -> None:
    import abstractllm

    assert run("--version").stdout == f"abstractllm {abstractllm.__version__}\n"


@pytest.mark.parametrize(
    "command",
    ["serve", "generate", "chat", "llms", "models list", "models pull", "models clear", "config get", "config set"],
)
def test_every_command_explains_itself(command: str) -> None:
    done = run(*command.split(), "--help")
    assert done.returncode == 0
    options = [line for line in done.stdout.splitlines() if line.startswith("  -")]
    assert options
    explanations = done.stdout.split("Options:")[1]
    for option in options:
        after = explanations.split(option, 1)[1].lstrip("\n").splitlines()
        assert len(option.split("  ")) > 2 or after[0].startswith(" " * 10), f"{option} is not explained"


def test_the_command_starts_light() -> None:
    code = "import sys, abstractllm_cli.main; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True, timeout=60).split())
    heavy = {"abstractllm", "abstractllm_api", "abstractllm_client", "abstractllm_server", "grpc", "google", "rich"}
    assert not loaded & (heavy | {"pydantic", "yaml", "torch", "transformers", "huggingface_hub", "asyncio"})
