"""CUDA graphs of decode steps: the sizes that are captured when the model loads, and the one that each step replays.

transformers captures a graph whenever it meets a new size, also while serving, which holds up all requests for a second
and takes memory that nobody has counted. Here the sizes are fixed, and nothing is captured after loading.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Any

from transformers.generation.continuous_batching.utils import get_memory_pools

__all__ = ["DecodeGraphs", "GraphSizes", "graph_sizes"]

_LAST_POWER = 16
"""The size up to which only powers of two are captured; beyond it those half-way between them, too."""


def graph_sizes(most_requests: int) -> list[int]:
    """Returns the numbers of requests whose decode steps are to be captured, in their order.

    They are the powers of two, from 16 on those half-way between them too, and the largest number itself: 13 sizes for
    256 requests, 21 for 4,096. From 16 on a step is filled up by half of its requests at most.
    """
    sizes = {most_requests}
    size = 1
    while size < most_requests:
        sizes.add(size)
        if size >= _LAST_POWER and size * 3 // 2 < most_requests:
            sizes.add(size * 3 // 2)
        size *= 2
    return sorted(sizes)


class GraphSizes:
    """Decides which sizes are captured, within a bound of memory, and which of them a step takes.

    Args:
        most_requests: The most requests in a batch.
        most_bytes: The memory that all graphs together may take.
    """

    def __init__(self, most_requests: int, most_bytes: int) -> None:
        self._wanted = graph_sizes(most_requests)
        self.most_bytes = most_bytes
        """The memory that all graphs together may take."""
        self.captured: list[int] = []
        """The sizes that have a graph, in their order."""
        self.used_bytes = 0
        """The memory that the graphs take."""
        self.left_out: list[int] = []
        """The sizes that were to have a graph, and run without."""

    def capture_all(
        self, capture: Callable[[int], bool], release: Callable[[int], None], used_bytes: Callable[[], int]
    ) -> None:
        """Captures the sizes, as long as there is memory for them.

        The largest comes first, since all others can use its memory again. If that alone takes too much, the next
        smaller one is the largest. The rest goes from the smallest upwards: there a graph saves most.

        Args:
            capture: Captures a size; tells whether it could be.
            release: Gives back what a captured size takes.
            used_bytes: Tells the memory that is in use on the device.
        """
        before = used_bytes()

        def is_captured(size: int) -> bool:
            if not capture(size):
                return False
            if (taken := used_bytes() - before) > self.most_bytes:
                release(size)
                return False
            self.used_bytes = max(self.used_bytes, taken)
            bisect.insort(self.captured, size)
            return True

        remaining = list(self._wanted)
        while remaining and not is_captured(remaining.pop()):
            pass
        for size in remaining:
            if not is_captured(size):
                break
        self.left_out = [size for size in self._wanted if size not in self.captured]

    def size_for(self, requests: int) -> int | None:
        """Returns the captured size that a decode step takes; None for one that runs without a graph.

        It is the smallest that holds the requests, unless it is more than twice as large.
        """
        place = bisect.bisect_left(self.captured, requests)
        if place == len(self.captured) or self.captured[place] > 2 * requests:
            return None
        return self.captured[place]

    def __str__(self) -> str:
        """Says what was captured."""
        if not self.captured:
            return "no decode step was captured in a CUDA graph"
        text = f"CUDA graphs for decode steps of {', '.join(map(str, self.captured))} requests"
        if self.used_bytes:
            text += f" ({self.used_bytes / 1e6:.0f} MB)"
        if self.left_out:
            text += f", none for {', '.join(map(str, self.left_out))}"
        return text


class DecodeGraphs:
    """Has a batch processor capture the decode steps of fixed sizes when it is warmed up, and nothing else.

    Args:
        processor: A `ContinuousBatchProcessor` that has run nothing yet, whose configuration asks for graphs of decode
            steps alone.
        most_bytes: The memory that all graphs together may take.
        used_bytes: Tells the memory that is in use on the device.
    """

    def __init__(self, processor: Any, most_bytes: int, used_bytes: Callable[[], int]) -> None:
        self.sizes = GraphSizes(processor.cb_config.max_requests_per_batch, most_bytes)
        """The sizes, and what they take."""
        self._runner, self._batch = processor.model_runner, processor.inputs_and_outputs
        self._cache = processor.cache
        self._used_bytes = used_bytes
        self._capturing = 0
        """The size that is being captured; 0 afterwards."""
        self._forward = self._runner._get_forward_fn
        self._runner.warmup = self._warm_up
        self._runner.maybe_pad_inputs = self._pad
        self._runner._get_forward_fn = self._forward_function

    def _warm_up(self, model: Any) -> None:
        """Captures the sizes; takes the place of the runner's own warm-up."""
        self.sizes.capture_all(lambda size: self._capture(model, size), self._release, self._used_bytes)
        # The requests that were made up for it hold blocks of the cache.
        self._cache.reset()

    def _capture(self, model: Any, size: int) -> bool:
        """Captures a decode step; a failure, which the runner only logs, leaves no graph."""
        if self._cache.max_decode_fast_path_length <= 0:
            return False
        self._capturing = size
        try:
            self._runner.run_one_warmup(model=model, num_q_tokens=size, max_kv_read=None)
        finally:
            self._capturing = 0
        return self._graphs.get_graph((size,)) is not None

    def _release(self, size: int) -> None:
        graphs = self._graphs._storage
        graphs.pop((size,)).reset()
        if not graphs:  # else the others use the same memory
            self._runner.mem_pool, self._runner.graph_pool_id = get_memory_pools()

    def _pad(self, num_q_tokens: int, max_kv_read: int, use_decode_fast_path: bool) -> tuple[int, int]:
        """Returns the numbers of new and of cached tokens to prepare for: those of a captured graph, if any."""
        self._runner.pad_inputs = use_decode_fast_path  # read right after this
        if not use_decode_fast_path:
            return num_q_tokens, max_kv_read
        return self._capturing or self.sizes.size_for(num_q_tokens) or num_q_tokens, 0

    def _forward_function(self, use_block_table: bool) -> tuple[Any, bool]:
        """Returns the function of a step, and whether a graph of it is replayed, or captured."""
        function, is_captured = self._forward(use_block_table)
        has_graph = self._capturing or self._batch.num_q_tokens in self.sizes.captured
        return function, bool(is_captured and use_block_table and has_graph)

    @property
    def _graphs(self) -> Any:
        return self._batch.graphs
