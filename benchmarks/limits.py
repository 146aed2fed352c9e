"""The sizes of things that grow with the number of replicas and of LLMs: names, connections, lists, metrics.

    .venv/bin/python -m benchmarks.limits [--addresses 1 100 1000] [--llms 1 100 1000]

Addresses: a name server of our own gives a Python client all addresses of a name, of which it takes turns
(`round_robin`); a bare gRPC server listens on each of them, all on this machine's loopback network. LLMs: a server of
ours with so many LLMs without a model, each of which answers once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
from grpc import aio

from abstractllm_api.v1 import generation_pb2, models_pb2
from abstractllm_api.v1.generation_pb2_grpc import GenerationServiceStub
from abstractllm_api.v1.models_pb2_grpc import ModelServiceStub
from benchmarks.processes import free_port, our_server, running
from benchmarks.results import Figure, Results, figure, positive, run, versions

_UDP_BYTES = 1232
"""The longest answer of a name server by UDP, as resolvers recommend; longer ones are asked for again by TCP."""
_TYPE_A = 1
_HEADER_BYTES = 12


# The name server with the gRPC server, in a process of its own.


def addresses(count: int) -> list[str]:
    """Returns addresses of this machine's loopback network."""
    return [f"127.0.{1 + place // 250}.{1 + place % 250}" for place in range(count)]


def dns_answer(query: bytes, count: int, *, by_tcp: bool) -> bytes:
    """Returns the answer to a question for a name's addresses; by UDP that it is too long, where it is."""
    end = _HEADER_BYTES
    while query[end]:
        end += query[end] + 1
    question, kind = query[_HEADER_BYTES : end + 5], struct.unpack(">H", query[end + 1 : end + 3])[0]
    known = addresses(count) if kind == _TYPE_A else []
    records = [
        b"\xc0\x0c" + struct.pack(">HHIH", _TYPE_A, 1, 5, 4) + bytes(map(int, address.split("."))) for address in known
    ]
    whole = query[:2] + struct.pack(">HHHHH", 0x8180, 1, len(known), 0, 0) + question + b"".join(records)
    if by_tcp or len(whole) <= _UDP_BYTES:
        return whole
    return query[:2] + struct.pack(">HHHHH", 0x8380, 1, 0, 0, 0) + question


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, count: int) -> None:
        self._count = count

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self._transport.sendto(dns_answer(data, self._count, by_tcp=False), address)


async def serve_addresses(count: int, port: int) -> None:
    """Serves names and calls until it is ended; prints the length of the name's answer once all is ready."""

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while length := await reader.read(2):
            answer = dns_answer(await reader.readexactly(struct.unpack(">H", length)[0]), count, by_tcp=True)
            writer.write(struct.pack(">H", len(answer)) + answer)
            await writer.drain()

    async def call(request: bytes, context: Any) -> bytes:
        return request

    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: _Datagrams(count), local_addr=("127.0.0.1", port))
    await asyncio.start_server(ask, "127.0.0.1", port)
    server = aio.server()
    method = {"Call": grpc.unary_unary_rpc_method_handler(call)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("limits.Limits", method),))
    for address in addresses(count):
        server.add_insecure_port(f"{address}:{port}")
    await server.start()
    query = b"\0\0\1\0\0\1\0\0\0\0\0\0\x08replicas\x04test\0\0\1\0\1"
    print(len(dns_answer(query, count, by_tcp=True)), flush=True)
    await server.wait_for_termination()


def connect(count: int, port: int) -> dict[str, float]:
    """Connects to all addresses of the name, in a fresh process; returns what that took."""
    process = psutil.Process()
    before, cpu, began = process.memory_info().rss, sum(process.cpu_times()[:2]), time.perf_counter()
    policy = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
    target = f"dns://127.0.0.1:{port}/replicas.test:{port}"
    with grpc.insecure_channel(target, [("grpc.service_config", policy), ("grpc.enable_http_proxy", 0)]) as channel:
        call: Any = channel.unary_unary("/limits.Limits/Call", None, None)
        call(b"1", timeout=60)
        first_call = time.perf_counter() - began
        while _connections(process, port) < count:
            if time.perf_counter() - began > 60:
                raise RuntimeError(f"{_connections(process, port)} of {count} connections after a minute")
            time.sleep(0.02)
        return {
            "first_call": first_call,
            "connected": time.perf_counter() - began,
            "memory": process.memory_info().rss - before,
            "cpu": sum(process.cpu_times()[:2]) - cpu,
        }


def _connections(process: psutil.Process, port: int) -> int:
    """Returns the number of connections to the gRPC servers, without the one to the name server."""
    remotes = [one.raddr for one in process.net_connections("tcp") if one.status == psutil.CONN_ESTABLISHED]
    return sum(remote[1] == port and not remote[0].endswith("127.0.0.1") for remote in remotes)


def of_addresses(counts: list[int]) -> Iterator[Figure]:
    """Yields the figures of a client that balances between so many addresses."""
    for count in counts:
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.limits", "--serve", str(count), str(port)]
        with running(*command, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            answer = int(server.stdout.readline())
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.limits", "--connect", str(count), str(port)],
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode != 0:
            raise RuntimeError(f"connecting to {count} addresses failed:\n{done.stderr[-2000:]}")
        taken = json.loads(done.stdout)
        table = f"A client of {count:,} address{'es' * (count > 1)} of one name, round robin"
        yield figure(table, "the name's addresses, in one answer", "bytes", [answer])
        yield figure(table, "first call, from a new channel on", "s", [taken["first_call"]])
        yield figure(table, "connected to all", "s", [taken["connected"]])
        yield figure(table, "memory of the client's channel", "MiB", [taken["memory"] / 2**20])
        yield figure(table, "CPU until connected to all", "s", [taken["cpu"]])


# LLMs of one server.


def of_llms(counts: list[int]) -> Iterator[Figure]:
    """Yields the figures of a server with so many LLMs."""
    for count in counts:
        llms = {f"llm{place}": {"provider": "scripted", "reply": "yes"} for place in range(count)}
        table = f"A server with {count:,} LLM{'s' * (count > 1)}"
        monitoring = f"127.0.0.1:{free_port()}"
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            with our_server(Path(folder), llms, default="llm0", monitoring=monitoring) as (address, process):
                yield figure(table, "from its start until it listens", "s", [time.perf_counter() - began])
                with grpc.insecure_channel(address) as channel:
                    answers, models = GenerationServiceStub(channel), ModelServiceStub(channel)
                    for name in llms:
                        answers.Generate(generation_pb2.GenerateRequest(llm=name, prompt="well?"), timeout=30)
                    times, size = [], 0
                    for _ in range(5):
                        began = time.perf_counter()
                        size = models.ListLlms(models_pb2.ListLlmsRequest(), timeout=30).ByteSize()
                        times.append(1e3 * (time.perf_counter() - began))
                with urllib.request.urlopen(f"http://{monitoring}/metrics", timeout=30) as page:
                    metrics: bytes = page.read()
                yield figure(table, "ListLlms", "ms", times)
                yield figure(table, "ListLlms, its answer", "kB", [size / 1000])
                series = sum(bool(line) and not line.startswith(b"#") for line in metrics.splitlines())
                yield figure(table, "series in /metrics, after one answer of each LLM", "", [series])
                yield figure(table, "/metrics, its size", "kB", [len(metrics) / 1000])
                yield figure(table, "memory of the server", "MiB", [process.memory_info().rss / 2**20])


def measure(options: argparse.Namespace) -> Results:
    """Measures addresses and LLMs."""
    figures = [*of_addresses(options.addresses), *of_llms(options.llms)]
    return Results(figures, versions("abstractllm-grpc", "grpcio", "protobuf"))


def main() -> int:
    """Runs the command line; with `--serve` or `--connect` only that part."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.limits", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--addresses", type=positive, nargs="+", default=[1, 100, 1000], help="of one name (1 100 1000)"
    )
    parser.add_argument("--llms", type=positive, nargs="+", default=[1, 100, 1000], help="of one server (1 100 1000)")
    parser.add_argument("--serve", type=positive, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--connect", type=positive, nargs=2, help=argparse.SUPPRESS)
    options, _ = parser.parse_known_args()
    if options.serve:
        asyncio.run(serve_addresses(*options.serve))
        return 0
    if options.connect:
        print(json.dumps(connect(*options.connect)))
        return 0
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
