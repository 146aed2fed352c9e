"""The time that the server adds to a hosted provider: its SDK called directly, and the same calls through the server.

    .venv/bin/python -m benchmarks.overhead                            # about two minutes on two cores
    .venv/bin/python -m benchmarks.overhead --litellm build/litellm    # also LiteLLM's proxy, in its own environment

The upstream is `benchmarks.upstream`, in a process of its own, and so is the caller. The ways take turns in several
rounds, and every figure is the median over the rounds. LiteLLM's proxy is called through the same SDK, as its users do;
its environment is made, with pip, where there is none yet.
"""

import argparse
import asyncio
import json
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.upstream import CHUNKS, USAGE

LITELLM = "litellm[proxy]==1.106.2"
WAYS = ("sdk", "server", "litellm")
KEY = f"sk-{0x5EED:064x}"
"""The key of every server and client; LiteLLM refuses to start with a short one, and without any."""
Call = Callable[[], Awaitable[None]]


# The caller, in a process of its own.


async def sdk_call(base_url: str, streaming: bool, clients: int) -> tuple[Call, Callable[[], Awaitable[Any]]]:
    """Returns a call of OpenAI's SDK, and the function that closes its client."""
    import httpx2
    import openai

    limits = httpx2.Limits(max_connections=clients, max_keepalive_connections=clients)
    http = httpx2.AsyncClient(limits=limits, timeout=120, trust_env=False)
    client = openai.AsyncOpenAI(api_key=KEY, base_url=base_url, max_retries=0, http_client=http)
    messages: Any = [{"role": "user", "content": "What is the capital of France?"}]

    async def call() -> None:
        if not streaming:
            answer = await client.chat.completions.create(model="m", messages=messages)
            assert answer.choices[0].message.content and answer.usage
            return
        pieces = 0
        async for chunk in await client.chat.completions.create(
            model="m", messages=messages, stream=True, stream_options={"include_usage": True}
        ):
            pieces += bool(chunk.choices and chunk.choices[0].delta.content)
        assert pieces == CHUNKS, pieces

    return call, client.close


async def server_call(address: str, streaming: bool) -> tuple[Call, Callable[[], Awaitable[Any]]]:
    """Returns a call of the generated stub, and the function that closes its channel."""
    from grpc import aio

    from abstractllm_api.v1 import generation_pb2 as pb
    from abstractllm_api.v1.generation_pb2_grpc import GenerationServiceStub

    channel = aio.insecure_channel(address)
    stub: Any = GenerationServiceStub(channel)
    request = pb.GenerateRequest(prompt="What is the capital of France?")

    async def call() -> None:
        if not streaming:
            assert (await stub.Generate(request)).usage.output_tokens == USAGE["completion_tokens"]
            return
        pieces = 0
        async for event in stub.StreamGenerate(request):
            pieces += event.HasField("text_delta")
        assert pieces > 0

    return call, lambda: channel.close(None)


async def measure(way: str, address: str, streaming: bool, clients: int, seconds: float) -> dict[str, float]:
    """Calls for some seconds; returns calls per second, milliseconds of the median call, and CPU time of a call."""
    if way == "server":
        call, close = await server_call(address, streaming)
    else:
        call, close = await sdk_call(address, streaming, clients)
    times: list[float] = []
    end = 0.0

    async def client() -> None:
        while (began := time.perf_counter()) < end:
            await call()
            times.append(time.perf_counter() - began)

    for phase in (seconds / 3, seconds):  # the first warms up
        times.clear()
        began = time.perf_counter()
        end = began + phase
        used = time.process_time()
        await asyncio.gather(*(client() for _ in range(clients)))
    took, used = time.perf_counter() - began, time.process_time() - used
    await close()
    return {
        "calls_per_second": len(times) / took,
        "median_ms": statistics.median(times) * 1000,
        "caller_cpu_ms": used / len(times) * 1000,
        "calls": len(times),
    }


# The processes around it.


@contextmanager
def process(*command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Runs a process, and ends it at the end."""
    running = subprocess.Popen(command, text=True, **options)
    try:
        yield running
    finally:
        running.terminate()
        with suppress(subprocess.TimeoutExpired):
            running.wait(20)
        running.kill()
        running.wait()


@contextmanager
def upstream() -> Iterator[str]:
    """Runs the stand-in for a provider; yields its base URL."""
    with process(sys.executable, "-m", "benchmarks.upstream", stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        yield f"http://127.0.0.1:{int(running.stdout.readline())}/v1"


@contextmanager
def our_server(folder: Path, base_url: str) -> Iterator[tuple[str, int]]:
    """Runs our server; yields its address and process id."""
    file = folder / "llms.yaml"
    line = {"provider": "openai", "model": "m", "base_url": base_url, "api_key": KEY}
    settings = {"listen": "127.0.0.1:0", "log_level": "info", "llms": {"gpt": line}}
    file.write_text(json.dumps(settings))
    command = str(Path(sys.executable).with_name("abstractllm"))
    # Into a file: a pipe that nobody reads fills up, and then the server waits.
    with (
        (folder / "server.log").open("w") as log,
        process(command, "serve", "--config", str(file), stderr=log) as running,
    ):
        while not (announcement := re.search(r"listening on (\S+)", (folder / "server.log").read_text())):
            if running.poll() is not None:
                sys.exit(f"the server did not start:\n{(folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.1)
        yield announcement[1], running.pid


@contextmanager
def litellm(folder: Path, environment: Path, base_url: str) -> Iterator[tuple[str, int]]:
    """Runs LiteLLM's proxy; yields its base URL and process id."""
    program = environment / "bin/litellm"
    if not program.exists():
        print(f"Installing {LITELLM} into {environment}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        subprocess.run([str(environment / "bin/pip"), "install", "--quiet", LITELLM], check=True)
    file = folder / "litellm.yaml"
    parameters = {"model": "openai/m", "api_base": base_url, "api_key": KEY}
    models = [{"model_name": "m", "litellm_params": parameters}]
    file.write_text(json.dumps({"model_list": models, "general_settings": {"master_key": KEY}}))
    port = free_port()
    arguments = (str(program), "--config", str(file), "--host", "127.0.0.1", "--port", str(port))
    log = (folder / "litellm.log").open("w")
    with log, process(*arguments, stdout=log, stderr=log) as running:
        for _ in range(240):
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness"):
                break
            if running.poll() is not None:
                sys.exit(f"LiteLLM did not start:\n{(folder / 'litellm.log').read_text()[-2000:]}")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1", running.pid


def free_port() -> int:
    """Returns a port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_seconds(pid: int | None) -> float:
    """Returns the CPU time of a process and its children so far."""
    if pid is None:
        return 0.0
    root = psutil.Process(pid)
    return sum(sum(member.cpu_times()[:2]) for member in (root, *root.children(recursive=True)))


def caller(way: str, address: str, streaming: bool, clients: int, seconds: float) -> dict[str, float]:
    """Measures in a process of its own; returns what `measure` does."""
    arguments = [sys.executable, "-m", "benchmarks.overhead", "--caller", way, "--address", address]
    arguments += ["--clients", str(clients), "--seconds", str(seconds), *["--streaming"] * streaming]
    completed = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if completed.returncode != 0:
        sys.exit(f"calling {way} failed:\n{completed.stderr[-3000:]}")
    result: dict[str, float] = json.loads(completed.stdout)
    return result


def compare(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every way, in turns; the medians over the rounds."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        base_url = stack.enter_context(upstream())
        places: dict[str, tuple[str, int | None]] = {"sdk": (base_url, None)}
        places["server"] = stack.enter_context(our_server(folder, base_url))
        if options.litellm:
            places["litellm"] = stack.enter_context(litellm(folder, options.litellm, base_url))
        rows = []
        for streaming in (False, True):
            for clients in options.clients:
                rounds: dict[str, list[dict[str, float]]] = {way: [] for way in places}
                for _ in range(options.rounds):
                    for way, (address, pid) in places.items():
                        before = cpu_seconds(pid)
                        figures = caller(way, address, streaming, clients, options.seconds)
                        # A third as many calls again warmed up.
                        figures["server_cpu_ms"] = (cpu_seconds(pid) - before) / figures["calls"] * 1000 * 3 / 4
                        rounds[way].append(figures)
                for way, all_figures in rounds.items():
                    medians = {
                        key: statistics.median(figures[key] for figures in all_figures) for key in all_figures[0]
                    }
                    rows.append({"way": way, "streaming": streaming, "clients": clients, **medians})
        return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the table, in Markdown."""
    print("| | clients | way | calls/s | of the SDK | median, ms | added, ms | CPU of a call, ms |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        alone = next(
            other
            for other in rows
            if other["way"] == "sdk" and all(other[key] == row[key] for key in ("streaming", "clients"))
        )
        kind = f"streaming {CHUNKS} pieces" if row["streaming"] else "unary"
        share = row["calls_per_second"] / alone["calls_per_second"]
        added = row["median_ms"] - alone["median_ms"]
        cpu = row["server_cpu_ms"] if row["way"] != "sdk" else row["caller_cpu_ms"]
        print(
            f"| {kind} | {row['clients']} | {row['way']} | {row['calls_per_second']:.0f} | {share:.2f} "
            f"| {row['median_ms']:.2f} | {added:.2f} | {cpu:.2f} |"
        )


def main() -> None:
    """Runs the comparison and prints the table; with `--caller` only the caller's part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--seconds", type=float, default=3.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--litellm", type=Path, help="the environment of LiteLLM; made where there is none")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--caller", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    parser.add_argument("--streaming", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.caller:
        measurement = measure(options.caller, options.address, options.streaming, options.clients[0], options.seconds)
        print(json.dumps(asyncio.run(measurement)))
        return
    rows = compare(options)
    show(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
