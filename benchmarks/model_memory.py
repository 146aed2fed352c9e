"""Loads and unloads a model again and again, and shows what the server's process tree holds before and after.

    .venv/bin/python -m benchmarks.model_memory --loads 200

A server with the demo model is started; each round loads it, has it answer once, and unloads it. The figures are sums
over the server and its descendants, read after the first rounds (`--warm-up`), in which caches fill, and after the last
one: with the model unloaded, and with it loaded. `rss` is resident memory. `anonymous` is the part of it that belongs
to no file, where the system tells. `pss` counts memory that is shared with other processes in part: on a machine where
such processes come and go, it says little. The last line says whether resident and anonymous memory are within 2 %.
"""

import argparse
import sys
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import psutil

from abstractllm_client import RemoteLLM
from tools.demo import serving

LIMIT = 1.02
"""The most that memory may grow to, as a multiple of the start."""


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


def show(title: str, start: Holdings, end: Holdings) -> float:
    """Prints a line for each figure; returns the greater ratio of resident and anonymous memory."""
    print(f"\n{title:<12} {'start':>14} {'end':>14} {'end / start':>12}")
    for field, before, after in zip(fields(Holdings), astuple(start), astuple(end), strict=True):
        print(f"{field.name:<12} {before:>14,} {after:>14,} {_ratio(before, after):>12.4f}")
    return max(_ratio(start.rss, end.rss), _ratio(start.anonymous, end.anonymous))


def _ratio(before: int, after: int) -> float:
    return after / before if before else 1.0


def main() -> None:
    """Runs the rounds and prints the figures; exit code 1 if memory has grown by more than 2 %."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", type=int, default=200, help="rounds after the warm-up (default: 200)")
    parser.add_argument("--warm-up", type=int, default=5, help="rounds before the start is measured (default: 5)")
    parser.add_argument("--port", type=int, default=50061, help="port on 127.0.0.1 (default: 50061)")
    arguments = parser.parse_args()
    if arguments.loads < 1 or arguments.warm_up < 1:
        parser.error("--loads and --warm-up must be at least 1")
    with serving(arguments.port) as (server, address), RemoteLLM(address) as llm:
        root = psutil.Process(server.pid)
        for _ in range(arguments.warm_up):
            start_loaded, start = one_round(llm, root)
        for index in range(arguments.loads):
            loaded, unloaded = one_round(llm, root)
            if (index + 1) % 10 == 0:
                print(f"{index + 1:>5} loads: {unloaded.rss / 2**20:.1f} MiB unloaded", flush=True)
    grown = max(show("unloaded", start, unloaded), show("loaded", start_loaded, loaded))
    print(f"\nmemory after {arguments.loads} loads and unloads: at most {grown:.4f} of the start (limit {LIMIT})")
    sys.exit(grown > LIMIT)


if __name__ == "__main__":
    main()
