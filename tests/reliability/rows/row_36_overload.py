"""Row 36: overload with deadlines, and fairness.

Pass mark: at five times the load that an engine can bear, with deadlines, at least 95 % of the calls that are
admitted finish in time, and a call that is refused for its deadline is refused within 10 ms (the median of the
server's answers). One caller with 500 long prompts against ten with one request at a time: the Jain index of the
tokens, of prompts and answers, that the eleven callers got in the time of the test is at least 0.95. Over a unix
socket, where callers are told apart by their tokens, too.
Load: some 600 calls to a real engine; two minutes.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.reliability.calls import DEMO, ENDLESS, End, Stub, bearer, request, tally, unary
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.server_process import ServerProcess, serving
from tests.reliability.tokens import token_file

_ENGINE = DEMO | {"max_batch_size": 8, "max_queue": 2000}


async def measure(setting: Setting) -> Figures:
    """Overloads an engine, then lets callers of different size compete."""
    figures = setting.figures()
    folder = setting.folder
    names = {f"one-{number}": (f"token-{number}", "inference") for number in range(10)} | {
        "many": ("token-many", "inference")
    }
    tokens = str(token_file(folder, **names))
    async with serving(folder / "tcp", {"local": _ENGINE}, tokens=tokens) as server:
        await _overload(figures, server, setting)
    for name, listen in (("TCP", {}), ("unix socket", {"listen": f"unix://{folder}/s.sock"})):
        async with serving(folder / name[:3], {"local": _ENGINE}, tokens=tokens, **listen) as server:
            await _compete(figures, server, name, setting)
    return figures


def _message(tokens: int) -> Any:
    return request("Count on.", llm="local", logit_bias=ENDLESS, max_tokens=tokens)


async def _overload(figures: Figures, server: ServerProcess, setting: Setting) -> None:
    caller = bearer("token-many")
    async with server.channel() as channel:
        stub = Stub(channel)
        # The rate at which the engine serves with all its places taken.
        await asyncio.gather(*(stub.Generate(_message(60), metadata=caller) for _ in range(16)))
        began = time.monotonic()
        await asyncio.gather(*(stub.Generate(_message(60), metadata=caller) for _ in range(48)))
        rate = 48 / (time.monotonic() - began)
        figures.inform("the engine serves", rate, "calls a second")
        deadline = max(3.0, 24 / rate)
        pending: list[asyncio.Task[End]] = []
        began, seconds = time.monotonic(), setting.load(20, 6)
        while (now := time.monotonic() - began) < seconds:
            while len(pending) < 5 * rate * now:
                pending.append(
                    asyncio.create_task(unary(stub.Generate(_message(60), metadata=caller, timeout=deadline)))
                )
            await asyncio.sleep(0.01)
        ends = await asyncio.gather(*pending)
    refused = [end for end in ends if end.code == "RESOURCE_EXHAUSTED" or (end.reason and end.seconds < 0.5 * deadline)]
    admitted = [end for end in ends if end not in refused]
    served = sum(end.code == "OK" for end in admitted)
    figures.inform("ends", f"{tally(ends)}")
    figures.at_least("of the calls, refused", len(refused), len(ends) // 4)
    figures.at_least("of those admitted, in time", 100 * served / max(1, len(admitted)), 95, "%")
    durations = sorted(end.seconds for end in refused)
    median = durations[len(durations) // 2] if durations else float("inf")
    figures.at_most("refusal, median", 1000 * median, 10, "ms")
    figures.inform("refusal, p95", 1000 * durations[int(0.95 * len(durations))] if durations else "none", "ms")
    figures.at_least("served of what the engine could", 100 * served / (rate * seconds), 60, "%")


async def _compete(figures: Figures, server: ServerProcess, name: str, setting: Setting) -> None:
    """One caller with 500 long prompts in the queue, against ten who each have one short request at a time."""
    received: Counter[str] = Counter()
    window = setting.load(45, 12)
    long = "word " * 300

    async def call(stub: Any, caller: str, message: Any) -> None:
        answer = await stub.Generate(message, metadata=bearer(caller))
        received[caller] += answer.usage.input_tokens + answer.usage.output_tokens

    async def repeat(stub: Any, caller: str) -> None:
        while True:
            await call(stub, caller, _message(60))

    async with server.channel() as channel:
        stub = Stub(channel)
        await stub.Generate(_message(3), metadata=bearer("token-many"))
        queued = [
            request(f"{number} {long}", llm="local", max_tokens=60, logit_bias=ENDLESS)
            for number in range(setting.load(500, 100))
        ]
        tasks = [asyncio.create_task(call(stub, "token-many", message)) for message in queued]
        await asyncio.sleep(1)
        tasks += [asyncio.create_task(repeat(stub, f"token-{number}")) for number in range(10)]
        # What ran when the ten came is not their loss; turns count from then on.
        await asyncio.sleep(window / 3)
        received.clear()
        done, _ = await asyncio.wait(tasks, timeout=window, return_when=asyncio.FIRST_EXCEPTION)
        shares = [received[caller] for caller in ("token-many", *(f"token-{number}" for number in range(10)))]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    figures.equal(f"{name}: errors", [str(task.exception()) for task in done if task.exception()], [])
    figures.inform(
        f"{name}: tokens of the one, and the least and most of the ten",
        f"{shares[0]}, {min(shares[1:])} to {max(shares[1:])}",
    )
    figures.at_least(f"{name}: Jain index of tokens", jain(shares), 0.95)


def jain(values: Sequence[float]) -> float:
    """Returns Jain's index of fairness: 1 where all are equal, 1/n where one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 0.0


ROW = Row(
    numbers=(36,),
    title="five-fold overload with deadlines; one caller with 500 long prompts against ten with one",
    pass_mark="95 % of admitted in time, refusal within 10 ms; Jain index of tokens >= 0.95; over unix sockets too",
    measure=measure,
    seconds=600,
)
