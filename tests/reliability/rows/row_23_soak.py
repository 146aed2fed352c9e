"""Row 23: half an hour of everything.

Pass mark: under a mixed load with callers that crash, cancel and stop reading, floods, kills and freezes of the engine,
reloads and rotated tokens, each call has exactly one outcome: one end with a documented status at its caller, one line
in the log, one count in the metrics. The memory of the server's own process ranges over less than 5 MiB in the second
half; descriptors, threads and all that the metrics call running, waiting or held are back to the start, which is
measured after a first round of everything.
Load: SOAK_SECONDS (1,800 if absent), some 40 calls a second. Measured only if it is named: `--rows 23`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import psutil
import yaml

from abstractllm_api.v1 import generation_pb2 as pb
from tests.providers.fake_http import FakeServer
from tests.reliability.calls import CHECK, DEMO, ENDLESS, GENERATE, STREAM, End, Stub, bearer, request, streamed, unary
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.http2 import RawConnection, header_block
from tests.reliability.scrape import Scrape, scrape
from tests.reliability.server_process import ROOT, ServerProcess, echo, free_port, serving
from tests.reliability.tokens import TOKEN, token_file
from tests.reliability.upstream import hosted, speaking, upstream

SECONDS = float(os.environ.get("SOAK_SECONDS", "1800"))
_WORKERS = 12
_REASONS = {"ENGINE_CRASHED", "OVERLOADED", "TIMEOUT", "PROVIDER_UNAVAILABLE", "SHUTTING_DOWN"}
"""Those that a call may end with while engines are killed and frozen."""
_CRASHING = """
import sys, grpc
from abstractllm_api.v1 import generation_pb2 as pb, generation_pb2_grpc as rpc

stub = rpc.GenerationServiceStub(grpc.insecure_channel(sys.argv[1]))
metadata = [("authorization", "Bearer " + sys.argv[2])]
streams = [
    stub.StreamGenerate(pb.GenerateRequest(llm=llm, prompt="hi"), metadata=metadata)
    for llm in ("echo", "local", "hosted") * 10
]
for stream in streams:
    next(stream)
print("reads", flush=True)
sys.stdin.read()
"""


@dataclass
class Soak:
    """The state of a soak: the server, the ends of its calls, and what was measured every few seconds."""

    server: ServerProcess
    monitoring: str
    ends: Counter[str] = field(default_factory=Counter)
    sent: set[str] = field(default_factory=set)
    memory: list[float] = field(default_factory=list)
    numbers: Any = field(default_factory=lambda: count(1))
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    events: Counter[str] = field(default_factory=Counter)

    async def rest(self, seconds: float) -> bool:
        """Waits; returns False once the soak is over."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stopped.wait(), seconds)
        return not self.stopped.is_set()


async def measure(setting: Setting) -> Figures:
    """Lets everything happen at once, then looks at all that is left."""
    figures = setting.figures()
    monitoring = f"127.0.0.1:{free_port()}"
    tokens = str(token_file(setting.folder))
    seconds = SECONDS if setting.full else 30.0
    async with (
        upstream(speaking(20, 0.02)) as api,
        serving(
            setting.folder,
            {"local": DEMO} | echo() | {"hosted": hosted(api)},
            tokens=tokens,
            monitoring=monitoring,
            log_level="info",
            log_format="json",
            write_timeout=5,
            read_timeout=5,
        ) as server,
    ):
        soak = Soak(server, monitoring)
        async with server.channel() as channel:
            await unary(Stub(channel).Generate(request(llm="local", max_tokens=5), metadata=bearer(TOKEN)))
        await _run(soak, min(90.0, seconds / 5))
        await _settle(soak)
        soak.memory.clear()
        soak.stopped.clear()
        before = (_descriptors(server, api), server.threads, len(server.children))
        await _run(soak, seconds)
        await _settle(soak)
        after = (_descriptors(server, api), server.threads, len(server.children))
        read = await scrape(monitoring)
        _judge(figures, soak, before, after, read)
        figures.equal("left at the upstream", api.running, 0)
        figures.at_most("exit after SIGTERM", await server.ends(), 3, "s")
        _judge_log(figures, soak, read)
    return figures


async def _run(soak: Soak, seconds: float) -> None:
    chaos: list[Callable[[Soak], Awaitable[None]]] = [_crash, _flood, _kill, _freeze, _reload, _measure_memory]
    tasks = [asyncio.create_task(_work(soak, number)) for number in range(_WORKERS)]
    tasks += [asyncio.create_task(disturb(soak)) for disturb in chaos]
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    soak.stopped.set()
    for task in done:
        task.result()
    await asyncio.wait_for(asyncio.gather(*tasks), 120)


async def _work(soak: Soak, seed: int) -> None:
    """Calls in every way, one call after the other, on a connection that is made anew now and then."""
    source = random.Random(seed)
    while not soak.stopped.is_set():
        async with soak.server.channel() as channel:
            stub = Stub(channel)
            for _ in range(50):
                if soak.stopped.is_set():
                    return
                soak.ends[str(await _call(soak, stub, source))] += 1
                await soak.rest(source.uniform(0, 0.3))


async def _call(soak: Soak, stub: Any, source: random.Random) -> End:
    llm = source.choice(("echo", "local", "hosted"))
    message = request("Count on.", llm=llm)
    if llm == "local":
        message.parameters.CopyFrom(pb.GenerationParameters(max_tokens=source.randint(1, 40), logit_bias=ENDLESS))
    message.request_id = f"call-{next(soak.numbers)}"
    soak.sent.add(message.request_id)
    deadline = source.choice((None, None, 0.05, 30.0))
    if source.random() < 0.4:
        return await unary(stub.Generate(message, timeout=deadline, metadata=bearer(TOKEN)))
    call = stub.StreamGenerate(message, timeout=deadline, metadata=bearer(TOKEN))
    end = asyncio.create_task(streamed(call))
    if source.random() < 0.2:
        await asyncio.wait([end], timeout=source.uniform(0, 0.3))
        call.cancel()
    return await end


async def _crash(soak: Soak) -> None:
    """Kills callers in the middle of their answers."""
    while await soak.rest(8):
        arguments = (sys.executable, "-c", _CRASHING, soak.server.address, TOKEN)
        caller = await asyncio.create_subprocess_exec(
            *arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert caller.stdout is not None
        with suppress(TimeoutError):
            await asyncio.wait_for(caller.stdout.readline(), 15)
        with suppress(ProcessLookupError):  # an answer that ended badly has ended it
            caller.kill()
        await caller.wait()
        soak.events["callers crashed"] += 1


async def _flood(soak: Soak) -> None:
    """Opens headers alone, resets, answers that nobody reads, and connections that say nothing."""
    message = request(llm="echo").SerializeToString()
    while await soak.rest(20):
        connections = [await RawConnection.open(soak.server.address, window=0) for _ in range(20)]
        for connection in connections[:4]:
            for number in range(200):
                stream = connection.start(header_block((CHECK, GENERATE)[number % 2]))
                if number % 3 == 0:
                    connection.reset(stream)
                connection.unary(header_block(STREAM, TOKEN), message)
        await soak.rest(8)
        for connection in connections:
            await connection.close()
        soak.events["floods"] += 1


async def _kill(soak: Soak) -> None:
    """Kills the engine process."""
    while await soak.rest(47):
        with suppress(IndexError, psutil.Error):
            soak.server.engine.kill()
            soak.events["engines killed"] += 1


async def _freeze(soak: Soak) -> None:
    """Freezes the engine process."""
    while await soak.rest(131):
        with suppress(IndexError, psutil.Error):
            soak.server.engine.suspend()
            soak.events["engines frozen"] += 1


async def _reload(soak: Soak) -> None:
    """Has the configuration read again: an LLM comes, an LLM goes, one reload in three is bad; tokens are rotated."""
    file = soak.server.folder / "llms.yaml"
    good = yaml.safe_load(file.read_text())
    for number in count():
        if not await soak.rest(17):
            file.write_text(yaml.safe_dump(good, sort_keys=False))
            return
        changed = good | {"llms": dict(good["llms"])}
        if number % 3 == 1:
            changed["llms"]["extra"] = {"provider": "scripted"}
        if number % 3 == 2:
            changed["llms"]["bad"] = {"provider": "nobody"}
            soak.events["bad reloads"] += 1
        file.write_text(yaml.safe_dump(changed, sort_keys=False))
        soak.server.process.send_signal(signal.SIGHUP)
        token_file(soak.server.folder, **{f"rotated-{number}": (f"token-{number}", "inference")})
        soak.events["reloads"] += 1


async def _measure_memory(soak: Soak) -> None:
    while await soak.rest(2):
        soak.memory.append(soak.server.rss)


async def _settle(soak: Soak) -> None:
    """Waits until the metrics call nothing running, and the engine is there again."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        await asyncio.sleep(1)
        read = await scrape(soak.monitoring)
        if not _left(read) and await soak.server.is_healthy():
            break
    await asyncio.sleep(5)


def _descriptors(server: ServerProcess, api: FakeServer) -> int:
    """Returns the open file descriptors, without idle connections to the provider: those stay for its next request."""
    connections = psutil.Process(server.pid).net_connections("tcp")
    return server.descriptors - sum(bool(one.raddr) and one.raddr.port == urlsplit(api.url).port for one in connections)


def _left(read: Scrape) -> dict[str, float]:
    """Returns all that is not back to zero."""
    values = {
        "active calls": read.total("abstractllm_server_calls_active"),
        "pending calls": read.total("abstractllm_server_calls_pending"),
        "running": read.total("abstractllm_llm_requests", abstractllm_state="running"),
        "waiting": read.total("abstractllm_llm_requests", abstractllm_state="waiting"),
        "bytes waiting": read.total("abstractllm_llm_waiting_size_bytes"),
        "bytes held": read.total("abstractllm_server_held_bytes"),
    }
    return {name: value for name, value in values.items() if value}


def _judge(
    figures: Figures, soak: Soak, before: tuple[int, int, int], after: tuple[int, int, int], read: Scrape
) -> None:
    figures.inform("calls", sum(soak.ends.values()))
    figures.inform("their ends", f"{dict(soak.ends)}")
    figures.inform("disturbances", f"{dict(soak.events)}")
    bad = {end: times for end, times in soak.ends.items() if not _is_expected(end)}
    figures.equal("ends that are not documented", bad, {})
    half = soak.memory[len(soak.memory) // 2 :]
    # A flood holds some memory as long as it lasts: the least of each half-minute tells what stays.
    lows = [min(half[place : place + 15]) for place in range(0, max(1, len(half) - 14), 15)]
    figures.inform("memory in the second half, floods included", f"{min(half):.1f} to {max(half):.1f} MiB")
    figures.at_most("range of its least in each half-minute", max(lows) - min(lows), 5, "MiB")
    figures.equal("not back to zero", _left(read), {})
    figures.at_most("descriptors more than before", after[0] - before[0], 3)
    figures.at_most("threads more than before", after[1] - before[1], 3)
    figures.equal("child processes", after[2], before[2])
    figures.equal("lines of the log dropped", read.total("abstractllm_server_log_dropped_total"), 0.0)
    failed = read.total("abstractllm_server_config_reloads_total", abstractllm_outcome="failure")
    figures.at_least("failed reloads that the metrics tell", failed, soak.events["bad reloads"])


def _is_expected(end: str) -> bool:
    reason = end.partition(" ")[2]
    return end in ("OK", "CANCELLED", "DEADLINE_EXCEEDED") or reason in _REASONS or end == "CANCELLED CANCELLED"


def _judge_log(figures: Figures, soak: Soak, read: Scrape) -> None:
    lines: Counter[str] = Counter()
    generations = 0
    for line in soak.server.log.splitlines():
        entry = json.loads(line) if line.startswith("{") else {}
        if entry.get("logger") == "abstractllm.call":
            generations += "GenerationService" in entry.get("method", "")
            if entry.get("request_id", "").startswith("call-"):
                lines[entry["request_id"]] += 1
    # A call that its caller gave up before its message was read has no id that the server knows.
    twice = [name for name, times in lines.items() if times > 1]
    figures.equal("calls with more than one line in the log", len(twice), 0)
    figures.inform("calls without a line by their id", len(soak.sent - lines.keys()))
    methods = [f"abstractllm_api.v1.GenerationService/{name}" for name in ("Generate", "StreamGenerate")]
    name = "rpc_server_call_duration_seconds_count"
    counted = sum(
        read.total(name, rpc_method=method)
        # Callers who are refused are told of in the audit, not all of them.
        - read.total(name, rpc_method=method, rpc_response_status_code="UNAUTHENTICATED")
        for method in methods
    )
    figures.equal("calls in the log less calls in the metrics", generations - int(counted), 0)


ROW = Row(
    numbers=(23,),
    title=f"{SECONDS / 60:g} minutes of mixed load: crashing callers, floods, kills and freezes of the engine, reloads",
    pass_mark="one outcome a call; second-half RSS range under 5 MiB; descriptors, threads, gauges back to the start",
    measure=measure,
    seconds=SECONDS + 400,
    quick_seconds=300,
    named_only=True,
)
