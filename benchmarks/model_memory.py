"""Loads and unloads a model again and again, and shows what the server's process tree holds before and after.

    .venv/bin/python -m benchmarks.model_memory --loads 200

A server with the demo model is started; each round loads it, has it answer once, and unloads it. The figures are sums
over the server and its descendants, read after the first rounds (`--warm-up`), in which caches fill, and after the last
one: with the model unloaded, and with it loaded. `rss` is resident memory. `anonymous` is the part of it that belongs
to no file, where the system tells. `pss` counts memory that is shared with other processes in part: on a machine where
such processes come and go, it says little. Resident and anonymous memory should be within 2 % of the start.
"""

import argparse
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

from abstractllm_client import RemoteLLM
from benchmarks.results import Figure, Results, Target, figure, positive, rounds, run, versions
from tools.demo import serving

LIMIT = 1.02
"""The most that memory may grow to, as a multiple of the start."""
MEMORY = {"rss": "resident memory", "anonymous": "memory of no file", "pss": "memory, what is shared in parts"}
"""The names of the fields that are bytes."""
BOUNDED = ("rss", "anonymous")


@dataclass(frozen=True)
class Holdings:
    """The resources of a process tree; memory in bytes."""

    rss: int
    anonymous: int
    pss: int
    descriptors: int
    threads: int
    processes: int


def holdings(root: psutil.Process) -> Holdings:
    """Reads the resources of a process and its descendants together."""
    tree = [root, *root.children(recursive=True)]
    memory = [process.memory_full_info() for process in tree]
    return Holdings(
        sum(one.rss for one in memory),
        sum(map(_anonymous, tree)),
        sum(getattr(one, "pss", 0) for one in memory),
        sum(process.num_fds() for process in tree),
        sum(process.num_threads() for process in tree),
        len(tree),
    )


def _anonymous(process: psutil.Process) -> int:
    try:
        status = Path(f"/proc/{process.pid}/status").read_text("ascii")
    except FileNotFoundError:  # no Linux
        return 0
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def one_round(llm: RemoteLLM, root: psutil.Process) -> tuple[Holdings, Holdings]:
    """Loads, answers, unloads; returns the resources with the model loaded, and after it was unloaded."""
    for _ in llm.load_model():
        pass
    llm.generate("What is the capital of France?", temperature=0)
    loaded = holdings(root)
    for _ in llm.unload_model():
        pass
    return loaded, holdings(root)


def figures(title: str, start: Holdings, end: Holdings) -> list[Figure]:
    """Returns a figure for each resource at the end, over that at the start."""
    lines = []
    for field in fields(Holdings):
        before, after = float(getattr(start, field.name)), float(getattr(end, field.name))
        if not before and not after:
            continue  # this system does not tell
        size, unit = (2**20, "MiB") if field.name in MEMORY else (1, "")
        target = Target(most=LIMIT, of="ratio") if field.name in BOUNDED else None
        name = MEMORY.get(field.name, field.name)
        lines.append(figure(title, name, unit, [after / size], over=[before / size], to="the start", target=target))
    return lines


def measure(options: argparse.Namespace) -> Results:
    """Loads and unloads again and again."""
    with serving(options.port) as (server, address), RemoteLLM(address) as llm:
        root = psutil.Process(server.pid)
        for _ in range(options.warm_up):
            start_loaded, start = one_round(llm, root)
        done = 0
        for index in rounds(options.loads):
            done = index + 1
            loaded, unloaded = one_round(llm, root)
            if (index + 1) % 10 == 0:
                print(f"{index + 1:>5} loads: {unloaded.rss / 2**20:.1f} MiB unloaded", flush=True)
    after = f"after {done} more loads and unloads"
    return Results(
        [
            *figures(f"Without a model, {after}", start, unloaded),
            *figures(f"With the model, {after}", start_loaded, loaded),
        ],
        versions("abstractllm-grpc", "grpcio", "torch", "transformers"),
    )


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.model_memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loads", type=positive, default=200, help="rounds after the warm-up (200)")
    parser.add_argument("--warm-up", type=positive, default=5, help="rounds before the start is measured (5)")
    parser.add_argument("--port", type=int, default=50061, help="port on 127.0.0.1 (50061)")
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
