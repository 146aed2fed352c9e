"""The queue of formats to be compiled: each one once, callers in turns, nothing for those who have left."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from abstractllm.errors import InvalidRequestError
from abstractllm.providers.huggingface.protocol.messages import (
    Cancel,
    Conversation,
    Format,
    FromEngine,
    Generate,
    Sampling,
)
from abstractllm.providers.huggingface.worker import preparation
from abstractllm.providers.huggingface.worker.request import EngineRequest
from abstractllm.providers.huggingface.worker.server import Worker
from abstractllm.providers.huggingface.worker.structured.format_queue import FormatQueue
from tests.waiting import wait_until


def key(text: str) -> bytes:
    return text.encode()


def take(queue: FormatQueue[str], count: int) -> list[str]:
    """The formats in the order in which one thread compiles them."""
    order = []
    for _ in range(count):
        job = queue.take()
        order.append(job.key.decode())
        queue.finish(job)
    return order


def test_callers_take_turns_however_many_formats_one_of_them_sends() -> None:
    queue: FormatQueue[str] = FormatQueue()
    for index in range(70):
        queue.add(f"request {index}", key(f"heavy {index}"), "greedy")
    queue.add("other", key("light"), "modest")
    queue.add("third", key("small"), "third")
    assert take(queue, 4) == ["heavy 0", "light", "small", "heavy 1"]


def test_a_caller_has_one_format_compiled_at_a_time_and_leaves_the_other_threads_free() -> None:
    queue: FormatQueue[str] = FormatQueue()
    queue.add("a", key("heavy"), "greedy")
    queue.add("b", key("heavier"), "greedy")
    running = queue.take()
    queue.add("c", key("light"), "modest")
    other = queue.take()
    assert (running.key, other.key) == (b"heavy", b"light")
    taken: list[bytes] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take().key), daemon=True)
    thread.start()
    queue.finish(other)
    assert taken == []  # although a thread is free
    queue.finish(running)
    thread.join(10)
    assert taken == [b"heavier"]


def test_the_same_format_of_many_is_compiled_once_and_all_are_served() -> None:
    queue: FormatQueue[int] = FormatQueue()
    for index in range(50):
        queue.add(index, key("same"), f"caller {index % 5}")
    job = queue.take()
    queue.add(50, key("same"), "late")
    assert queue.finish(job) == [*range(51)]
    assert len(queue) == 0


def test_a_format_that_waits_behind_a_greedy_caller_comes_with_the_turn_of_another_who_wants_it() -> None:
    queue: FormatQueue[str] = FormatQueue()
    for text in ("heavy 0", "heavy 1", "shared", "heavy 2"):
        queue.add(text, key(text), "greedy")
    queue.add("mine", key("shared"), "modest")
    assert take(queue, 4) == ["heavy 0", "shared", "heavy 1", "heavy 2"]


def test_a_format_that_nobody_waits_for_any_more_is_dropped() -> None:
    queue: FormatQueue[str] = FormatQueue()
    for text in ("a", "b", "c"):
        queue.add(text, key(text), "one")
    queue.add("again", key("b"), "two")
    assert queue.discard("a", key("a"))
    assert queue.discard("b", key("b"))  # another request still waits for it
    assert not queue.discard("b", key("b"))
    assert not queue.discard("x", key("x"))
    assert sorted(take(queue, 2)) == ["b", "c"]
    assert len(queue) == 0


def test_a_request_that_leaves_while_its_format_is_compiled_is_not_served() -> None:
    queue: FormatQueue[str] = FormatQueue()
    queue.add("stays", key("a"), "one")
    queue.add("leaves", key("a"), "one")
    job = queue.take()
    assert queue.discard("leaves", key("a"))
    assert queue.finish(job) == ["stays"]


class Channel:
    """Takes the place of the channel to the provider."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, frame: bytes) -> None:
        self.sent.append(msgspec.msgpack.Decoder(FromEngine).decode(frame[4:]))


class Formats:
    """Takes the place of the model, whose formats are compiled by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.compiled: list[str] = []
        self.refused: list[str] = []
        monkeypatch.setattr(preparation, "tokenize", lambda model, request: request.message.format is not None)
        monkeypatch.setattr(preparation, "find_format", lambda model, request: self.find(request))
        monkeypatch.setattr(preparation, "compile_format", lambda model, request: self.compile(request))

    def find(self, request: EngineRequest) -> bool:
        assert request.message.format is not None
        if request.message.format.text in self.refused:
            raise InvalidRequestError("refused before")
        return request.message.format.text in self.compiled

    def compile(self, request: EngineRequest) -> None:
        assert request.message.format is not None
        if request.message.format.text.startswith("bad"):
            self.refused.append(request.message.format.text)
            raise InvalidRequestError("refused now")
        self.compiled.append(request.message.format.text)


class Served:
    """A worker whose threads run until they have nothing to do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.channel = Channel()
        self.worker = Worker(self.channel)  # type: ignore[arg-type]
        self.formats = Formats(monkeypatch)
        self.submitted: list[int] = []

    def take_in(self, number: int, regex: str, caller: str = "") -> None:
        message = Generate(number, Conversation(()), Sampling(), format=Format("regex", regex), caller=caller)
        self.worker._to_tokenize.put(self.worker._register(message))

    def tokenize(self) -> None:
        self._run(self.worker._tokenize, self.worker._to_tokenize.empty)

    def compile(self) -> None:
        self._run(self.worker._compile, lambda: not len(self.worker._formats))

    def _run(self, function: Callable[..., None], is_done: Callable[[], bool]) -> None:
        submit = lambda request: self.submitted.append(request.message.id)  # noqa: E731
        threading.Thread(target=function, args=(None, submit), daemon=True).start()
        wait_until(is_done)
        wait_until(lambda: self.handled)

    @property
    def handled(self) -> bool:
        over = len(self.submitted) + len(self.channel.sent)
        waiting = sum(len(job.requests) for job in self.worker._formats._jobs.values())
        return over + waiting == self.worker._received


def test_a_format_that_is_known_is_answered_or_refused_before_those_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served(monkeypatch)
    served.formats.compiled, served.formats.refused = ["known"], ["bad"]
    for number in range(1, 7):
        served.take_in(number, f"heavy {number}")
    served.take_in(7, "known")
    served.take_in(8, "bad")
    served.tokenize()
    assert served.submitted == [7]
    assert [(message.id, message.message) for message in served.channel.sent] == [(8, "refused before")]
    assert len(served.worker._formats) == 6


def test_a_cancelled_request_is_over_at_once_and_its_format_never_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served(monkeypatch)
    for number in range(1, 7):
        served.take_in(number, "shared" if number > 4 else f"heavy {number}")
    served.tokenize()
    for number in (2, 3, 5):
        served.worker._cancel(Cancel(number, number))
    assert [(message.id, message.finish_reason) for message in served.channel.sent] == [
        (number, "cancelled") for number in (2, 3, 5)
    ]
    served.compile()
    assert served.formats.compiled == ["heavy 1", "heavy 4", "shared"]
    assert served.submitted == [1, 4, 6]


def test_all_who_wait_for_a_format_that_is_refused_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served(monkeypatch)
    for number in range(1, 4):
        served.take_in(number, "bad one", f"caller {number}")
    served.tokenize()
    served.compile()
    assert [(message.id, message.message) for message in served.channel.sent] == [
        (number, "refused now") for number in (1, 2, 3)
    ]
    assert served.formats.refused == ["bad one"]  # once
