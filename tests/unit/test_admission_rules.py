"""The rules of admission: turns weighted by tokens, deadlines, and the limits of callers."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace

import pytest

from abstractllm._core.admission import admission as admission_module
from abstractllm._core.admission import service_rate, token_budgets
from abstractllm._core.admission.admission import Admission
from abstractllm._core.admission.fair_queue import FairQueue
from abstractllm._core.admission.limits import AdmissionLimits, CallerLimits
from abstractllm._core.admission.returning_callers import ReturningCallers
from abstractllm._core.admission.service_rate import ServiceRate
from abstractllm._core.admission.ticket import Ticket
from abstractllm._core.admission.virtual_time import VirtualTime
from abstractllm.errors import AbstractLLMError, OverloadedError, RateLimitedError

UNBOUNDED = 1 << 40


class Clock:
    """The time of all modules of admission."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        for module in (admission_module, service_rate, token_budgets):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def limits_of(limit: int = 100_000, callers: Mapping[str, CallerLimits] | None = None) -> AdmissionLimits:
    return AdmissionLimits(limit, UNBOUNDED, callers or {})


class Upstream:
    """An LLM that answers some requests at a time, each about as fast as if it were alone, on a clock of its own.

    Each ticket's `size` is the tokens of its prompt, and `max_tokens` those of its answer.
    """

    def __init__(self, clock: Clock, places: int, limits: AdmissionLimits, seconds_per_token: float = 0.01) -> None:
        self.clock = clock
        self.admission: Admission[Ticket] = Admission(limits)
        self.admission.places = places
        self.seconds_per_token = seconds_per_token
        self.refused: list[tuple[Ticket, AbstractLLMError]] = []
        self.finished: list[Ticket] = []
        self.tokens: Counter[str] = Counter()
        self.on_end: Callable[[Ticket], None] = lambda ticket: None
        self.idle_seconds = 0.0
        """Seconds for which places were free although requests waited, each place for itself."""
        self._ends: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._chance = random.Random(11)

    def ask(self, caller: str, prompt: int, answer: int, deadline: float | None = None) -> Ticket:
        ticket = Ticket(
            caller,
            prompt,
            max_tokens=answer,
            deadline=None if deadline is None else self.clock.now + deadline,
        )
        admission = self.admission
        has_place = admission.running < admission.places and not admission.is_held(ticket)
        is_next = has_place and admission.first() is None and not admission.patience(ticket)
        try:
            displaced = admission.add(ticket, goes_at_once=is_next)
        except (OverloadedError, RateLimitedError) as error:
            self.refused.append((ticket, error))
            return ticket
        self.refused.extend(displaced)
        self._dispatch()
        return ticket

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        """Does something after a while."""
        heapq.heappush(self._ends, (self.clock.now + seconds, next(self._numbers), act))

    def run(self, seconds: float) -> None:
        """Lets time pass."""
        end = self.clock.now + seconds
        while self._ends and self._ends[0][0] <= end:
            moment, _, act = heapq.heappop(self._ends)
            if self.admission.waiting:
                self.idle_seconds += (moment - self.clock.now) * (self.admission.places - self.admission.running)
            self.clock.now = moment
            act()
        self.clock.now = end

    def _end(self, ticket: Ticket) -> None:
        assert ticket.max_tokens is not None
        self.admission.end(ticket, prompt_tokens=ticket.size, answer_tokens=ticket.max_tokens, is_whole=True)
        self.tokens[ticket.caller] += ticket.size + ticket.max_tokens
        self.finished.append(ticket)
        self._dispatch()
        self.on_end(ticket)

    def _dispatch(self) -> None:
        admission = self.admission
        while admission.running < admission.places and (ticket := admission.first()):
            if patience := admission.patience(ticket):
                self.later(patience, self._dispatch)
                return
            if late := admission.too_late(ticket):
                admission.discard(ticket)
                self.refused.append((ticket, late))
                continue
            admission.take(ticket)
            assert ticket.max_tokens is not None
            duration = self.seconds_per_token * ticket.max_tokens * self._chance.uniform(0.85, 1.15)
            self.later(duration, partial(self._end, ticket))


def jain(tokens: list[float]) -> float:
    return sum(tokens) ** 2 / (len(tokens) * sum(count**2 for count in tokens))


# Turns.


def test_callers_get_the_same_tokens_though_one_has_five_hundred_long_prompts_waiting(clock: Clock) -> None:
    upstream = Upstream(clock, places=8, limits=limits_of())
    for _ in range(500):
        upstream.ask("greedy", prompt=4000, answer=20)
    modest = [f"caller {number}" for number in range(10)]
    upstream.on_end = lambda ticket: None if ticket.caller == "greedy" else ask_again(ticket)

    def ask_again(ticket: Ticket) -> None:
        upstream.ask(ticket.caller, prompt=400, answer=20)

    upstream.run(5)  # alone
    before = Counter(upstream.tokens)
    for caller in modest:
        for _ in range(2):
            upstream.ask(caller, prompt=400, answer=20)
    upstream.run(60)
    tokens = [upstream.tokens[caller] - before[caller] for caller in ("greedy", *modest)]
    assert jain(tokens) >= 0.95, tokens


@pytest.mark.parametrize("absence", [0.0, 0.02, 0.1])
def test_callers_with_one_request_at_a_time_get_as_many_tokens_as_one_who_always_has_requests(
    clock: Clock, absence: float
) -> None:
    upstream = Upstream(clock, places=8, limits=limits_of(), seconds_per_token=0.04)
    for _ in range(500):
        upstream.ask("greedy", prompt=300, answer=60)
    modest = [f"caller {number}" for number in range(10)]
    upstream.on_end = lambda ticket: (
        None
        if ticket.caller == "greedy"
        else upstream.later(absence, lambda: upstream.ask(ticket.caller, prompt=4, answer=60))
    )
    upstream.run(10)  # alone
    for caller in modest:
        upstream.ask(caller, prompt=4, answer=60)
    upstream.run(20)
    before = Counter(upstream.tokens)
    finished = len(upstream.finished)
    upstream.run(300)
    tokens = [upstream.tokens[caller] - before[caller] for caller in ("greedy", *modest)]
    assert jain(tokens) >= 0.95, tokens
    # Little of what the LLM could do is lost for it: answers take 2.4 seconds in the mean.
    assert len(upstream.finished) - finished >= 0.9 * 300 * 8 / 2.4


def test_no_place_is_kept_for_callers_who_do_not_come_again(clock: Clock) -> None:
    upstream = Upstream(clock, places=4, limits=limits_of(), seconds_per_token=0.04)
    for _ in range(500):
        upstream.ask("greedy", prompt=300, answer=60)
    upstream.run(10)
    visitors = itertools.count()

    def visit() -> None:
        upstream.ask(f"visitor {next(visitors)}", prompt=4, answer=60)
        upstream.later(1.0, visit)

    visit()
    upstream.run(100)
    assert upstream.idle_seconds == 0


@pytest.mark.parametrize(
    ("places", "limits"),
    [(10, limits_of()), (2, limits_of(0)), (2, limits_of(callers={"greedy": CallerLimits(max_queue=0)}))],
    ids=["others are free", "nobody may wait", "the caller may not wait"],
)
def test_no_place_is_kept_where_others_are_free_or_nobody_may_wait(
    clock: Clock, places: int, limits: AdmissionLimits
) -> None:
    upstream = Upstream(clock, places=places, limits=limits, seconds_per_token=0.04)
    upstream.ask("long", prompt=4, answer=100_000)  # as long as it runs, callers' shares are remembered
    upstream.ask("greedy", prompt=3000, answer=60)
    upstream.run(5)
    answers, tickets = itertools.count(1), list[Ticket]()

    def go_on(ticket: Ticket) -> None:
        if ticket.caller != "regular":
            return
        if next(answers) == 20:
            tickets.append(upstream.ask("greedy", prompt=300, answer=60))
        upstream.later(0.05, lambda: upstream.ask("regular", prompt=4, answer=60))

    upstream.on_end = go_on
    upstream.ask("regular", prompt=4, answer=60)
    upstream.run(60)
    (ticket,) = tickets
    assert ticket.taken_at == ticket.arrived_at


def test_what_an_answer_has_really_taken_counts(clock: Clock) -> None:
    upstream = Upstream(clock, places=4, limits=limits_of())
    # Both look alike when they are taken; the answers of one turn out twenty times as long.
    for _ in range(1000):
        upstream.ask("short", prompt=10, answer=10)
        upstream.ask("long", prompt=10, answer=200)
    upstream.run(60)
    assert upstream.tokens["short"] == pytest.approx(upstream.tokens["long"], rel=0.15)


def test_who_was_idle_has_saved_nothing_up(clock: Clock) -> None:
    upstream = Upstream(clock, places=1, limits=limits_of())
    for _ in range(300):
        upstream.ask("busy", prompt=10, answer=10)
    upstream.run(10)  # a hundred of them
    for _ in range(100):
        upstream.ask("late", prompt=10, answer=10)
    before = Counter(upstream.tokens)
    upstream.run(10)
    shares = [upstream.tokens[caller] - before[caller] for caller in ("busy", "late")]
    assert jain([float(share) for share in shares]) > 0.99


def test_requests_that_fail_use_up_their_turns_too(clock: Clock) -> None:
    admission: Admission[Ticket] = Admission(limits_of())
    taken: Counter[str] = Counter()
    for number in range(200):
        admission.add(Ticket("failing" if number % 2 else "other", 100, max_tokens=10), goes_at_once=False)
    for _ in range(100):
        ticket = admission.first()
        assert ticket is not None
        admission.take(ticket)
        taken[ticket.caller] += 1
        if ticket.caller == "failing":
            admission.end(ticket)
        else:
            admission.end(ticket, prompt_tokens=25, answer_tokens=10, is_whole=True)
    assert taken["other"] >= 35


def test_an_answer_that_has_become_long_counts_before_its_end() -> None:
    admission: Admission[Ticket] = Admission(limits_of())
    for caller in ("long", "long", "other", "other"):
        admission.add(Ticket(caller, 40), goes_at_once=False)
    for caller in ("long", "other"):
        ticket = admission.first()
        assert ticket is not None
        assert ticket.caller == caller
        admission.take(ticket)
        if caller == "long":
            admission.progress(ticket, 100_000)
    assert [admission.first().caller, len(admission.queue_of(ticket))] == ["other", 2]  # type: ignore[union-attr]


def test_callers_who_are_gone_are_forgotten() -> None:
    time, queue = VirtualTime(), FairQueue[Ticket]()
    for number in range(10_000):
        for caller in ("busy", f"caller {number}"):
            ticket = Ticket(caller, 1)
            ticket.prompt_tokens = 1
            queue.add(ticket)
        first = queue.first()
        assert first is not None
        queue.take(first)
        queue.end(first, 1)
        while (other := queue.first()) is not None and other.caller != "busy":
            queue.take(other)
            queue.end(other, 1)
        time.enter(f"caller {number}")
        time.serve(f"caller {number}", 5)
        time.leave(f"caller {number}")
    assert len(queue._time._tags) < 200
    assert len(queue._order) < 200
    assert not time._tags


def test_callers_who_leave_while_others_wait_are_forgotten() -> None:
    queue = FairQueue[Ticket]()
    queue.add(Ticket("waiting", 1))
    for number in range(10_000):
        ticket = Ticket(f"caller {number}", 1)
        queue.add(ticket)
        queue.discard(ticket)
    assert len(queue._order) < 200


def test_callers_who_came_again_once_and_never_left_with_an_answer_are_forgotten() -> None:
    returning = ReturningCallers()
    for number in range(10_000):
        returning.leave(f"caller {number}", float(number))
        returning.come(f"caller {number}", number + 0.1)
    assert len(returning._regular) < 2000


def test_an_llm_whose_answers_are_all_cut_off_admits_requests_for_ever(clock: Clock) -> None:
    admission: Admission[Ticket] = Admission(limits_of())
    for _ in range(40_000):  # as classifiers ask: one token each
        ticket = Ticket("caller", 100, max_tokens=1)
        admission.add(ticket, goes_at_once=True)
        admission.take(ticket)
        admission.end(ticket, prompt_tokens=25, answer_tokens=1, is_whole=True)
    unbounded = Ticket("caller", 100, deadline=clock.now + 60)
    admission.add(unbounded, goes_at_once=True)
    assert 1 <= unbounded.answer_tokens < 1_000_000


def test_an_llm_that_has_completed_nothing_for_hours_still_refuses_with_a_delay(clock: Clock) -> None:
    admission: Admission[Ticket] = Admission(limits_of(1))
    for _ in range(2):
        admission.add(Ticket("caller", 1), goes_at_once=False)
        if not admission.running:
            admission.take(admission.first())  # type: ignore[arg-type]
    clock.now += 24 * 3600
    with pytest.raises(OverloadedError, match="max_queue is 1") as refused:
        admission.add(Ticket("caller", 1), goes_at_once=False)
    assert refused.value.retry_after == 60


def test_who_cannot_be_admitted_takes_no_place_from_those_who_wait() -> None:
    admission: Admission[Ticket] = Admission(AdmissionLimits(100, 16))
    waiting = [Ticket("many", 1) for _ in range(16)]
    for ticket in waiting:
        admission.add(ticket, goes_at_once=False)
    # Six of them would have to go before both callers had the same; and still there would be no room.
    with pytest.raises(OverloadedError, match="requests of 16 bytes wait already and this one has 10"):
        admission.add(Ticket("large", 10), goes_at_once=False)
    assert [ticket for ticket in waiting if admission.discard(ticket)] == waiting


def test_those_who_make_place_are_the_newest_of_the_largest_and_all_of_them_are_told() -> None:
    admission: Admission[Ticket] = Admission(AdmissionLimits(100, 16))
    waiting = [Ticket(caller, 2) for caller in ("many", "some") for _ in range(4)]
    for ticket in waiting:
        admission.add(ticket, goes_at_once=False)
    displaced = admission.add(Ticket("new", 5), goes_at_once=False)
    assert [ticket for ticket, _ in displaced] == [waiting[3], waiting[7], waiting[2]]
    assert all((error.limit, error.requested, error.is_turned_away) == (16, 2, True) for _, error in displaced)
    assert admission.waiting_bytes == 15


def test_the_order_of_turns_is_that_of_a_plain_search(clock: Clock) -> None:
    chance = random.Random(3)
    for _ in range(20):
        queue, waiting, running = FairQueue[Ticket](), list[Ticket](), list[Ticket]()
        for _ in range(300):
            match chance.randrange(5):
                case 0 | 1:
                    ticket = Ticket(f"caller {chance.randrange(6)}", 1)
                    ticket.prompt_tokens = chance.randrange(1, 50)
                    queue.add(ticket)
                    waiting.append(ticket)
                case 2 if waiting:
                    first = queue.first()
                    assert first is not None
                    times = {ticket.caller: queue._time[ticket.caller] for ticket in waiting}
                    assert times[first.caller] == min(times.values())
                    assert first is next(ticket for ticket in waiting if ticket.caller == first.caller)
                    queue.take(first)
                    waiting.remove(first)
                    running.append(first)
                case 3 if running:
                    queue.end(running.pop(chance.randrange(len(running))), chance.randrange(1, 80))
                case 4 if waiting:
                    assert queue.discard(waiting.pop(chance.randrange(len(waiting))))
            assert len(queue) == len(waiting)
            assert sorted(ticket.number for ticket in queue) == [ticket.number for ticket in waiting]
        assert len(queue._order) <= 4 * 6 + 65


def test_counts_of_one_caller_leave_a_place_for_answers_of_another() -> None:
    admission: Admission[Ticket] = Admission(limits_of(4), counts_apart=True)
    counts = [Ticket("many", 10, is_count=True) for _ in range(4)]
    for ticket in counts:
        assert admission.add(ticket, goes_at_once=False) == []
    ((displaced, error),) = admission.add(Ticket("one", 10), goes_at_once=False)
    assert displaced is counts[-1]
    assert isinstance(error, OverloadedError)
    assert admission.waiting == 4


# Deadlines.


@pytest.mark.parametrize("answers", [(100,), (20, 60, 100, 220)])
def test_of_those_admitted_at_five_fold_overload_nearly_all_are_in_time(clock: Clock, answers: tuple[int]) -> None:
    in_time = Counter[bool]()
    upstream = Upstream(clock, places=8, limits=limits_of(256))
    chance = random.Random(7)

    def note(ticket: Ticket) -> None:
        assert ticket.deadline is not None
        in_time[clock.now <= ticket.deadline] += 1

    upstream.on_end = note
    for number in range(40 * 60):  # it can complete eight a second
        upstream.ask(f"caller {number % 10}", prompt=100, answer=chance.choice(answers), deadline=3.0)
        upstream.run(1 / 40)
    upstream.run(60)
    assert in_time[True] >= 0.95 * in_time.total()
    assert in_time.total() >= 0.9 * 8 * 60  # nobody was refused whose place then stayed empty
    refusals = [error for _, error in upstream.refused]
    assert all(isinstance(error, OverloadedError) and error.is_turned_away for error in refusals)
    assert all(error.retry_after and 0.5 <= error.retry_after <= 60 for error in refusals)
    # The first five seconds show how long an answer takes.
    late = [ticket for ticket, _ in upstream.refused if ticket.has_waited and ticket.arrived_at > 1005]
    # Nearly all are told when they come; some are overtaken by those of callers who have got less.
    assert len(late) <= 0.06 * len(refusals)


def test_an_idle_llm_refuses_nobody_for_their_deadline(clock: Clock) -> None:
    upstream = Upstream(clock, places=2, limits=limits_of())
    upstream.ask("", prompt=10, answer=1000)
    upstream.run(20)
    upstream.ask("", prompt=10, answer=1000, deadline=0.5)
    assert not upstream.refused
    upstream.run(20)
    assert len(upstream.finished) == 2


def test_nothing_is_refused_for_its_deadline_before_any_rate_is_known(clock: Clock) -> None:
    upstream = Upstream(clock, places=1, limits=limits_of())
    for _ in range(20):
        upstream.ask("", prompt=10, answer=10, deadline=0.5)
    assert not upstream.refused
    upstream.run(10)
    # Those whose time has run out meanwhile are not begun.
    assert 3 <= len(upstream.finished) <= 6
    assert len(upstream.finished) + len(upstream.refused) == 20


def test_the_wait_of_a_caller_with_little_is_not_that_of_the_whole_queue(clock: Clock) -> None:
    upstream = Upstream(clock, places=1, limits=limits_of())
    for _ in range(100):
        upstream.ask("many", prompt=10, answer=10)
    upstream.run(2)
    upstream.ask("many", prompt=10, answer=10, deadline=1.0)
    assert len(upstream.refused) == 1
    upstream.ask("one", prompt=10, answer=10, deadline=1.0)
    assert len(upstream.refused) == 1
    upstream.run(1)
    assert upstream.finished[-1].caller == "one" or any(ticket.caller == "one" for ticket in upstream.finished)


def test_a_model_that_is_loading_refuses_nobody_for_their_deadline(clock: Clock) -> None:
    upstream = Upstream(clock, places=1, limits=limits_of())
    upstream.ask("", prompt=10, answer=1000)
    upstream.run(20)
    admission = upstream.admission
    for _ in range(5):
        ticket = Ticket("", 10, max_tokens=1000, deadline=clock.now + 1)
        assert admission.add(ticket, goes_at_once=False, is_serving=False) == []


def test_duration_of_an_answer_follows_its_length() -> None:
    rate = ServiceRate()
    assert not rate.is_known
    for tokens in (10, 100, 50, 200, 20, 80) * 5:
        rate.record_answer(tokens, 0.5 + 0.02 * tokens)
    assert rate.duration(10) == pytest.approx(0.7, rel=0.1)
    assert rate.duration(500) == pytest.approx(10.5, rel=0.1)
    alike = ServiceRate()
    for _ in range(20):
        alike.record_answer(100, 2.0)
    assert alike.duration(100) == pytest.approx(2.0)
    # Longer ones have not been seen: they may take no longer, if most of it was waiting.
    assert alike.duration(1000) == pytest.approx(2.0)
    assert alike.duration(10) == pytest.approx(0.2)


def test_the_first_answers_after_a_start_tell_nothing_of_later_ones(clock: Clock) -> None:
    upstream = Upstream(clock, places=4, limits=limits_of(), seconds_per_token=1.0)
    for _ in range(4):
        upstream.ask("", prompt=10, answer=10)
    upstream.run(20)
    upstream.seconds_per_token = 0.001
    for _ in range(100):
        upstream.ask("many", prompt=10, answer=10, deadline=5)
    upstream.ask("one", prompt=10, answer=1000, deadline=5)
    upstream.run(10)
    assert not upstream.refused


# Callers' limits.


def test_a_callers_tokens_per_minute_are_held_to_and_come_back_with_time(clock: Clock) -> None:
    budget = CallerLimits(tokens_per_minute=6000)
    upstream = Upstream(clock, places=100, limits=limits_of(callers={"*": budget}))
    for _ in range(50):
        upstream.ask("one", prompt=990, answer=10)
        upstream.run(0.1)
    upstream.run(1)
    # The bucket holds one minute's; the first prompts are estimated at a quarter of their characters.
    assert upstream.tokens["one"] <= 6000 + 4000
    error = upstream.refused[-1][1]
    assert isinstance(error, RateLimitedError)
    assert error.is_turned_away
    assert "tokens_per_minute, which is 6000" in error.message
    assert error.retry_after is not None
    assert error.retry_after >= 0.5
    used = upstream.tokens["one"]
    upstream.run(error.retry_after)
    before = len(upstream.refused)
    upstream.ask("one", prompt=990, answer=10)
    assert len(upstream.refused) == before
    for _ in range(600):
        upstream.ask("one", prompt=990, answer=10)
        upstream.run(1)
    assert upstream.tokens["one"] - used == pytest.approx(60_000, rel=0.1)
    upstream.ask("other", prompt=990, answer=10)
    assert upstream.refused[-1][0].caller == "one"


def test_a_number_of_tokens_that_is_not_possible_locks_nobody_out(clock: Clock) -> None:
    admission: Admission[Ticket] = Admission(limits_of(callers={"*": CallerLimits(tokens_per_minute=1000)}))

    def ask() -> Ticket:
        ticket = Ticket("caller", 100, max_tokens=100)
        admission.add(ticket, goes_at_once=True)
        admission.take(ticket)
        return ticket

    minus_one = 2**32 - 1  # as a server says that keeps it as a number without a sign
    admission.end(ask(), prompt_tokens=minus_one, answer_tokens=minus_one, is_whole=True)
    clock.now += 30 * 60
    assert ask().tokens < 100_000


def test_what_a_refused_or_cancelled_request_has_reserved_is_given_back(clock: Clock) -> None:
    budget = CallerLimits(tokens_per_minute=1000)
    admission: Admission[Ticket] = Admission(limits_of(2, {"*": budget}))
    for _ in range(50):
        waiting = [Ticket("one", 1000, max_tokens=10) for _ in range(2)]
        for ticket in waiting:
            admission.add(ticket, goes_at_once=False)
        with pytest.raises(OverloadedError):
            admission.add(Ticket("one", 1000, max_tokens=10), goes_at_once=False)
        for ticket in waiting:
            assert admission.discard(ticket)
    assert not admission._budgets._buckets


def test_queues_that_have_their_budgets_in_common_give_no_more_together(clock: Clock) -> None:
    limits, budgets = limits_of(callers={"*": CallerLimits(tokens_per_minute=1000)}), token_budgets.TokenBudgets()
    models = [Admission[Ticket](limits, budgets) for _ in range(3)]
    models[0].add(Ticket("one", 4000, max_tokens=1), goes_at_once=True)
    for model in models:
        with pytest.raises(RateLimitedError):
            model.add(Ticket("one", 4000, max_tokens=1), goes_at_once=True)
        model.add(Ticket("other", 1000, max_tokens=1), goes_at_once=True)


def test_a_prompt_larger_than_the_budget_is_answered_and_then_waited_for(clock: Clock) -> None:
    upstream = Upstream(clock, places=10, limits=limits_of(callers={"one": CallerLimits(tokens_per_minute=600)}))
    upstream.ask("one", prompt=8000, answer=10)
    upstream.run(1)
    assert len(upstream.finished) == 1
    upstream.ask("one", prompt=10, answer=10)
    ((_, error),) = upstream.refused
    assert error.retry_after == pytest.approx(60 * (8010 - 600) / 600, rel=0.05)


def test_a_caller_has_no_more_running_and_waiting_than_they_may(clock: Clock) -> None:
    callers = {"*": CallerLimits(max_running=2, max_queue=3), "inference:big": CallerLimits(max_running=5)}
    upstream = Upstream(clock, places=10, limits=limits_of(callers=callers))
    for _ in range(10):
        upstream.ask("small", prompt=10, answer=10)
        upstream.ask("inference:big", prompt=10, answer=10)
    assert upstream.admission._running == {"small": 2, "inference:big": 5}
    assert [ticket.caller for ticket, _ in upstream.refused] == ["small"] * 5
    assert all("their max_queue is 3" in error.message for _, error in upstream.refused)
    upstream.ask("third", prompt=10, answer=10)  # is held up by neither
    assert upstream.admission._running["third"] == 1
    upstream.run(10)
    assert Counter(ticket.caller for ticket in upstream.finished) == {"small": 5, "inference:big": 10, "third": 1}


@pytest.mark.parametrize("name", ["inference:backend", "backend", "*"])
def test_limits_of_a_caller_stand_under_their_name_with_or_without_the_role_or_for_everybody(name: str) -> None:
    limits = CallerLimits(max_running=7)
    assert AdmissionLimits(1, 1, {name: limits}).of("inference:backend") is limits
    assert AdmissionLimits(1, 1, {"other": limits}).of("inference:backend") == CallerLimits()


def test_budgets_of_callers_who_are_gone_are_forgotten(clock: Clock) -> None:
    budgets = token_budgets.TokenBudgets()
    for number in range(10_000):
        budgets.correct(f"caller {number}", 10, 600)
        clock.now += 0.1
    assert len(budgets._buckets) < 200
