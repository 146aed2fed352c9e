"""The server on a GPU, over gRPC, with streaming clients."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.gpu.scenarios import SHAPES
from benchmarks.serving.model import build_model
from benchmarks.serving.systems import ours
from benchmarks.serving.workload import Workload

__all__ = ["measure_server"]


def measure_server(shape: str, device: str, clients: Sequence[int], prompt: int, new: int) -> Iterator[dict[str, Any]]:
    """Starts the server with a random model, and yields the figures of each number of streaming clients."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_model(folder, SHAPES[shape].options, device)
        options: dict[str, Any] = {"max_batch_size": max(clients), "device_map": "cpu" if device == "cpu" else "cuda:0"}
        with ours(folder, 1 if device == "cpu" else 8, **options) as system:
            system.run(Workload(2, prompt_tokens=16, new_tokens=8))  # a warm-up
            for place, count in enumerate(clients):
                workload = Workload(count, prompt_tokens=prompt, new_tokens=new, salt=place + 1)
                figures = system.run(workload)
                yield {"shape": shape, "clients": count, "prompt": prompt, **asdict(figures)}
