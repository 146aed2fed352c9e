"""One replica: a queue with the server's limits, and an engine that answers in steps."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field

__all__ = ["Limits", "Replica", "Request", "StepTimes"]


@dataclass(frozen=True)
class StepTimes:
    """The time of a step of the batch, by the answers that grow in it and the prompt tokens that are read in it.

    Attributes:
        points: Answers in a step, and the seconds that it takes; between two points and beyond them on a straight line.
        prompt_token: Further seconds for each prompt token.
        request: Further seconds for each request whose prompt is begun, however long it is.
    """

    points: tuple[tuple[int, float], ...]
    prompt_token: float = 0.0
    request: float = 0.0

    def __post_init__(self) -> None:
        rows = [count for count, _ in self.points]
        if not rows or rows != sorted(set(rows)) or rows[0] < 1:
            raise ValueError(f"step times are needed for growing numbers of answers from 1, got {list(self.points)}")
        if any(seconds <= 0 for _, seconds in self.points) or min(self.prompt_token, self.request) < 0:
            raise ValueError(
                "the seconds of a step must be more than 0, and those of a prompt token or request not less"
            )

    def seconds(self, rows: int, prompt_tokens: int = 0, requests: int = 0) -> float:
        """Returns the seconds of a step.

        Args:
            rows: Answers that grow in it.
            prompt_tokens: Prompt tokens that are read in it.
            requests: Requests whose prompts are begun in it.
        """
        return self._decode(rows) + prompt_tokens * self.prompt_token + requests * self.request

    def _decode(self, rows: int) -> float:
        points = self.points
        if len(points) == 1:
            return points[0][1]
        place = min(max(1, bisect_left(points, (rows, 0.0))), len(points) - 1)
        (few, quick), (many, slow) = points[place - 1], points[place]
        line = quick + (slow - quick) * (rows - few) / (many - few)
        return max(line, min(points[0][1], points[-1][1]) * 0.1)

    def scaled(self, factor: float) -> StepTimes:
        """Returns the times of a replica that is slower by a factor."""
        points = tuple((rows, seconds * factor) for rows, seconds in self.points)
        return StepTimes(points, self.prompt_token * factor, self.request * factor)


@dataclass(frozen=True)
class Limits:
    """The limits of an LLM on one server, as its configuration has them.

    Attributes:
        places: Requests that are answered at a time (`max_batch_size`).
        max_queue: Requests that may wait (`max_queue`).
        step_prompt_tokens: Tokens of a step at most; what the growing answers leave is for prompts.
    """

    places: int = 64
    max_queue: float = 256
    step_prompt_tokens: int = 512

    @property
    def sent_ahead(self) -> int:
        """Requests beyond the places that the server gives to the engine to prepare; they count as waiting for none."""
        return max(4, self.places // 8)

    @property
    def most(self) -> float:
        """Requests that a replica holds at most; one more is refused with OVERLOADED."""
        return self.places + self.sent_ahead + self.max_queue


@dataclass(slots=True)
class Request:
    """One request, and the times of what happened to it; those below 0 did not happen."""

    number: int
    arrived: float
    prompt_tokens: int
    answer_tokens: int
    replica: int = -1
    attempts: int = 0
    begun: float = -1.0
    """The time at which its prompt's first token was read."""
    first_token: float = -1.0
    ended: float = -1.0
    client: int = 0


@dataclass(slots=True)
class _Prompt:
    request: Request
    left: int


@dataclass
class Replica:
    """One server with its engine.

    The engine goes from step to step. A step has a token of each growing answer, and as many prompt tokens as the limit
    leaves, in the order of arrival; a request whose prompt was read to its end has its first token then. Requests that
    come in the middle of a step wait for its end.

    While no prompt is there to be read, equal steps are taken as one run, which a newcomer cuts short.
    """

    number: int
    times: StepTimes
    limits: Limits
    waiting: deque[Request] = field(default_factory=deque)
    busy_seconds: float = 0.0
    steps: int = 0
    answered: int = 0
    """Requests that have ended here."""
    answered_seconds: float = 0.0
    """The time that they took from their arrival on, together."""
    answered_tokens: int = 0
    version: int = 0
    """Changes whenever the end of the present run does."""
    ends: float = -1.0
    """The end of the present run; below 0 while it is idle."""
    _prompts: deque[_Prompt] = field(default_factory=deque)
    _rows: list[tuple[int, int, Request]] = field(default_factory=list)
    _began: float = 0.0
    _step_seconds: float = 0.0
    _run_steps: int = 0
    _chunks: list[int] = field(default_factory=list)

    @property
    def running(self) -> int:
        """Requests that have a place."""
        return len(self._rows) + len(self._prompts)

    @property
    def load(self) -> int:
        """Requests that it has, running or waiting."""
        return self.running + len(self.waiting)

    def offer(self, request: Request, now: float) -> bool:
        """Takes a request in; returns False if it is refused, since too many wait."""
        if self.load >= self.limits.most:
            return False
        request.replica = self.number
        self.waiting.append(request)
        if self.ends < 0:
            self._begin(now)
        elif self._run_steps > 1 and self.running < self.limits.places:
            done = min(int((now - self._began) / self._step_seconds), self._run_steps - 1)
            if done + 1 < self._run_steps:
                self._run_steps = done + 1
                self._set_end()
        return True

    def advance(self) -> list[Request]:
        """Ends the present run and begins the next one; returns the requests that have ended."""
        now = self.ends
        self.steps += self._run_steps
        self.busy_seconds += now - self._began
        for chunk in self._chunks:
            prompt = self._prompts[0]
            prompt.left -= chunk
            if prompt.left == 0:
                self._prompts.popleft()
                request = prompt.request
                request.first_token = now
                heapq.heappush(self._rows, (self.steps + request.answer_tokens - 1, request.number, request))
        ended = []
        while self._rows and self._rows[0][0] <= self.steps:
            request = heapq.heappop(self._rows)[2]
            request.ended = now
            self.answered_seconds += now - request.arrived
            self.answered_tokens += request.answer_tokens
            ended.append(request)
        self.answered += len(ended)
        self._begin(now)
        return ended

    def _begin(self, now: float) -> None:
        """Begins the next step, or a run of equal ones, if there is anything to do."""
        while self.waiting and self.running < self.limits.places:
            request = self.waiting.popleft()
            self._prompts.append(_Prompt(request, request.prompt_tokens))
        self._began = now
        rows = len(self._rows)
        self._chunks = []
        begun = 0
        if self._prompts:
            left = max(self.limits.step_prompt_tokens - rows, 0) or (0 if rows else 1)
            for prompt in self._prompts:
                if left <= 0:
                    break
                if prompt.left == prompt.request.prompt_tokens:
                    prompt.request.begun = now
                    begun += 1
                self._chunks.append(min(prompt.left, left))
                left -= self._chunks[-1]
            self._run_steps = 1
        elif rows:
            self._run_steps = self._rows[0][0] - self.steps
        else:
            self.ends = -1.0
            self.version += 1
            return
        self._step_seconds = self.times.seconds(rows, sum(self._chunks), begun)
        self._set_end()

    def _set_end(self) -> None:
        self.ends = self._began + self._run_steps * self._step_seconds
        self.version += 1
