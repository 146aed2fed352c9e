"""Row 21: faulty upstreams.

Pass mark: ten faults of an upstream (a reset in the middle, 429, 500, silence, bad UTF-8, bad JSON, a line of 1 GiB,
a gzip bomb, an early end, a refused connection), streamed and whole, through three providers, each end with one
documented status and its reason, within the deadline; the server's memory rises by 100 MiB at most.
Load: 60 calls.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterable
from typing import Any

from tests.providers.fake_http import Exchange, gibibyte, gzip_bomb
from tests.reliability.calls import End, Stub, request, streamed, unary
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.server_process import free_port, serving
from tests.reliability.upstream import chunk, hosted, upstream

_DEADLINE = 5.0
_PROVIDERS = ("openai", "anthropic", "ollama")
_DOCUMENTED = {
    "reset": {"PROVIDER_UNAVAILABLE", "INCOMPLETE_STREAM"},
    "429": {"RATE_LIMITED"},
    "500": {"PROVIDER_UNAVAILABLE"},
    "silence": {"TIMEOUT"},
    "bad-utf8": {"PROVIDER_PROTOCOL", "INCOMPLETE_STREAM"},
    "bad-json": {"PROVIDER_PROTOCOL", "INCOMPLETE_STREAM"},
    "long-line": {"PROVIDER_PROTOCOL", "INCOMPLETE_STREAM"},
    "gzip-bomb": {"PROVIDER_PROTOCOL", "INCOMPLETE_STREAM"},
    "early-end": {"INCOMPLETE_STREAM", "PROVIDER_PROTOCOL"},
    "refused": {"PROVIDER_UNAVAILABLE"},
}


def _begin(provider: str) -> str:
    """Returns the beginning of a good stream."""
    if provider == "openai":
        return chunk("hello")
    if provider == "ollama":
        return json.dumps({"model": "m", "message": {"role": "assistant", "content": "hello"}, "done": False}) + "\n"
    message = {
        "id": "1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}},
    ]
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)


def _fault(provider: str, fault: str) -> Any:
    headers = {"Content-Type": "application/x-ndjson" if provider == "ollama" else "text/event-stream"}
    prefix = "" if provider == "ollama" else "data: "

    async def handle(exchange: Exchange) -> None:
        match fault:
            case "429" | "500":
                await exchange.respond({"error": {"message": "slow down"}}, int(fault))
                return
            case "silence":
                await asyncio.sleep(60)
                return
            case "gzip-bomb":
                await exchange.start(200, headers | {"Content-Encoding": "gzip"})
                await _send_all(exchange, itertools.islice(gzip_bomb(), 1100))
                await exchange.end()
                return
        await exchange.start(200, headers)
        await exchange.send(_begin(provider))
        match fault:
            case "reset":
                await asyncio.sleep(0.05)
                exchange.reset()
                return
            case "bad-utf8":
                await exchange.send(prefix.encode() + b'{"x": "\xff\xfe"}\n\n')
            case "bad-json":
                await exchange.send(prefix + '{"choices": [{"delta"\n\n')
            case "long-line":
                await _send_all(exchange, gibibyte(prefix.encode()))
        await exchange.end()

    return handle


async def _send_all(exchange: Exchange, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        await exchange.send(piece)


async def measure(setting: Setting) -> Figures:
    """Plays every fault to every provider, streamed and whole."""
    figures = setting.figures()
    providers = _PROVIDERS if setting.full else _PROVIDERS[:1]
    pairs = [(provider, fault) for provider in providers for fault in _DOCUMENTED]

    async def handle(exchange: Exchange) -> None:
        model = exchange.request.json["model"] if exchange.request.body else ""
        provider, _, fault = model.partition("-")
        if exchange.request.path.endswith("/api/show"):
            await exchange.respond({"details": {}, "model_info": {}, "capabilities": ["completion"]})
            return
        await _fault(provider, fault)(exchange)

    async with upstream(handle) as api:
        llms = {f"{provider}-{fault}": hosted(api, provider, model=f"{provider}-{fault}") for provider, fault in pairs}
        for name, line in llms.items():
            if name.endswith("refused"):
                line["base_url"] = f"http://127.0.0.1:{free_port()}"
        async with serving(setting.folder, llms, ready=False) as server, server.channel() as channel:
            await server.becomes_healthy("liveness")
            stub, wrong, slowest = Stub(channel), list[str](), 0.0
            await unary(stub.Generate(request(llm="openai-429"), timeout=_DEADLINE))
            before = server.rss
            server.reset_peak()
            for provider, fault in pairs:
                for way in ("streamed", "whole"):
                    message, began = request(llm=f"{provider}-{fault}"), time.monotonic()
                    deadline = 1.5 if fault == "silence" else _DEADLINE
                    if way == "whole":
                        end = await unary(stub.Generate(message, timeout=deadline))
                    else:
                        end = await streamed(stub.StreamGenerate(message, timeout=deadline))
                    slowest = max(slowest, time.monotonic() - began - deadline)
                    if not _is_documented(fault, end):
                        wrong.append(f"{provider} {fault} {way}: {end} {end.message[:80]}")
            figures.equal(f"{2 * len(pairs)} faults: ends that are not documented", wrong, [])
            figures.at_most("the longest beyond its deadline", max(0.0, slowest), 0.5, "s")
            figures.at_most("peak", server.peak - before, 100, "MiB more")
    return figures


def _is_documented(fault: str, end: End) -> bool:
    # At the client's own deadline its side ends the call, with no word of the server's.
    return end.reason in _DOCUMENTED[fault] or (fault == "silence" and end.code == "DEADLINE_EXCEEDED")


ROW = Row(
    numbers=(21,),
    title="ten faults of an upstream, streamed and whole, through three providers",
    pass_mark="one documented status each; nothing hangs past its deadline",
    measure=measure,
    quick=True,
)
