"""Every fault ends in exactly one documented error, within its deadline, whichever way is asked; nothing leaks."""

import asyncio
import json
import logging
import os
import signal
import traceback

import pytest

from tests.behaviour.faults import FAULTS, OWN_FAULTS

pytestmark = pytest.mark.asyncio(loop_scope="session")
HANG = 30.0
DEADLINE = {False: 0.2, True: 1.0}
"""Seconds, without and with a part of the answer, which has to arrive in that time."""
DEMO = "abstractllm/providers/huggingface/demo_model"
CANARY = "canary-0123456789"
RETRYABLE = {"PROVIDER_UNAVAILABLE", "PROVIDER_PROTOCOL", "RATE_LIMITED", "OVERLOADED", "ENGINE_CRASHED"}
ENGINE_KILLED = OWN_FAULTS[0]


async def failure(llm, ask):
    """The error that a request ends with: one of ours, and nothing of what it came from in its place."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what is raised is the question
        await asyncio.wait_for(ask(), HANG)
    error = caught.value
    assert isinstance(error, llm.package.AbstractLLMError), repr(error)
    assert type(error).__name__ in llm.package.__all__
    assert type(error).default_reason == error.reason
    # A client that gives up by itself was told no id.
    assert error.request_id or error.reason == "TIMEOUT"
    return error


def told(llm, error):
    """All that a program can learn from an error, and from the LLM."""
    text = repr(error) + str(error) + repr(vars(error)) + "".join(traceback.format_exception(error))
    return text + repr(llm.llm)


@pytest.fixture
def silence(caplog):
    """Watches every log at every level for the canary: each hosted LLM's key."""
    caplog.set_level(logging.DEBUG)
    yield
    assert CANARY not in caplog.text


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_ends_in_its_one_documented_error(name, llm, subject, way, table, silence):
    fault = FAULTS[name]
    if not subject.can_be_told:
        table.note(subject.name, name, way, "no upstream")
        return
    parameters = {"timeout": DEADLINE[fault.partial]} if fault.reason == "TIMEOUT" else {}
    subject.play(name)
    reason = fault.reason
    if subject.name == "fallback" and not fault.partial and reason != "TIMEOUT":
        answer = await asyncio.wait_for(llm.complete("Hi", **parameters), HANG)
        assert [(one.llm, one.error_reason) for one in answer.attempts] == [("openai", reason), ("anthropic", "")]
        assert CANARY not in repr(answer)
        result = "the next LLM answers"
    else:
        error = await failure(llm, lambda: llm.complete("Hi", **parameters))
        subject.play(name)
        streamed = await failure(llm, lambda: llm.events("Hi", **parameters))
        for raised in (error, streamed):
            assert raised.reason == reason
            assert CANARY not in told(llm, raised)
            assert raised.retryable is (reason in RETRYABLE)
            assert raised.retry_after == fault.retry_after or (fault.retry_after is None and raised.retry_after == 1.0)
        assert streamed.partial_text == ("partial" if fault.partial else "")
        if fault.partial and way.startswith("local"):
            assert error.partial_text == "partial"
        result = reason
    assert CANARY not in repr(await llm.ask("get_config"))
    await subject.settled()
    subject.play("text")
    assert await llm.generate("Hi")
    table.note(subject.name, name, way, result)


@pytest.mark.parametrize("name", [ENGINE_KILLED])
async def test_a_killed_engine_ends_its_requests_and_is_started_again(name, llm, subject, way, table, repository):
    if subject.can_be_told:
        table.note(subject.name, name, way, "no engine")
        return
    assert await llm.generate("Hi", max_tokens=2)
    pid = subject.llm.engine_pid
    settings = json.loads((repository / DEMO / "generation_config.json").read_text())
    endless = {"logit_bias": {settings["eos_token_id"]: -100}, "max_tokens": 1500}
    error = await failure(llm, lambda: llm.read_on("Tell me a story.", lambda: os.kill(pid, signal.SIGKILL), **endless))
    assert (error.reason, error.retryable) == ("ENGINE_CRASHED", True)
    assert await asyncio.wait_for(llm.generate("Hi", max_tokens=2), HANG)
    assert subject.llm.engine_pid != pid
    table.note(subject.name, name, way, error.reason)
