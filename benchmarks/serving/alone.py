"""The process that measures the engine alone: transformers' continuous batching, driven in process, without a server.

python -m benchmarks.serving.alone MODEL THREADS SETTINGS

It is the stock engine, with the attention that it chooses itself. SETTINGS are those of `benchmarks.serving.stock`, as
JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from contextlib import closing
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from benchmarks.serving.stock import Settings
from benchmarks.serving.workload import Figures, Workload, serve_workloads

_REQUESTS = 64
"""The most requests of a step, which is what ours has."""
_PATIENCE = 600.0
"""Seconds until the next answer: 64 long prompts take minutes."""


class EngineAlone:
    """The engine, and a note of the time at each of its steps."""

    def __init__(self, folder: str, threads: int, settings: Settings) -> None:
        torch.set_num_threads(threads)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        config = ContinuousBatchingConfig(
            num_blocks=settings.blocks, max_batch_tokens=settings.step_tokens, max_requests_per_batch=_REQUESTS
        )
        if settings.page is not None:
            config.page_size = settings.page
        options = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=64)
        self._manager: Any = model.init_continuous_batching(
            generation_config=options, continuous_batching_config=config
        )
        self._steps: list[tuple[float, int, int]] = []
        """The time at which each step began, the number of its requests, the number of its tokens."""
        step = self._manager._generation_step

        def noted() -> None:
            batch = self._manager.batch_processor.inputs_and_outputs
            tokens = sum(len(future.state.tokens_to_process) for future in batch.requests_in_batch)
            self._steps.append((time.perf_counter(), len(batch.requests_in_batch), tokens))
            step()

        self._manager._generation_step = noted  # type: ignore[method-assign]
        self._manager.start()

    def close(self) -> None:
        """Ends the engine's thread."""
        self._manager.stop(block=True)

    def measure(self, workload: Workload) -> Figures:
        """Keeps as many requests in the engine as there are clients."""
        self._steps.clear()
        start, cpu = time.perf_counter(), time.process_time()
        requests = workload.clients * workload.answers
        submitted = done = tokens = 0
        while done < requests:
            while submitted < min(requests, done + workload.clients):
                self._manager.add_request(workload.prompt(submitted), max_new_tokens=workload.new_tokens)
                submitted += 1
            result = self._manager.get_result(timeout=_PATIENCE)
            if result is None or result.error:
                raise RuntimeError(f"the engine gave no answer: {result}")
            done += 1
            tokens += len(result.generated_tokens)
        seconds = time.perf_counter() - start
        if tokens != workload.tokens:
            raise RuntimeError(f"{tokens} tokens came, {workload.tokens} were asked for")
        decodes = [
            (later[0] - earlier[0]) * 1000
            for earlier, later in zip(self._steps, self._steps[1:], strict=False)
            if earlier[1] == earlier[2] == workload.clients
        ]
        return Figures(
            tokens / seconds,
            step_ms=statistics.median(decodes) if decodes else None,
            cpu_ms_per_token=(time.process_time() - cpu) / tokens * 1000,
        )


if __name__ == "__main__":
    folder, threads, settings = sys.argv[1:]
    with closing(EngineAlone(folder, int(threads), Settings(**json.loads(settings)))) as engine:
        serve_workloads(engine.measure)
