"""Row 11: mutated requests.

Pass mark: 100,000 mutated messages to every method, health and reflection included, end with OK or a status that
names its reason; none with INTERNAL or UNKNOWN, none without a reason; the server's memory rises by 10 MiB at most
after it.
Load: 100,000 calls, 64 at a time; the seed of the mutations is fixed.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

from grpc import aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from abstractllm_api.v1 import config_pb2, generation_pb2, models_pb2
from tests.fuzz.corpus import mutated
from tests.reliability.calls import end_of
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.server_process import echo, serving

_BARE = {"DEADLINE_EXCEEDED", "CANCELLED"}
"""Statuses that the client itself may give, at the deadline of a call that waits by design."""
_STREAMS = {"StreamGenerate", "PullModel", "LoadModel", "UnloadModel", "ServerReflectionInfo"}


async def measure(setting: Setting) -> Figures:
    """Mutates one good request of each method, again and again."""
    figures = setting.figures()
    count = setting.load(100_000, 4_000)
    statuses: Counter[str] = Counter()
    llms = echo() | {"demo": {"provider": "scripted", "reply": "a b c"}}
    async with serving(setting.folder, llms) as server, server.channel() as channel:
        seeds = _seeds()
        await _mutate(channel, seeds, setting.load(5_000, 1_000), random.Random(1), statuses)
        before = server.rss
        statuses.clear()
        await _mutate(channel, seeds, count, random.Random(2), statuses)
        kept = await server.settled_rss(before + 10) - before
        figures.holds("serves on", await server.is_healthy())
    bad = {name: times for name, times in statuses.items() if _is_bad(name)}
    figures.inform("statuses", f"{dict(statuses.most_common())}")
    figures.equal("INTERNAL, UNKNOWN or without a reason", bad, {})
    figures.at_most("memory kept", kept, 10, "MiB")
    return figures


def _is_bad(name: str) -> bool:
    code, _, reason = name.partition(" ")
    return code in ("INTERNAL", "UNKNOWN") or (code != "OK" and code not in _BARE and not reason)


def _seeds() -> list[tuple[str, bytes]]:
    """Returns each method with a good message; those that would wait or change much are as harmless as they can be."""
    generate = generation_pb2.GenerateRequest(
        llm="echo",
        chat=generation_pb2.Chat(
            messages=[
                generation_pb2.ChatMessage(role=1, parts=[generation_pb2.Part(text="hello")]),
                generation_pb2.ChatMessage(role=1, parts=[generation_pb2.Part(image={"data": b"\x89PNG\r\n\x1a\n"})]),
            ]
        ),
        parameters={"temperature": 0.5, "max_tokens": 3, "stop": ["x"], "logit_bias": {1: 1.0}},
        tools=[generation_pb2.Tool(name="f", description="d")],
        labels={"a": "b"},
        request_id="r",
    )
    generate.provider_options.update({"reply": "one two"})
    messages: dict[str, dict[str, Any]] = {
        "GenerationService": {
            "Generate": generate,
            "StreamGenerate": generate,
            "CountTokens": generation_pb2.CountTokensRequest(llm="echo", prompt="hello"),
        },
        "ModelService": {
            "ListLlms": models_pb2.ListLlmsRequest(),
            "GetCapabilities": models_pb2.GetCapabilitiesRequest(llm="echo"),
            "ListCachedModels": models_pb2.ListCachedModelsRequest(llm="echo"),
            "PullModel": models_pb2.PullModelRequest(llm="echo", model="x"),
            "LoadModel": models_pb2.LoadModelRequest(llm="echo"),
            "UnloadModel": models_pb2.UnloadModelRequest(llm="echo"),
            "ClearCache": models_pb2.ClearCacheRequest(llm="echo", model="x"),
        },
        "ConfigService": {
            "GetConfig": config_pb2.GetConfigRequest(llm="echo"),
            "SetConfig": config_pb2.SetConfigRequest(llm="demo", config={"timeout": {"seconds": 60}}),
        },
    }
    paths = {
        f"/abstractllm_api.v1.{service}/{method}": message.SerializeToString()
        for service, methods in messages.items()
        for method, message in methods.items()
    }
    paths["/grpc.health.v1.Health/Check"] = health_pb2.HealthCheckRequest(service="liveness").SerializeToString()
    question = reflection_pb2.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health")
    for version in ("v1", "v1alpha"):
        paths[f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"] = question.SerializeToString()
    return list(paths.items())


async def _mutate(
    channel: aio.Channel, seeds: list[tuple[str, bytes]], count: int, source: random.Random, statuses: Counter[str]
) -> None:
    left = count

    async def work() -> None:
        nonlocal left
        while left:
            left -= 1
            path, seed = source.choice(seeds)
            try:
                await _call(channel, path, mutated(seed, source))
                statuses["OK"] += 1
            except aio.AioRpcError as error:
                end = end_of(error)
                # The standard of health checks names no reason for a service that it does not know.
                statuses["OK" if "Health" in path and end.code == "NOT_FOUND" else str(end)] += 1

    await asyncio.gather(*(work() for _ in range(64)))


async def _call(channel: aio.Channel, path: str, message: bytes) -> None:
    method = path.rpartition("/")[2]
    if method in _STREAMS:
        async for _ in channel.unary_stream(path)(message, timeout=10):
            pass
    else:
        await channel.unary_unary(path)(message, timeout=10)


ROW = Row(
    numbers=(11,),
    title="100,000 mutated requests to every method",
    pass_mark="OK or a status with its reason; no INTERNAL, no UNKNOWN; RSS +10 MiB at most",
    measure=measure,
    quick=True,
    seconds=600,
)
