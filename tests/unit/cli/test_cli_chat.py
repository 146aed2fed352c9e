"""`abstractllm chat`: what is sent, and how it goes on after failures and interrupts."""

import time
from collections.abc import Iterator

import pytest

from abstractllm.errors import RateLimitedError
from abstractllm.requests import GenerationRequest
from abstractllm.testing import ScriptedProvider, Step
from abstractllm.types import TextDelta
from abstractllm_cli.chat import Conversation
from tests.unit.cli.support import FAILING, Terminal, run


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
        time.sleep(1)  # the line editor shows its prompt a moment before it hears a signal
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


def test_what_was_said_is_sent_along() -> None:
    llm = ScriptedProvider({"reply": "so I hear"})
    conversation = Conversation(llm, "be kind", {"seed": 1})
    for line in ("one", "/system", "two", "/reset", "three"):
        assert conversation.handle(line)
    sent = [[(str(turn.role), turn.text) for turn in request.conversation()] for request in llm.requests]
    assert sent == [
        [("system", "be kind"), ("user", "one")],
        [("user", "one"), ("assistant", "so I hear"), ("user", "two")],
        [("user", "three")],
    ]
    assert {request.parameters.seed for request in llm.requests} == {1}


def test_a_failed_turn_is_forgotten() -> None:
    def script(request: GenerationRequest) -> list[Step]:
        failing: list[Step] = [{"text": "half"}, {"error": "RATE_LIMITED"}]
        return failing if request.conversation()[-1].text == "fail" else [{"text": "whole"}]

    llm = ScriptedProvider(script=script)
    conversation = Conversation(llm, None, {})
    with pytest.raises(RateLimitedError):
        conversation.handle("fail")
    conversation.handle("next")
    assert [turn.text for turn in llm.requests[-1].conversation()] == ["next"]


def test_an_interrupted_answer_stays_part_of_the_conversation() -> None:
    class Interrupted:
        """An LLM whose first answer is interrupted."""

        def __init__(self) -> None:
            self.prompts: list[object] = []

        def complete(self, prompt: object, system_prompt: str | None = None, **parameters: object) -> object:
            raise AssertionError("a conversation is streamed")

        def stream(self, prompt: object, system_prompt: str | None = None, **parameters: object) -> Iterator[object]:
            self.prompts.append(prompt)
            yield TextDelta("half")
            raise KeyboardInterrupt

    llm = Interrupted()
    conversation = Conversation(llm, None, {})
    for line in ("one", "two"):
        with pytest.raises(KeyboardInterrupt):
            conversation.handle(line)
    assert llm.prompts[-1] == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "half"},
        {"role": "user", "content": "two"},
    ]
