"""The replicas of a deployment, as tests look at them: asked now, not as a server last saw them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from abstractllm.providers.ray import RayProvider
from tests.waiting import LONGEST_WAIT

REPLICA = {"ray_address": "local", "num_cpus": 0.1, "drain_timeout": 5}
DEMO = REPLICA | {"model": "demo", "threads": 1, "replicas": 2, "application": "abstractllm-local"}
"""The deployment that the interop suite has, too: whichever test comes first makes it."""
ECHO = REPLICA | {"serves": "scripted", "application": "echo-for-all"}
ENDLESS = {4: -100.0}
"""The bias with which the demo model never ends an answer by itself."""


def demo(**keys: Any) -> RayProvider:
    """Returns the demo model in two replicas."""
    return RayProvider(DEMO | keys)


def echo(**keys: Any) -> RayProvider:
    """Returns a scripted LLM in one replica."""
    return RayProvider(ECHO | keys)


async def reports(llm: RayProvider) -> list[dict[str, Any]]:
    """Returns what each replica tells of itself, by name."""
    answers = await llm._replicas.ask_all("report", [0, 0])
    return sorted((answer for answer in answers if isinstance(answer, dict)), key=lambda report: str(report["replica"]))


async def until_reports(
    llm: RayProvider, holds: Callable[[list[dict[str, Any]]], object], timeout: float = LONGEST_WAIT
) -> list[dict[str, Any]]:
    """Waits until something holds of what the replicas tell."""
    async with asyncio.timeout(timeout):
        while not holds(told := await reports(llm)):  # noqa: ASYNC110 # Ray sets no event
            await asyncio.sleep(0.05)
        return told


async def until_true(ask: Callable[[], Awaitable[bool]], timeout: float = LONGEST_WAIT) -> None:
    """Waits until an answer is yes."""
    async with asyncio.timeout(timeout):
        while not await ask():  # noqa: ASYNC110 # what is asked sets no event
            await asyncio.sleep(0.1)


def running(told: list[dict[str, Any]]) -> int:
    """Returns the requests that replicas have."""
    return sum(report["running"] + report["queued"] for report in told)


def generated(told: list[dict[str, Any]]) -> int:
    """Returns the tokens that the engines of replicas have generated: their own counters."""
    return sum(report["statistics"].generated_tokens for report in told)
