"""The one rule by which requests of an LLM run, wait or are refused."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from abstractllm._core.admission.displacement import displaced_by
from abstractllm._core.admission.fair_queue import FairQueue
from abstractllm._core.admission.limits import UNLIMITED, AdmissionLimits, CallerLimits
from abstractllm._core.admission.returning_callers import ReturningCallers
from abstractllm._core.admission.service_rate import ServiceRate
from abstractllm._core.admission.ticket import Ticket
from abstractllm._core.admission.token_budgets import TokenBudgets
from abstractllm._core.admission.token_estimate import TokenEstimate
from abstractllm.errors import AbstractLLMError, OverloadedError, RateLimitedError

__all__ = ["Admission", "Refusal"]

T = TypeVar("T", bound=Ticket)
E = TypeVar("E", bound=AbstractLLMError)

Refusal = OverloadedError | RateLimitedError

_SHORTEST_DELAY, _LONGEST_DELAY = 0.5, 60.0
_MARGIN = 1.15
"""The factor by which anything may take longer than expected."""
_PATIENCE, _LONGEST_PATIENCE = 0.05, 0.25
"""The share of an answer's duration, and the seconds, for which a place is at most kept for a caller who is about to
come again: so much of the LLM's time is given for fairness."""


class Admission(Generic[T]):
    """The requests of one LLM that wait or run, and the limits that they are held to.

    Callers take turns, weighted by tokens. Where the queue is full, the newest request of the caller who has most in it
    makes place for one who has less. A place that becomes free is kept for a moment where only callers wait who have
    got more than one who asks again after each answer. A request that cannot meet its deadline at the present rate is
    refused when it comes, and again just before its turn. Requests that only count tokens are held to no limits of
    callers.

    It takes no lock and wakes nobody: one who uses it from several threads holds a lock in every method.

    Args:
        limits: The limits; they may be replaced at any time.
        budgets: The tokens that callers may use, where several queues have them in common.
        counts_apart: True if requests that only count tokens wait in a queue of their own, and take no place.
    """

    def __init__(
        self, limits: AdmissionLimits, budgets: TokenBudgets | None = None, *, counts_apart: bool = False
    ) -> None:
        self.limits = limits
        self._counts_apart = counts_apart
        self.places = 1
        """Requests that are answered at a time."""
        self._answers: FairQueue[T] = FairQueue()
        self._counts: FairQueue[T] = FairQueue()
        self._rate = ServiceRate()
        self._estimate = TokenEstimate()
        self._budgets = TokenBudgets() if budgets is None else budgets
        self._running: Counter[str] = Counter()
        """Requests that have had their turn and are not over, by caller, without those that are counted apart."""
        self._total_running = 0
        self._returning = ReturningCallers()

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._answers) + len(self._counts)

    @property
    def waiting_bytes(self) -> int:
        """Bytes that these hold."""
        return self._answers.bytes + self._counts.bytes

    @property
    def running(self) -> int:
        """Requests that have had their turn and are not over, without those that are counted apart."""
        return self._total_running

    def queue_of(self, ticket: T) -> FairQueue[T]:
        """Returns the queue of a request's kind."""
        return self._counts if self._is_apart(ticket) else self._answers

    def _is_apart(self, ticket: T) -> bool:
        return ticket.is_count and self._counts_apart

    # In.

    def add(self, ticket: T, *, goes_at_once: bool, is_serving: bool = True) -> list[tuple[T, Refusal]]:
        """Takes a request in.

        Args:
            ticket: The request.
            goes_at_once: True if nothing is in front of it, so that the limits of what waits are not its concern.
            is_serving: False while the LLM answers nobody: its model is loading, and its rate is not known then.

        Returns:
            Those that have to make place for it, and the error that each of them must be told.

        Raises:
            RateLimitedError: If its caller has too many waiting, or has used up their tokens.
            OverloadedError: If too much waits already, or it cannot meet its deadline.
        """
        ticket.prompt_tokens = self._estimate.prompt_tokens(ticket.characters)
        ticket.arrived_at = time.monotonic()
        self._returning.come(ticket.caller, ticket.arrived_at)
        if not ticket.is_count:
            ticket.answer_tokens = self._estimate.answer_tokens(ticket.max_tokens)
            ticket.most_answer_tokens = self._estimate.most_answer_tokens(ticket.max_tokens)
        limits = self._limits_of(ticket)
        if not goes_at_once:
            self._require_turn(ticket, limits.max_queue)
        # Those that wait while a place is kept free for a moment take it before this one.
        is_full = self._total_running + len(self._answers) >= self.places
        if is_serving and not ticket.is_count and is_full:
            self._require_time(ticket, *((0.0, 0.0) if goes_at_once else self._answers.ahead_of(ticket)))
        self._reserve(ticket, limits.tokens_per_minute)
        displaced: list[tuple[T, Refusal]] = []
        if not goes_at_once:
            victims = displaced_by(ticket, (self._answers, self._counts), self.limits)
            if victims is None:
                self._release(ticket)
                raise self._full(ticket)
            displaced = [(victim, self._full(victim)) for victim in victims]
            for victim in victims:
                self.discard(victim)
        ticket.has_waited = not goes_at_once
        self.queue_of(ticket).add(ticket)
        self._observe()
        return displaced

    def _require_turn(self, ticket: T, limit: int | None) -> None:
        waiting, _ = self.queue_of(ticket).held_by(ticket.caller)
        if limit is not None and waiting >= limit:
            raise _turned_away(
                RateLimitedError(
                    f"{waiting} requests of the caller wait already, their max_queue is {limit}",
                    retry_after=self._delay(waiting),
                    limit=limit,
                )
            )

    def _reserve(self, ticket: T, per_minute: int | None) -> None:
        if per_minute is None:
            return
        if delay := self._budgets.reserve(ticket.caller, ticket.tokens, per_minute):
            raise _turned_away(
                RateLimitedError(
                    f"the caller has used up their tokens_per_minute, which is {per_minute}; "
                    f"this request is expected to take {ticket.tokens}",
                    retry_after=max(_SHORTEST_DELAY, delay),
                    limit=per_minute,
                    requested=ticket.tokens,
                )
            )
        ticket.reserved = ticket.tokens

    def _require_time(self, ticket: T, requests: float, tokens: float) -> None:
        if late := self._lateness(ticket, self._rate.wait(requests, tokens) if requests else 0.0):
            raise late

    def _lateness(self, ticket: T, wait: float) -> OverloadedError | None:
        """Returns the error of a request that cannot meet its deadline if it waits so many seconds."""
        if ticket.deadline is None or not self._rate.is_known:
            return None
        remaining = ticket.deadline - time.monotonic()
        duration = self._rate.duration(ticket.most_answer_tokens)
        if _MARGIN * duration > ticket.deadline - ticket.arrived_at:
            # Even alone it would not surely be in time: what counts is whether it probably is.
            duration = self._rate.duration(ticket.answer_tokens)
        needed = _MARGIN * (wait + duration)
        if needed <= remaining:
            return None
        return _turned_away(
            OverloadedError(
                f"the answer is expected in {needed:.1f} seconds at the present rate, "
                f"and the deadline is in {max(0.0, remaining):.1f}",
                retry_after=_bounded(needed - remaining),
                limit=f"{max(0.0, remaining):.3f} seconds",
                requested=f"{needed:.3f} seconds",
            )
        )

    def _full(self, ticket: T) -> OverloadedError:
        """Returns the error of a request that there is no room for beside those that wait now."""
        limit, byte_limit = self.limits.max_queue, self.limits.max_queue_bytes
        delay = self._delay(self.waiting)
        if self.waiting >= limit:
            message = f"{self.waiting} requests wait already, max_queue is {limit}"
            return _turned_away(OverloadedError(message, retry_after=delay, limit=limit))
        return _turned_away(
            OverloadedError(
                f"requests of {self.waiting_bytes} bytes wait already and this one has {ticket.size}, "
                f"max_queue_bytes is {byte_limit}",
                retry_after=delay,
                limit=byte_limit,
                requested=ticket.size,
            )
        )

    def _delay(self, requests: int) -> float:
        return _bounded(requests / self._rate.per_second)

    def _limits_of(self, ticket: T) -> CallerLimits:
        return UNLIMITED if ticket.is_count else self.limits.of(ticket.caller)

    # Its turn.

    def is_held(self, ticket: T) -> bool:
        """Returns True for a request whose caller has as many running as they may."""
        limit = self._limits_of(ticket).max_running
        return limit is not None and self._running[ticket.caller] >= limit

    def first(self, *, counts: bool = False, is_held: Callable[[T], bool] | None = None) -> T | None:
        """Returns the request whose turn is next.

        Args:
            counts: True for those that only count tokens.
            is_held: Returns True for a request that must still wait for a further reason.
        """
        queue = self._counts if counts else self._answers
        if not self.limits.callers:
            return queue.first(is_held)
        return queue.first(lambda ticket: self.is_held(ticket) or (is_held is not None and is_held(ticket)))

    def patience(self, ticket: T) -> float:
        """Returns the seconds for which a request whose turn is next must let a place stay free; 0 if it may take it.

        One is kept for each caller who has got less, and who is about to ask again after the answer that they had; none
        where nobody may wait, since the request would be refused.
        """
        patience = min(_LONGEST_PATIENCE, _PATIENCE * self._rate.mean_duration)
        may_wait = self.limits.max_queue and self._limits_of(ticket).max_queue != 0
        if not patience or ticket.is_count or not may_wait:
            return 0.0
        now, queue = time.monotonic(), self._answers
        got = queue.time_of(ticket.caller)
        returning = [left_at for caller, left_at in self._returning.expected(now) if queue.time_of(caller) < got]
        ends = sorted(end for left_at in returning if (end := left_at + patience - now) > 0)
        free = self.places - self._total_running
        return ends[-max(1, free)] if ends and free <= len(ends) else 0.0

    def is_ahead(self, ticket: T) -> bool:
        """Returns True if a request's caller has got more than another one who is being answered or about to return.

        Such a request takes a place that is free, but none in front of the places: there it would be in front of others
        whose turns come before.
        """
        queue = self._answers
        got = queue.time_of(ticket.caller)
        return any(queue.time_of(caller) < got for caller in queue.running_callers) or self.patience(ticket) > 0

    def too_late(self, ticket: T) -> OverloadedError | None:
        """Returns the error of a request that cannot meet its deadline even if it has its turn now."""
        return self._lateness(ticket, 0.0) if ticket.has_waited and not ticket.is_count else None

    def take(self, ticket: T) -> None:
        """Gives a request its turn; `end` must follow."""
        self.queue_of(ticket).take(ticket)
        ticket.taken_at = time.monotonic()
        if not self._is_apart(ticket):
            self._running[ticket.caller] += 1
            self._total_running += 1
        self._observe()

    def progress(self, ticket: T, answer_tokens: int) -> None:
        """Charges a running request's caller for an answer that has become longer than expected."""
        tokens = ticket.prompt_tokens + answer_tokens
        if tokens > ticket.charged:
            self.queue_of(ticket).charge(ticket, tokens)

    # Out.

    def end(
        self,
        ticket: T,
        *,
        prompt_tokens: int | None = None,
        answer_tokens: int | None = None,
        is_whole: bool = False,
    ) -> None:
        """Ends a request that has had its turn.

        Args:
            ticket: The request.
            prompt_tokens: The tokens of its prompt; as many as were expected where that is not known.
            answer_tokens: The tokens of its answer; none where that is not known and the answer is not whole.
            is_whole: True if the answer is whole, and tells of the next ones.
        """
        queue = self.queue_of(ticket)
        if answer_tokens is None:
            answer_tokens = ticket.answer_tokens if is_whole else 0
        is_prompt_known = prompt_tokens is not None
        prompt_tokens, answer_tokens = ticket.believable(
            ticket.prompt_tokens if prompt_tokens is None else prompt_tokens, answer_tokens
        )
        # One that failed has used its turn, too.
        tokens = prompt_tokens + answer_tokens
        queue.end(ticket, tokens)
        self._settle(ticket, tokens)
        if self._is_apart(ticket):
            return
        self._running[ticket.caller] -= 1
        if not self._running[ticket.caller]:
            del self._running[ticket.caller]
        self._total_running -= 1
        self._rate.record(ticket.tokens)
        if is_whole and not queue.has_any(ticket.caller):
            self._returning.leave(ticket.caller, time.monotonic())
        if is_whole and ticket.taken_at is not None:
            self._rate.record_answer(answer_tokens, time.monotonic() - ticket.taken_at, self.places)
            known_tokens = prompt_tokens if is_prompt_known else None
            self._estimate.record(ticket.characters, known_tokens, answer_tokens, ticket.max_tokens)
        self._observe()

    def discard(self, ticket: T) -> bool:
        """Gives up a request that waits; returns False if it does not wait."""
        if not self.queue_of(ticket).discard(ticket):
            return False
        self._release(ticket)
        self._observe()
        return True

    def clear(self) -> list[T]:
        """Gives up everything that waits."""
        tickets = [*self._answers.clear(), *self._counts.clear()]
        for ticket in tickets:
            self._release(ticket)
        self._observe()
        return tickets

    def end_all(self, tickets: Iterable[T]) -> None:
        """Ends requests that have had their turn and came to nothing."""
        for ticket in tickets:
            self.end(ticket)

    def _release(self, ticket: T) -> None:
        self._settle(ticket, 0)

    def _settle(self, ticket: T, tokens: int) -> None:
        """Corrects what a request has taken from its caller's budget."""
        per_minute = self._limits_of(ticket).tokens_per_minute
        if per_minute is not None:
            self._budgets.correct(ticket.caller, tokens - ticket.reserved, per_minute)
        ticket.reserved = 0

    def _observe(self) -> None:
        self._rate.observe(bool(self._answers) and self._total_running > 0, self.places)


def _bounded(delay: float) -> float:
    return min(_LONGEST_DELAY, max(_SHORTEST_DELAY, delay))


def _turned_away(error: E) -> E:
    error.is_turned_away = True
    return error
