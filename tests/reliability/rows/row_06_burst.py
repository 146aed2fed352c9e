"""Rows 6 and 7: a burst of 10,000 calls, and health meanwhile.

Pass mark: with a client that does not retry, every call ends OK or RESOURCE_EXHAUSTED with RetryInfo, none CANCELLED
or UNAVAILABLE; with the shipped client and its retries all end OK. Health, asked every 20 ms by a process of its own
on the main port, and on the health port, says SERVING with a p99 below 100 ms.
Load: twice 10,000 calls to a real engine of 64 slots.
"""

from __future__ import annotations

import asyncio

from abstractllm_client import AbstractLLMError, AsyncRemoteLLM
from tests.reliability.caller import GoodCaller, calling
from tests.reliability.calls import DEMO, Stub, request, tally, unary
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.server_process import ServerProcess, free_port, serving


async def measure(setting: Setting) -> Figures:
    """Sends both bursts and asks for health meanwhile."""
    figures = setting.figures()
    health = f"127.0.0.1:{free_port()}"
    async with serving(setting.folder, {"local": DEMO}, health=health) as server:
        for name, burst in (("no retries", _bare), ("shipped client", _shipped)):
            async with (
                calling(server.address, service="") as prober,
                calling(health, service="") as apart,
            ):
                await burst(figures, server, setting.load(10_000, 1_500))
                await _judge(figures, f"{name}: health on the main port", prober)
                await _judge(figures, f"{name}: health on its port", apart)
    return figures


async def _judge(figures: Figures, name: str, prober: GoodCaller) -> None:
    met = await prober.stop()
    figures.equal(f"{name}, not SERVING", met.errors, {})
    figures.at_most(f"{name}, p99 of {met.calls} calls", met.percentile(0.99), 100, "ms")


async def _bare(figures: Figures, server: ServerProcess, calls: int) -> None:
    async with server.channel([("grpc.enable_retries", 0)]) as channel:
        stub = Stub(channel)
        ends = await asyncio.gather(
            *(unary(stub.Generate(request(f"say {number}", max_tokens=1))) for number in range(calls))
        )
    refused = [end for end in ends if end.code != "OK"]
    figures.inform("no retries: ends", f"{tally(ends)}")
    figures.equal("no retries: other ends", tally(end for end in refused if end.code != "RESOURCE_EXHAUSTED"), {})
    figures.equal("no retries: refused without RetryInfo", sum(end.retry_after is None for end in refused), 0)


async def _shipped(figures: Figures, server: ServerProcess, calls: int) -> None:
    errors: list[str] = []
    async with AsyncRemoteLLM(server.address) as llm:

        async def call(number: int) -> None:
            try:
                await llm.generate(f"say {number}", max_tokens=1)
            except AbstractLLMError as error:
                errors.append(f"{type(error).__name__}: {error}"[:300])

        await asyncio.gather(*(call(number) for number in range(calls)))
    figures.equal(f"shipped client: errors of {calls} calls", len(errors), 0)
    if errors:
        figures.inform("the first", errors[0])


ROW = Row(
    numbers=(6, 7),
    title="a burst of 10,000 calls without and with the shipped client's retries; health meanwhile",
    pass_mark="OK or RESOURCE_EXHAUSTED with RetryInfo; all OK with retries; health SERVING, p99 under 100 ms",
    measure=measure,
    seconds=600,
)
