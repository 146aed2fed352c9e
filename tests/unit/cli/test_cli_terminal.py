"""The command at a terminal, and its end by interrupts and by a reader that leaves."""

import signal
import subprocess
import time
from pathlib import Path

import psutil

from tests.unit.cli.support import ENDLESS, GENERATE, Terminal, run, start


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


def test_loading_is_shown_at_a_terminal_alone(tmp_path: Path) -> None:
    path = tmp_path / "llms.yaml"
    path.write_text("llms: {slow: {provider: scripted, model: giant, load_delay: 0.5}}")
    done = run("generate", "--config", str(path), "hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")
    with Terminal("generate", "--config", str(path), "hello") as terminal:
        shown = terminal.rest()
    assert shown.index("Loading giant") < shown.index("hello")


def test_ctrl_c_stops_loading(tmp_path: Path) -> None:
    path = tmp_path / "llms.yaml"
    path.write_text("llms: {slow: {provider: scripted, model: giant, load_delay: 3000}}")
    with Terminal("generate", "--config", str(path), "hello") as terminal:
        terminal.wait_for("Loading giant")
        terminal.type("\x03")
        assert "Traceback" not in terminal.rest()
        assert terminal.process.returncode == 130


def test_ctrl_c_leaves_no_engine_process() -> None:
    with start("generate", "hello", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        command = psutil.Process(process.pid)
        end = time.monotonic() + 60
        while not (engines := command.children(recursive=True)):
            assert time.monotonic() < end, "no engine process was started"
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert psutil.wait_procs(engines, timeout=60)[1] == []


def test_a_table_is_drawn_at_a_terminal_and_plain_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "llms.yaml"
    path.write_text("llms: {parrot: {provider: scripted, model: grey}}")
    assert run("llms", "--config", str(path)).stdout == "parrot*\tscripted\tgrey\tready\t\t\t0\t0\t\n"
    with Terminal("llms", "--config", str(path)) as terminal:
        titles, _, row = (line for line in terminal.rest().splitlines() if line.strip())
    assert row.split() == ["parrot*", "scripted", "grey", "ready", "0", "0"]
    assert "state" in titles
    assert "device" not in titles  # empty for all of them
