"""The queue before an engine: turns, bounds, advice, and that whatever is taken in is let go of."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from abstractllm._core.admission import service_rate
from abstractllm._core.admission.fair_queue import FairQueue
from abstractllm._core.admission.limits import AdmissionLimits
from abstractllm._core.admission.service_rate import ServiceRate
from abstractllm.errors import EngineCrashedError, OverloadedError
from abstractllm.providers.huggingface.engine.admission_queue import AdmissionQueue
from abstractllm.providers.huggingface.engine.pending_request import Answer, PendingRequest
from abstractllm.providers.huggingface.protocol.messages import (
    Begun,
    Cancel,
    Conversation,
    Count,
    Counted,
    Delta,
    Done,
    Failed,
    Format,
    Generate,
    Loaded,
    Logprob,
    Sampling,
    ToEngine,
    Turn,
)

UNBOUNDED = 1 << 40


def loaded(slots: int) -> Loaded:
    return Loaded(
        device="cpu",
        memory_bytes=0,
        dtype="float32",
        quantization="none",
        context_window=1000,
        max_characters=None,
        system_prompt=True,
        slots=slots,
    )


class Process:
    """Takes the place of a process's channel and keeps what it is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self._decoder = msgspec.msgpack.Decoder(ToEngine)

    def send(self, frame: bytes, urgent: bool = False) -> None:
        message = self._decoder.decode(frame[4:])
        assert urgent == isinstance(message, Cancel)
        self.sent.append(message)

    @property
    def ids(self) -> list[int]:
        return [message.id for message in self.sent if not isinstance(message, Cancel)]


def pending(
    number: int, caller: str = "", text: str = "hello", count: bool = False, regex: str | None = None
) -> PendingRequest:
    conversation = Conversation((Turn("user", text),))
    if count:
        return PendingRequest(Count(number, conversation), caller)
    format = None if regex is None else Format("regex", regex)
    return PendingRequest(Generate(number, conversation, Sampling(), format=format, caller=caller), caller)


def queue_of(limit: int, byte_limit: int = UNBOUNDED) -> AdmissionQueue:
    return AdmissionQueue(AdmissionLimits(limit, byte_limit))


def done(number: int) -> Done:
    return Done(number, "stop", "", 1, 1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets time pass."""
    now = [1000.0]
    monkeypatch.setattr(service_rate, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


async def test_callers_take_turns_whatever_they_have_waiting() -> None:
    queue: FairQueue[PendingRequest] = FairQueue()

    def add(number: int, caller: str) -> None:
        request = pending(number, caller)
        request.prompt_tokens = 1
        queue.add(request)

    for number in range(500):
        add(number, "many")
    for number in (500, 501):
        add(number, "few")
    add(502, "one")
    order = []
    while request := queue.first():
        queue.take(request)
        order.append(request.id)
    assert order[:8] == [0, 500, 502, 1, 501, 2, 3, 4]
    assert sorted(order) == list(range(503))
    assert (len(queue), queue.bytes, queue.first()) == (0, 0, None)


async def test_one_more_answer_looks_at_one_more_request_of_ten_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    queue, process, model = queue_of(20_000), Process(), loaded(16)
    for number in range(10_000):
        queue.add(pending(number, f"caller {number % 100}"), model)
    queue.dispatch(model, process)  # type: ignore[arg-type]
    looks: list[int] = []
    monkeypatch.setattr(PendingRequest, "is_orphaned", property(lambda self: bool(looks.append(self.id))))
    for number in process.ids[:10]:
        queue.receive([Begun(number), done(number)], process)  # type: ignore[arg-type]
        queue.dispatch(model, process)  # type: ignore[arg-type]
    assert len(process.ids) == 30
    assert len(looks) <= 40
    assert queue.queued == 10_000 - 10


@pytest.mark.parametrize(("slots", "ahead"), [(1, 1), (8, 4), (64, 8), (256, 32)])
async def test_process_is_given_its_slots_and_an_eighth_more(slots: int, ahead: int) -> None:
    queue, process, model = queue_of(1000), Process(), loaded(slots)
    for number in range(slots + ahead + 5):
        queue.add(pending(number), model)
    queue.dispatch(model, process)  # type: ignore[arg-type]
    assert process.ids == list(range(slots + ahead))
    queue.receive([Begun(number) for number in range(slots)], process)  # type: ignore[arg-type]
    assert (queue.running, queue.queued) == (slots, ahead + 5)


async def test_long_prompts_are_sent_ahead_one_at_a_time() -> None:
    queue, process, model = queue_of(1000), Process(), loaded(8)
    for number in range(4):
        queue.add(pending(number, text="x" * (10 << 20)), model)
    queue.dispatch(model, process)  # type: ignore[arg-type]
    assert process.ids == [0]
    queue.receive([Begun(0)], process)  # type: ignore[arg-type]
    queue.dispatch(model, process)  # type: ignore[arg-type]
    assert process.ids == [0, 1]


async def test_counting_tokens_does_not_wait_for_answers() -> None:
    queue, process, model = queue_of(1000), Process(), loaded(1)
    for number in range(10):
        queue.add(pending(number), model)
    for number in range(10, 20):
        queue.add(pending(number, count=True), model)
    queue.dispatch(model, process)  # type: ignore[arg-type]
    assert process.ids == [10, 11, 12, 13, 0, 1]
    queue.receive([Counted(10, 3)], process)  # type: ignore[arg-type]
    queue.dispatch(model, process)  # type: ignore[arg-type]
    assert process.ids[6:] == [14]


async def test_full_queue_names_its_limit_and_keeps_room_for_callers_with_less() -> None:
    queue = queue_of(5)
    many = [pending(number, "many") for number in range(5)]
    for request in many:
        queue.add(request, None)
    with pytest.raises(OverloadedError, match="5 requests wait already, max_queue is 5") as refused:
        queue.add(pending(5, "many"), None)
    assert refused.value.limit == 5
    assert refused.value.retry_after is not None
    queue.add(pending(6, "one"), None)
    displaced = await asyncio.wait_for(many[4].next_answer(), 10)
    assert isinstance(displaced, OverloadedError)
    assert displaced.retry_after is not None
    queue.add(pending(7, "one"), None)
    with pytest.raises(OverloadedError):  # both have about the same now
        queue.add(pending(8, "one"), None)
    process = Process()
    queue.dispatch(loaded(8), process)  # type: ignore[arg-type]
    assert process.ids == [0, 6, 1, 7, 2]
    assert (queue.accepted, queue.released) == (7, 2)


async def test_waiting_requests_are_bounded_in_bytes_too() -> None:
    queue = queue_of(100, 4000)
    queue.add(pending(0, text="x" * 5000), None)  # nothing waits: it must be taken now or never
    with pytest.raises(OverloadedError, match="max_queue_bytes is 4000") as refused:
        queue.add(pending(1), None)
    assert refused.value.limit == 4000
    queue.configure(AdmissionLimits(100, 20_000))
    queue.add(pending(2, "other"), None)
    assert queue.queued == 2


async def test_delay_follows_what_has_been_finished_lately(clock: Callable[[float], None]) -> None:
    rate = ServiceRate()
    rate.observe(True)
    for _ in range(100):
        clock(0.5)
        rate.record(10)
    assert rate.per_second == pytest.approx(2, rel=0.05)
    assert rate.wait(20, 100) == pytest.approx(10, rel=0.05)
    assert rate.wait(20, 400) == pytest.approx(20, rel=0.05)
    rate.observe(False)
    clock(3600)  # nobody waited
    rate.observe(True)
    assert rate.per_second == pytest.approx(2, rel=0.05)
    for _ in range(4000):
        clock(0.01)
        rate.record(10)
    assert rate.per_second == pytest.approx(100, rel=0.1)
    clock(30)  # it is stuck
    assert rate.per_second < 10


async def test_overloaded_callers_are_told_when_there_will_be_room(clock: Callable[[float], None]) -> None:
    queue, process, model = queue_of(100), Process(), loaded(1)
    for number in range(102):
        queue.add(pending(number), model)
        queue.dispatch(model, process)  # type: ignore[arg-type]
    for number in range(80):  # four a second
        clock(0.25)
        queue.receive([Begun(number), done(number)], process)  # type: ignore[arg-type]
        queue.dispatch(model, process)  # type: ignore[arg-type]
        queue.add(pending(1000 + number), model)
    with pytest.raises(OverloadedError) as refused:
        queue.add(pending(2000), model)
    assert refused.value.retry_after == pytest.approx(25, rel=0.3)


async def test_cancelled_request_is_forgotten_or_its_process_told_which_one_it_was() -> None:
    queue, process, model = queue_of(100), Process(), loaded(2)
    requests = [pending(100 - number, f"caller {number}") for number in range(10)]
    for request in requests:
        queue.add(request, model)
    queue.dispatch(model, process)  # type: ignore[arg-type]
    for request in (requests[9], requests[1], requests[1]):
        queue.cancel(request, process)  # type: ignore[arg-type]
    assert [message for message in process.sent if isinstance(message, Cancel)] == [Cancel(99, 2)]
    assert queue.released == 1
    queue.receive([Begun(99), Delta(99, "late"), Done(99, "cancelled", "", 1, 0)], process)  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    assert not requests[1]._answers
    assert (queue.released, queue.queued, queue.running) == (2, 8, 0)


async def test_whatever_comes_in_is_let_go_of_once(clock: Callable[[float], None]) -> None:
    chance = random.Random(5)
    refused = 0
    for _ in range(30):
        byte_limit = chance.choice([UNBOUNDED, 4000])
        queue, process, model = queue_of(12, byte_limit), Process(), loaded(chance.choice([1, 4]))
        requests: dict[int, PendingRequest] = {}
        over = 0
        at_work: set[int] = set()
        for number in range(300):
            clock(chance.random())
            match chance.randrange(6):
                case 0 | 1 | 2:
                    text = "x" * chance.choice([5, 500, 3000])
                    new = pending(number, f"caller {chance.randrange(4)}", text, count=chance.random() < 0.2)
                    try:
                        queue.add(new, model)
                        requests[number] = new
                    except OverloadedError:
                        refused += 1
                case 3 if requests:
                    queue.cancel(chance.choice(list(requests.values())), process)  # type: ignore[arg-type]
                case 4 if at_work:
                    one = at_work.pop()
                    over += 1
                    if requests[one].is_count:
                        queue.receive([Counted(one, 1)], process)  # type: ignore[arg-type]
                    elif chance.random() < 0.5:
                        queue.receive([Begun(one), Delta(one, "x"), done(one)], process)  # type: ignore[arg-type]
                    else:
                        queue.receive([Failed(one, "INTERNAL", "broken")], process)  # type: ignore[arg-type]
                case 5 if chance.random() < 0.1:
                    queue.fail_sent(EngineCrashedError("it died"))
                    at_work.clear()
            before = len(process.ids)
            queue.dispatch(model, process)  # type: ignore[arg-type]
            at_work |= set(process.ids[before:])
            assert queue.accepted == queue.released + queue.queued + queue.running
        queue.fail_all(EngineCrashedError("it died"))
        assert over > 0
        assert queue.accepted == queue.released == len(requests)
        assert queue.is_empty
    assert refused > 30  # some in nearly every round


async def read(request: PendingRequest) -> list[Answer]:
    answers: list[Answer] = []
    while not answers or isinstance(answers[-1], Begun | Delta):
        answers.append(await asyncio.wait_for(request.next_answer(), 10))
    return answers


async def test_pieces_that_nobody_reads_are_joined_and_nothing_is_lost() -> None:
    request = pending(1)
    chosen = [Logprob(number, b"x", -1.0, ()) for number in range(10_000)]
    request.put_in_loop(Begun(1))
    longest = 0
    for number in range(10_000):
        request.put_in_loop(Delta(1, f"{number} ", (chosen[number],), output_tokens=number + 1))
        longest = max(longest, len(request._answers))
    request.put_in_loop(done(1))
    assert longest < 50
    begun, delta, end = await read(request)
    assert (begun, end) == (Begun(1), done(1))
    assert isinstance(delta, Delta)
    assert delta.text == "".join(f"{number} " for number in range(10_000))
    assert delta.logprobs == tuple(chosen)
    assert delta.output_tokens == 10_000


async def test_log_probabilities_that_nobody_reads_are_not_kept_as_objects() -> None:
    request = pending(1)
    most = 0
    for number in range(1_000):
        request.put_in_loop(Delta(1, "x", (Logprob(number, b"x", -1.0, ()),)))
        most = max(most, sum(len(answer.logprobs) for answer in request._answers if isinstance(answer, Delta)))
    request.put_in_loop(done(1))
    assert most < 50
    (delta, _) = await read(request)
    assert isinstance(delta, Delta)
    assert [logprob.token_id for logprob in delta.logprobs] == list(range(1_000))


async def test_pieces_that_are_read_in_time_come_as_they_are() -> None:
    request = pending(1)
    reader = asyncio.create_task(read(request))
    for number in range(5):
        request.put_in_loop(Delta(1, str(number)))
        for _ in range(10):  # the reader has its turn
            await asyncio.sleep(0)
    request.put_in_loop(done(1))
    assert [answer.text for answer in await reader if isinstance(answer, Delta)] == list("01234")


async def test_formats_that_take_long_to_compile_hold_up_nobody_else() -> None:
    queue, process, ready = queue_of(100), Process(), loaded(16)

    def add(number: int, caller: str, regex: str | None = None) -> None:
        queue.add(pending(number, caller, regex=regex), ready)
        queue.dispatch(ready, process)

    add(1, "modest", regex="known")
    queue.receive([Begun(1), done(1)], process)
    for number in range(2, 72):
        add(number, "greedy", regex=f"heavy {number}")
    assert process.ids == [1, 2, 3, 4, 5]  # of twenty places
    add(72, "modest", regex="known")
    add(73, "modest", regex="light")
    add(74, "greedy")
    add(75, "greedy", regex="known")
    assert process.ids[5:] == [72, 73, 74, 75]
    queue.receive([Begun(2)], process)
    queue.dispatch(ready, process)
    assert process.ids[9:] == [6]  # one that was compiled makes place for one more
    queue.receive([Failed(3, "INVALID_REQUEST", "")], process)
    queue.receive([Done(4, "cancelled", "", 0, 0)], process)
    queue.dispatch(ready, process)
    assert process.ids[10:] == [7, 8]


async def test_callers_who_want_no_format_leave_nothing() -> None:
    queue, process, ready = queue_of(10), Process(), loaded(4)
    for number in range(1, 1001):
        queue.add(pending(number, f"caller {number}"), ready)
        queue.dispatch(ready, process)  # type: ignore[arg-type]
        queue.receive([Begun(number), done(number)], process)  # type: ignore[arg-type]
    assert queue.is_empty
    assert not queue._new_formats


async def test_requests_with_new_formats_count_for_their_caller_where_the_queue_is_full() -> None:
    queue, process, ready = queue_of(3), Process(), loaded(1)
    waiting = [pending(number, "greedy", regex=f"heavy {number}") for number in range(1, 5)]
    for request in waiting:
        queue.add(request, ready)
        queue.dispatch(ready, process)
    assert process.ids == [1]
    queue.add(pending(5, "modest"), ready)  # goes to the process at once, which has another place
    queue.dispatch(ready, process)
    assert process.ids == [1, 5]
    queue.add(pending(6, "modest"), ready)
    assert isinstance(await asyncio.wait_for(waiting[3].next_answer(), 10), OverloadedError)
    with pytest.raises(OverloadedError):
        queue.add(pending(7, "greedy"), ready)
