"""A good caller in a process of its own: its errors and its waiting tell how others fare during an attack.

Run as `python -m tests.reliability.caller`, with its plan as JSON in the first argument; it says `ready` after its
first answer, and reports as JSON once its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from abstractllm_api.v1 import generation_pb2, generation_pb2_grpc

CALL_SECONDS = 10.0
"""The deadline of each call."""


@dataclass
class Experience:
    """All that a caller met with.

    Attributes:
        calls: The number of its calls.
        errors: The number of each status that was not OK, or of each health that was not SERVING.
        seconds: The duration of each call, sorted.
    """

    calls: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """Returns the duration that this share of the calls did not exceed, in milliseconds."""
        if not self.seconds:
            return float("inf")
        return 1000 * self.seconds[min(len(self.seconds) - 1, int(share * len(self.seconds)))]


class GoodCaller:
    """A running caller."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def stop(self) -> Experience:
        """Ends it and returns what it met with."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        report = json.loads(await asyncio.wait_for(self._process.stdout.readline(), 60))
        await self._process.wait()
        return Experience(**report)


@asynccontextmanager
async def calling(
    address: str,
    *,
    token: str | None = None,
    root: Path | None = None,
    pair: tuple[Path, Path] | None = None,
    service: str | None = None,
    llm: str = "",
    interval: float = 0.02,
    fresh: bool = False,
    parameters: dict[str, Any] | None = None,
) -> AsyncIterator[GoodCaller]:
    """Starts a caller; it calls one call after the other.

    Args:
        address: The server.
        token: The caller's token.
        root: The certificate that the server's must be signed by; plain text if absent.
        pair: The caller's own certificate and key.
        service: If set, it asks for the health of this service instead of generating.
        llm: The LLM that it asks.
        interval: Seconds between two calls.
        fresh: True to make a new connection for each call.
        parameters: The generation parameters.
    """
    plan = {
        "address": address,
        "token": token,
        "root": root and str(root),
        "pair": pair and [str(path) for path in pair],
        "service": service,
        "llm": llm,
        "interval": interval,
        "fresh": fresh,
        "parameters": parameters or {},
    }
    arguments = (sys.executable, "-m", "tests.reliability.caller", json.dumps(plan))
    process = await asyncio.create_subprocess_exec(
        *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 26
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        if line != b"ready\n":
            raise RuntimeError(f"the good caller did not get a first answer: {line!r}")
        yield GoodCaller(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _channel(plan: dict[str, Any]) -> aio.Channel:
    options = [("grpc.use_local_subchannel_pool", 1)]
    if plan["root"] is None:
        return aio.insecure_channel(plan["address"], options)
    pair = [Path(path).read_bytes() for path in plan["pair"] or ()]
    chain, key = pair or (None, None)
    credentials = grpc.ssl_channel_credentials(Path(plan["root"]).read_bytes(), key, chain)
    options.append(("grpc.ssl_target_name_override", "localhost"))
    return aio.secure_channel(plan["address"], credentials, options)


async def _call(plan: dict[str, Any], channel: aio.Channel) -> str:
    """Makes one call; returns its fault, empty if there is none."""
    metadata = [("authorization", f"Bearer {plan['token']}")] if plan["token"] else []
    try:
        if plan["service"] is not None:
            check = health_pb2_grpc.HealthStub(channel).Check
            question = health_pb2.HealthCheckRequest(service=plan["service"])
            answer = await check(question, timeout=CALL_SECONDS, metadata=metadata)
            return "" if answer.status == 1 else health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        generate = generation_pb2_grpc.GenerationServiceStub(channel).Generate
        parameters = generation_pb2.GenerationParameters(**plan["parameters"])
        request = generation_pb2.GenerateRequest(llm=plan["llm"], prompt="hello", parameters=parameters)
        await generate(request, timeout=CALL_SECONDS, metadata=metadata)
    except aio.AioRpcError as error:
        return f"{error.code().name}: {error.details()}"[:160]
    return ""


async def _main(plan: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    stopped = loop.run_in_executor(None, sys.stdin.read)
    errors: Counter[str] = Counter()
    seconds: list[float] = []
    channel = _channel(plan)
    while not stopped.done():
        began = time.monotonic()
        error = await _call(plan, channel)
        if plan["fresh"]:
            await channel.close()
            channel = _channel(plan)
        if error and not seconds:
            raise SystemExit(error)
        if not seconds:
            print("ready", flush=True)
        seconds.append(time.monotonic() - began)
        if error:
            errors[error] += 1
        await asyncio.wait([stopped], timeout=plan["interval"])
    await channel.close()
    print(json.dumps({"calls": len(seconds), "errors": errors, "seconds": sorted(seconds)}), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(json.loads(sys.argv[1])))
