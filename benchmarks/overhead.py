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
import os
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

from benchmarks.processes import cpu_seconds, free_port, our_server, running
from benchmarks.results import Figure, Results, figure, positive, rounds, run, versions
from benchmarks.upstream import CHUNKS, USAGE

LITELLM = "litellm[proxy]==1.106.2"
WAYS = ("sdk", "server", "litellm")
TITLES = {"sdk": "the SDK alone", "server": "our server", "litellm": "LiteLLM"}
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
def upstream() -> Iterator[str]:
    """Runs the stand-in for a provider; yields its base URL."""
    with running(sys.executable, "-m", "benchmarks.upstream", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"


@contextmanager
def litellm(folder: Path, environment: Path, base_url: str) -> Iterator[tuple[str, psutil.Process]]:
    """Runs LiteLLM's proxy; yields its base URL and its process.

    Raises:
        RuntimeError: If it does not start.
    """
    file = folder / "litellm.yaml"
    parameters = {"model": "openai/m", "api_base": base_url, "api_key": KEY}
    models = [{"model_name": "m", "litellm_params": parameters}]
    file.write_text(json.dumps({"model_list": models, "general_settings": {"master_key": KEY}}))
    port = free_port()
    arguments = (str(environment / "bin/litellm"), "--config", str(file), "--host", "127.0.0.1", "--port", str(port))
    # It must not ask a public address for its table of prices.
    offline = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    log = (folder / "litellm.log").open("w")
    with log, running(*arguments, stdout=log, stderr=log, env=offline) as process:
        for _ in range(240):
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness"):
                break
            if process.poll() is not None:
                raise RuntimeError(f"LiteLLM did not start:\n{(folder / 'litellm.log').read_text()[-2000:]}")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1", psutil.Process(process.pid)


def install_litellm(environment: Path) -> None:
    """Installs LiteLLM's proxy once into an environment of its own."""
    if not (environment / "bin/litellm").exists():
        print(f"Installing {LITELLM} into {environment}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        subprocess.run([str(environment / "bin/pip"), "install", "--quiet", LITELLM], check=True)


def caller(way: str, address: str, streaming: bool, clients: int, seconds: float) -> dict[str, float]:
    """Measures in a process of its own; returns what `measure` does.

    Raises:
        RuntimeError: If a call failed.
    """
    arguments = [sys.executable, "-m", "benchmarks.overhead", "--caller", way, "--address", address]
    arguments += ["--clients", str(clients), "--seconds", str(seconds), *["--streaming"] * streaming]
    completed = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if completed.returncode != 0:
        raise RuntimeError(f"calling {way} failed:\n{completed.stderr[-3000:]}")
    result: dict[str, float] = json.loads(completed.stdout)
    return result


def compare(options: argparse.Namespace) -> Results:
    """Measures every way, in turns."""
    if options.litellm:
        install_litellm(options.litellm)
    runs: dict[tuple[bool, int, str], list[dict[str, float]]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        base_url = stack.enter_context(upstream())
        places: dict[str, tuple[str, psutil.Process | None]] = {"sdk": (base_url, None)}
        line = {"provider": "openai", "model": "m", "base_url": base_url, "api_key": KEY}
        places["server"] = stack.enter_context(our_server(folder / "server", {"gpt": line}))
        if options.litellm:
            places["litellm"] = stack.enter_context(litellm(folder, options.litellm, base_url))
        for _ in rounds(options.rounds):
            for streaming in (False, True):
                for clients in options.clients:
                    for way, (address, process) in places.items():
                        before = cpu_seconds(process)
                        result = caller(way, address, streaming, clients, options.seconds)
                        # A third as many calls again warmed up.
                        result["server_cpu_ms"] = (cpu_seconds(process) - before) / result["calls"] * 1000 * 3 / 4
                        runs.setdefault((streaming, clients, way), []).append(result)
    peer = {"litellm": LITELLM.partition("==")[2]} if options.litellm else {}
    return Results(figures(runs), versions("abstractllm-grpc", "grpcio", "openai", "httpx2") | peer)


def figures(runs: dict[tuple[bool, int, str], list[dict[str, float]]]) -> list[Figure]:
    """Returns the figures of all ways, each over the SDK alone."""
    lines = []
    for table, unit, key in (
        ("Calls a second", "calls/s", "calls_per_second"),
        ("Time of the median call", "ms", "median_ms"),
    ):
        for streaming, clients in dict.fromkeys((streaming, clients) for streaming, clients, _ in runs):
            for way in (way for way in WAYS if (streaming, clients, way) in runs):
                over = [one[key] for one in runs[streaming, clients, "sdk"]] if way != "sdk" else None
                values = [one[key] for one in runs[streaming, clients, way]]
                lines.append(
                    figure(table, _title(way, streaming, clients), unit, values, over=over, to="the SDK alone")
                )
    for streaming, clients, way in runs:
        if way != "sdk":
            values = [one["server_cpu_ms"] for one in runs[streaming, clients, way]]
            lines.append(figure("CPU of a call, without its caller's", _title(way, streaming, clients), "ms", values))
    return lines


def _title(way: str, streaming: bool, clients: int) -> str:
    return f"{TITLES[way]}, {f'{CHUNKS} streamed pieces' if streaming else 'unary'}, {clients} at a time"


def main() -> int:
    """Runs the command line; with `--caller` only the caller's part."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.overhead", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=positive, nargs="+", default=[1, 64])
    parser.add_argument("--seconds", type=float, default=3.0, help="of one measurement")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--litellm", type=Path, help="the environment of LiteLLM; made where there is none")
    parser.add_argument("--caller", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    parser.add_argument("--streaming", action="store_true", help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args()
    if options.caller:
        measurement = measure(options.caller, options.address, options.streaming, options.clients[0], options.seconds)
        print(json.dumps(asyncio.run(measurement)))
        return 0
    return run(parser, compare)


if __name__ == "__main__":
    sys.exit(main())
