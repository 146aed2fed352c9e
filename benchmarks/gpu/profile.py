"""The parts of a decode step: what the host does, and the time in which the device is busy."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import torch
from torch.profiler import ProfilerActivity, profile

from abstractllm.providers.huggingface.worker.batching.sampler import BatchSampler, SampledStep

__all__ = ["Profile"]

_STEPS = 16
"""Steps that are looked at."""
_LISTED = 12
"""Kernels that are named, the ones that take most time."""
_PATIENCE_SECONDS = 60


class Profile:
    """Looks at some steps of the batch loop.

    Within a `with` block, `steps` is called while requests are decoded; afterwards `figures` holds, for one step, in
    milliseconds: `step`; `prepare`, `forward`, `sample`, `wait`, `update`, the host's time in each part (`wait` is for
    the tokens; the device is idle in the others unless steps overlap); and on a GPU `busy`, the time in which a kernel
    ran, `idle`, the rest, `kernels`, their number, and `longest`, their names with the time of each.
    """

    def __init__(self, engine: Any, device: str) -> None:
        self._engine = engine
        self._device = device
        self.figures: dict[str, Any] = {}
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._restore: list[Callable[[], None]] = []
        self._counted = 0
        self._remaining = 0
        self._done = threading.Event()

    def __enter__(self) -> Self:
        pipeline = self._engine._manager._pipeline
        self._time(pipeline, "_prepare_next", "prepare")
        self._time(pipeline, "_compute", "forward")
        self._time(BatchSampler, "sample", "sample")
        self._time(SampledStep, "take", "wait")
        self._time(pipeline, "_update", "update", self._step_ended)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for restore in self._restore:
            restore()

    def steps(self) -> None:
        """Looks at the next steps; returns after the last of them."""
        if self._device == "cuda":
            with profile(activities=[ProfilerActivity.CUDA]) as profiler:
                self._wait()
                torch.cuda.synchronize()
            self._add_kernels(profiler)
        else:
            self._wait()

    def _wait(self) -> None:
        self._spent.clear()
        self._counted, self._remaining = 0, _STEPS
        began = time.perf_counter()
        self._done.wait(_PATIENCE_SECONDS)
        seconds = time.perf_counter() - began
        steps = max(1, self._counted)
        spent = {part: 1000 * value / steps for part, value in self._spent.items()}
        parts = {part: spent.get(part, 0.0) for part in ("prepare", "forward", "sample", "wait", "update")}
        self.figures |= {"steps": steps, "step": 1000 * seconds / steps, **parts}

    def _step_ended(self) -> None:
        if self._remaining:
            self._counted += 1
            self._remaining -= 1
            if not self._remaining:
                self._done.set()

    def _time(self, owner: Any, name: str, part: str, after: Callable[[], None] | None = None) -> None:
        original = getattr(owner, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return original(*arguments, **options)
            finally:
                self._spent[part] += time.perf_counter() - began
                if after is not None:
                    after()

        setattr(owner, name, timed)
        self._restore.append(lambda: setattr(owner, name, original))

    def _add_kernels(self, profiler: Any) -> None:
        events = profiler.profiler.kineto_results.events()
        spans, times = [], Counter[str]()
        for event in events:
            if event.device_type().name == "CUDA" and event.duration_ns() > 0:
                spans.append((event.start_ns(), event.start_ns() + event.duration_ns()))
                times[event.name()] += event.duration_ns()
        busy, reached = 0, 0
        for begin, end in sorted(spans):
            busy += max(0, end - max(begin, reached))
            reached = max(reached, end)
        steps = self.figures["steps"]
        self.figures["busy"] = busy / 1e6 / steps
        self.figures["idle"] = self.figures["step"] - self.figures["busy"]
        self.figures["kernels"] = len(spans) / steps
        self.figures["longest"] = {name[:100]: spent / 1e6 / steps for name, spent in times.most_common(_LISTED)}
