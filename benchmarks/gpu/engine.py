"""The engine with a large random model, in a process of its own."""

from __future__ import annotations

import dataclasses
import gc
import threading
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

import psutil
import torch

from benchmarks.gpu.profile import Profile
from benchmarks.gpu.scenarios import SHAPES, Scenario, Variant
from benchmarks.serving.model import word_tokenizer

__all__ = ["measure", "memory_in_use"]

_COPIED = {"cuda": 1 << 30, "cpu": 1 << 26}
"""Bytes copied to measure the bandwidth: more than any cache holds."""
_COPIES = 10
_PATIENCE_SECONDS = 300


def measure(shape: str, device: str, variant: Variant, runs: Sequence[Scenario], slots: int, pipe: Connection) -> None:
    """Loads a model and sends the figures of each run as soon as they are known.

    Args:
        shape: The name of the model's shape.
        device: `cuda` or `cpu`.
        variant: What the engine runs with.
        runs: What is run.
        slots: The most requests in a batch; as many are cancelled at the end.
        pipe: Takes one dict for each run, the first about the engine; the process ends after the last.
    """
    start: Any = import_module("abstractllm.providers.huggingface.worker.batching.start")
    if variant.attention:
        start.candidates = lambda *_: [variant.attention]
    bandwidth = _bandwidth(device)
    began = time.perf_counter()
    loaded, settings = _random_model(shape, device, slots, variant)
    load_seconds, began = time.perf_counter() - began, time.perf_counter()
    watch = _Watch()
    engine = start.start(loaded, settings, send=watch.take, end=lambda request: None, crash=watch.crash)
    if engine is None:
        raise SystemExit(loaded.description.note)
    captures = _count_captures(engine)
    pipe.send(
        {
            "shape": shape,
            "variant": variant.name,
            "attention": loaded.model.config._attn_implementation,
            "note": loaded.description.note,
            "bandwidth_bytes_per_second": bandwidth,
            "weight_bytes": loaded.description.memory_bytes,
            "cache_bytes": engine.cache_bytes,
            "load_seconds": load_seconds,
            "start_seconds": time.perf_counter() - began,
            "device_bytes": memory_in_use(device),
        }
    )
    try:
        watch.run(engine, Scenario(2, 16, 8))  # a warm-up
        for wanted in runs:
            run = dataclasses.replace(wanted, requests=min(wanted.requests, _most_requests(loaded, engine, wanted)))
            captured = captures()
            tokens, seconds, steps = watch.run(engine, run)
            limit = run.requests * bandwidth / _step_bytes(loaded, run)
            figures: dict[str, Any] = {
                "shape": shape,
                "variant": variant.name,
                "requests": run.requests,
                "prompt": run.prompt,
                "sampling": run.name,
                "tokens_per_second": tokens / seconds,
                "step_ms": 1000 * seconds / max(1, steps),
                "roofline": limit,
                "share": tokens / seconds / limit,
                "captures": captures() - captured,
            }
            if run.profiled:
                with Profile(engine, device) as profile:
                    watch.run(engine, run, profile.steps)
                figures["profile"] = profile.figures
            pipe.send(figures)
        cancelling = watch.cancel(engine, Scenario(slots, runs[0].prompt, 4096))
        pipe.send({"shape": shape, "variant": variant.name, "cancel_to_idle_seconds": cancelling})
    finally:
        engine.stop()


def _random_model(shape: str, device: str, max_batch_size: int, variant: Variant) -> tuple[Any, Any]:
    """Returns a model of the wanted shape in bfloat16, whose tokens are words, and the settings of its engine."""
    import transformers

    from abstractllm.providers.huggingface import HuggingFaceConfig
    from abstractllm.providers.huggingface.worker.model import LoadedModel

    options = SHAPES[shape].options
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    configuration = getattr(transformers, SHAPES[shape].config)(**options, **ends)
    settings = HuggingFaceConfig.parse({"max_batch_size": max_batch_size, **variant.keys}).load_settings()
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(configuration, dtype=torch.bfloat16).eval()
    # Words of which each is a token, so that text, pieces and messages are made of every token.
    loaded = LoadedModel(model, word_tokenizer(options["vocab_size"], 8192), settings)
    loaded.ends = frozenset()  # every answer has its full length
    return loaded, settings


def _count_captures(engine: Any) -> Callable[[], int]:
    """Returns a function that tells the number of CUDA graphs that were captured since."""
    runner = engine._manager.processor.model_runner
    capture, count = runner._capture_graph, 0

    def counting(*arguments: Any) -> None:
        nonlocal count
        count += 1
        capture(*arguments)

    runner._capture_graph = counting
    return lambda: count


class _Watch:
    """Follows requests through the batch loop."""

    def __init__(self) -> None:
        self._over = 0
        self._steps = 0
        self._crashed = False
        self._changed = threading.Condition()
        self._number = 0

    def take(self, batch: Any) -> None:
        """Takes a step's messages."""
        from abstractllm.providers.huggingface.protocol.messages import Done, Failed

        with self._changed:
            self._over += sum(isinstance(message, (Done, Failed)) for message in batch.messages)
            self._steps = batch.counters.steps
            self._changed.notify_all()

    def crash(self) -> None:
        """Notes that the loop cannot go on."""
        with self._changed:
            self._crashed = True
            self._changed.notify_all()

    def run(
        self, engine: Any, scenario: Scenario, decoding: Callable[[], None] | None = None
    ) -> tuple[int, float, int]:
        """Answers requests.

        Args:
            engine: The batch loop.
            scenario: The requests.
            decoding: Called once all prompts are read.

        Returns:
            The tokens decoded after the last request's first, the seconds that they took, and the steps.
        """
        requests = self._submit(engine, scenario)
        self._until(lambda: all(request.output_tokens >= 1 for request in requests), poll=True)
        began, first, steps = time.perf_counter(), sum(request.output_tokens for request in requests), self._steps
        if decoding is not None:
            decoding()
        self._until(lambda: self._over == scenario.requests)
        seconds = time.perf_counter() - began
        return sum(request.output_tokens for request in requests) - first, seconds, self._steps - steps

    def cancel(self, engine: Any, scenario: Scenario) -> float:
        """Returns the seconds from the cancellation of running requests to an empty loop."""
        requests = self._submit(engine, scenario)
        self._until(lambda: all(request.output_tokens >= 1 for request in requests), poll=True)
        began = time.perf_counter()
        for request in requests:
            request.cancelled = True
        self._until(lambda: self._over == scenario.requests)
        return time.perf_counter() - began

    def _submit(self, engine: Any, scenario: Scenario) -> list[Any]:
        from abstractllm.providers.huggingface.protocol.messages import Conversation, Generate, Sampling
        from abstractllm.providers.huggingface.worker.request import EngineRequest

        self._over = 0
        requests = []
        for _ in range(scenario.requests):
            self._number += 1
            generator = torch.Generator().manual_seed(self._number)  # each prompt its own: no prefix is shared
            prompt = torch.randint(0, 8192, (scenario.prompt,), generator=generator).tolist()
            message = Generate(self._number, Conversation(()), Sampling(**scenario.sampling, seed=self._number))
            requests.append(EngineRequest(message, prompt=tuple(prompt), max_tokens=scenario.new))
        for request in requests:
            engine.submit(request)
        return requests

    def _until(self, holds: Callable[[], bool], poll: bool = False) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        with self._changed:
            while not holds():
                if self._crashed or time.monotonic() > deadline:
                    raise SystemExit("the batch loop gave up")
                self._changed.wait(0.001 if poll else 1.0)


def _step_bytes(loaded: Any, run: Scenario) -> float:
    """Returns the bytes that a decode step reads: all weights but the embeddings, and keys and values half-way.

    Where the embeddings are those of the output as well, they are read.
    """
    unread = 0 if loaded.model.config.tie_word_embeddings else loaded.model.get_input_embeddings().weight.nbytes
    cached = run.requests * (run.prompt + run.new / 2) * _token_bytes(loaded)
    return float(loaded.description.memory_bytes - unread + cached)


def _most_requests(loaded: Any, engine: Any, run: Scenario) -> int:
    """Returns the number of requests whose keys and values fit into the cache at the same time."""
    pages = -(-(run.prompt + run.new) // 256) * 256
    return max(1, int(engine.cache_bytes / (pages * _token_bytes(loaded))))


def _token_bytes(loaded: Any) -> int:
    """Returns the bytes of the keys and values of one token."""
    config = loaded.model.config
    size = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * loaded.model.dtype.itemsize
    return int(size)


def _bandwidth(device: str) -> float:
    """Returns the bytes that are read and written in a second by the best of several copies."""
    source = torch.zeros(_COPIED[device], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(_COPIES):
        _wait_for(device)
        began = time.perf_counter()
        target.copy_(source)
        _wait_for(device)
        best = min(best, time.perf_counter() - began)
    return 2 * source.nbytes / best


def _wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def memory_in_use(device: str) -> int:
    """Returns the bytes taken on the device by everybody; on a CPU by this process and those it has started."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info()
        return total - free
    this = psutil.Process()
    return sum(process.memory_info().rss for process in (this, *this.children(recursive=True)))
