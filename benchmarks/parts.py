"""The parts of the report: their programs, the time that each has, and the plots that are drawn of them."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["PARTS", "TOTAL_SECONDS", "Part", "Plot"]

ROOT = Path(__file__).resolve().parents[1]
TOTAL_SECONDS = 29 * 60
"""Seconds that all parts together may take."""


@dataclass(frozen=True)
class Plot:
    """A plot of one of a part's tables."""

    table: str
    title: str
    kind: Literal["bars", "lines"] = "bars"
    subtitle: str = "More is better."
    across: str = ""
    """The name of the horizontal axis of lines."""


@dataclass(frozen=True)
class Part:
    """A part of the report."""

    name: str
    title: str
    about: str
    """A few sentences for the page that say what is measured."""
    commands: Sequence[Sequence[str]]
    """The modules that are run, each with its arguments."""
    seconds: float
    """The time that they have together, however long other parts take; twice as long where earlier ones left some."""
    plots: Sequence[Plot] = ()
    packages: Sequence[str] = ()
    """Packages that must be installed beside those of the tests."""
    programs: Sequence[str] = ()
    """Programs that must be there."""

    def lacking(self) -> str:
        """Returns what is not there that the part needs, or an empty text."""
        modules = [command[0] for command in self.commands if not _is_module(command[0])]
        packages = [package for package in self.packages if not _is_module(package)]
        programs = [program for program in self.programs if shutil.which(program) is None]
        lines = [
            ("module", modules),
            ("package", packages),
            ("program", programs),
        ]
        return "; ".join(f"no {kind} {', '.join(names)}" for kind, names in lines if names)


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


PARTS = (
    Part(
        "engine",
        "The engine: a resident model",
        "A model in memory, called through the Python library in the same process, without gRPC: the batching engine "
        "with its process, and nothing around it. The model has four layers and random weights, so that its step on "
        "one CPU core takes about as long as a large model's on a GPU; every answer has 64 tokens, every prompt 16. "
        "In sampled runs each request has its own temperature, top-k, top-p and seed.",
        [["benchmarks.engine"]],
        130,
        [
            Plot(
                "Tokens a second",
                "Tokens a second, by callers",
                "lines",
                "One CPU thread. More is better.",
                "callers at a time",
            ),
            Plot(
                "First token",
                "First token, by callers",
                "lines",
                "Median. Less is better.",
                "callers at a time",
            ),
        ],
    ),
    Part(
        "server",
        "The server: gRPC over the library",
        "The same calls by the library in one process, and through the server over gRPC on a loopback socket with its"
        " Python client's stubs. `scripted` is an LLM without a model that says its text at once, so that only the "
        "way is measured; the model is the engine's.",
        [["benchmarks.server"]],
        190,
        [Plot("Calls a second, without a model", "Calls a second, without a model", subtitle="More is better.")],
    ),
    Part(
        "clients",
        "The clients: Python, Go, Java, Node",
        "64 streams at once over one client, of a server without a model that says each prompt back in 200 pieces. "
        "Client and server share the machine's cores, so that a client which needs less leaves the server more.",
        [["benchmarks.clients", "--rounds", "3"]],
        140,
        [Plot("Pieces a second", "Streamed pieces a second, by client", subtitle="64 streams. More is better.")],
    ),
    Part(
        "hosted",
        "Hosted providers: the server before an HTTP API",
        "A real HTTP server that speaks Chat Completions, in a process of its own, answers at once. It is called by "
        "OpenAI's SDK directly, through our server, and through LiteLLM's proxy, which the same SDK calls.",
        [["benchmarks.overhead", "--litellm", "build/litellm", "--rounds", "2", "--seconds", "1.5"]],
        150,
        [Plot("Calls a second", "Calls a second before one upstream", subtitle="More is better.")],
    ),
    Part(
        "peers",
        "Peers: local serving, side by side",
        "One model, one run: transformers' batching engine alone, our server, and `transformers serve "
        "--continuous-batching`, each in processes of its own with one CPU thread, in float32. Each client asks four "
        "times, one after another. The engine alone runs with several settings, and ours is compared with the fastest "
        "ones of each case; it keeps transformers' own attention, so ours can be ahead of it.",
        [["benchmarks.serving", "--quick", "--repetitions", "3"]],
        250,
        [
            Plot(
                "Tokens a second, 64 clients, prompts of 16 tokens",
                "Tokens a second, 64 clients",
                subtitle="16 prompt tokens. More is better.",
            )
        ],
    ),
    Part(
        "observability",
        "The cost of observing",
        "Streaming with metrics that are read every second, all traces sent by OTLP and a log line for each call, over "
        "streaming with none of them: two servers of one model, measured in turn.",
        [["benchmarks.observability", "--rounds", "3", "--tokens", "64", "--answers", "2"]],
        130,
    ),
    Part(
        "memory",
        "Memory: loading and unloading",
        "The server's whole tree of processes, after the first rounds and after further loads and unloads of the demo"
        " model. The long run with 200 loads is `benchmarks.model_memory`'s default.",
        [["benchmarks.model_memory", "--loads", "8", "--warm-up", "3"]],
        110,
    ),
    Part(
        "start",
        "Start and import",
        "From the start of the command to the first health answer and to the demo model's first token; and the import"
        " of the Python client in fresh processes.",
        [["benchmarks.start", "--times", "3"], ["benchmarks.client_import"]],
        80,
        [Plot("Start of the server", "Seconds from the start of the server", subtitle="Less is better.")],
    ),
    Part(
        "ray",
        "Ray Serve, over the plain server",
        "Our server before Ray Serve deployments of the same LLMs, over the plain server, in one run.",
        [["benchmarks.ray"]],
        130,
        [Plot("Calls a second", "Calls a second, by Ray Serve and without", subtitle="More is better.")],
        packages=["ray"],
    ),
    Part(
        "balancing",
        "Balancing between servers",
        "Several servers behind the clients' own policies, one of them slowed, and the servers' load reports.",
        [["benchmarks.balancing"]],
        190,
        [
            Plot(
                "95 of 100 calls are answered within",
                "95 of 100 calls are answered within",
                subtitle="Less is better.",
            )
        ],
    ),
    Part(
        "scaling",
        "Scale: the simulation against measurements",
        "Open-loop load on one and on two real servers, each held to a CPU core of its own, and the same arrivals "
        "through the simulation of `benchmarks.scaling`, with step times measured just before. "
        "[scaling.md](scaling.md) goes on from there to 1,000 replicas.",
        [["benchmarks.scaling_check"], ["benchmarks.limits"]],
        130,
    ),
    Part(
        "fleets",
        "Scale on paper: fleets of up to 1,000 replicas",
        "Simulated, not measured: the same figures come on every machine. [scaling.md](scaling.md) says how far they "
        "can be trusted, and how to put in figures of your own.",
        [["benchmarks.fleets"]],
        110,
        [
            Plot(
                "First token of 95 % within, 20 replicas, by the mean load, steady and in bursts of two seconds",
                "First token of 95 % within, by mean load in %",
                "lines",
                "20 replicas. Less is better.",
                "mean load, %",
            ),
        ],
    ),
)
