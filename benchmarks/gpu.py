"""Decodes with a large random model on a GPU, against what the memory's bandwidth allows.

    python -m benchmarks.gpu --json build/gpu.json
    python -m benchmarks.gpu --device cpu --layers 2 --hidden 256 --vocabulary 4096 --requests 1,4 --new 16

The default shape is that of Llama 3 8B, in bfloat16. A decode step must read every weight, and the keys and values of
every request, once: the bandwidth, measured by copying, over those bytes is the roofline. Everything runs in a process
of its own, as the engine does in the server; the memory that the device still holds afterwards is lost by unloading.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import torch

_COPIED = {"cuda": 1 << 30, "cpu": 1 << 26}
"""Bytes copied to measure the bandwidth: more than any cache holds."""
_COPIES = 10
_PATIENCE_SECONDS = 600


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=4096, help="a multiple of 128, the size of a head")
    parser.add_argument("--vocabulary", type=int, default=128_256)
    parser.add_argument("--requests", default="1,16,64,256", help="requests at a time")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt")
    parser.add_argument("--new", type=int, default=256, help="tokens of each answer")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --device cpu tries the benchmark itself")
    before = _in_use(arguments.device)
    manners = (False, True) if arguments.device == "cuda" else (False,)
    figures = [_in_a_process(arguments, cuda_graphs) for cuda_graphs in manners]
    after = _in_use(arguments.device)
    _show(figures, before, after)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        facts = {"shape": vars(arguments) | {"json": str(arguments.json)}, "runs": figures}
        arguments.json.write_text(json.dumps({**facts, "bytes_before": before, "bytes_after": after}, indent=2))


def _in_a_process(arguments: argparse.Namespace, cuda_graphs: bool) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(arguments, cuda_graphs, theirs))
    process.start()
    theirs.close()
    try:
        figures: dict[str, Any] = ours.recv()
    except EOFError:
        raise SystemExit("the measuring process failed") from None
    finally:
        process.join()
    return figures


def _measure(arguments: argparse.Namespace, cuda_graphs: bool, pipe: Connection) -> None:
    """Loads the model and measures everything; runs in a process of its own."""
    from abstractllm.providers.huggingface.worker.batching.start import start

    counts = [int(count) for count in arguments.requests.split(",")]
    bandwidth = _bandwidth(arguments.device)
    loaded, settings = _random_model(arguments, max(counts), cuda_graphs)
    began = time.perf_counter()
    watch = _Watch()
    engine = start(loaded, settings, send=watch.take, end=lambda request: None, crash=watch.crash)
    if engine is None:
        raise SystemExit(loaded.description.note)
    figures: dict[str, Any] = {
        "cuda_graphs": cuda_graphs,
        "attention": loaded.model.config._attn_implementation,
        "bandwidth_bytes_per_second": bandwidth,
        "weight_bytes": loaded.description.memory_bytes,
        "cache_bytes": engine.cache_bytes,
        "start_seconds": time.perf_counter() - began,
        "decoding": [],
    }
    try:
        watch.run(engine, counts[0], arguments, new=8)  # a warm-up
        for count in counts:
            tokens, seconds = watch.run(engine, count, arguments, arguments.new)
            limit = count * bandwidth / _step_bytes(loaded, count, arguments)
            rate = tokens / seconds
            figures["decoding"].append(
                {"requests": count, "tokens_per_second": rate, "roofline": limit, "share": rate / limit}
            )
        figures["cancel_to_idle_seconds"] = watch.cancel(engine, max(counts), arguments)
        figures["device_bytes"] = _in_use(arguments.device)
    finally:
        engine.stop()
    pipe.send(figures)


def _random_model(arguments: argparse.Namespace, max_batch_size: int, cuda_graphs: bool) -> tuple[Any, Any]:
    """Returns a Llama of the wanted shape, with the demo model's tokenizer, whose text does not matter."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    from abstractllm.providers.huggingface import HuggingFaceConfig
    from abstractllm.providers.huggingface.worker.model import LoadedModel

    heads = arguments.hidden // 128
    configuration = LlamaConfig(
        vocab_size=arguments.vocabulary,
        hidden_size=arguments.hidden,
        intermediate_size=arguments.hidden * 7 // 2,
        num_hidden_layers=arguments.layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 4),
        head_dim=128,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
        eos_token_id=None,
    )
    demo = HuggingFaceConfig.parse({}).load_settings()
    settings = HuggingFaceConfig.parse({"max_batch_size": max_batch_size, "cuda_graphs": cuda_graphs}).load_settings()
    with torch.device(arguments.device):
        model = AutoModelForCausalLM.from_config(configuration, dtype=getattr(torch, arguments.dtype)).eval()
    loaded = LoadedModel(model, AutoTokenizer.from_pretrained(demo.model), settings)
    loaded.ends = frozenset()  # every answer has its full length
    return loaded, settings


class _Watch:
    """Follows requests through the batch loop."""

    def __init__(self) -> None:
        self._over = 0
        self._crashed = False
        self._changed = threading.Condition()
        self._number = 0

    def take(self, batch: Any) -> None:
        """Takes a step's messages."""
        from abstractllm.providers.huggingface.protocol.messages import Done, Failed

        with self._changed:
            self._over += sum(isinstance(message, (Done, Failed)) for message in batch.messages)
            self._changed.notify_all()

    def crash(self) -> None:
        """Notes that the loop cannot go on."""
        with self._changed:
            self._crashed = True
            self._changed.notify_all()

    def run(self, engine: Any, count: int, arguments: argparse.Namespace, new: int) -> tuple[int, float]:
        """Answers requests; returns the tokens decoded, and the seconds from the last first token to the last token."""
        requests = self._submit(engine, count, arguments, new)
        self._until(lambda: all(request.output_tokens >= 1 for request in requests), poll=True)
        began, first = time.perf_counter(), sum(request.output_tokens for request in requests)
        self._until(lambda: self._over == count)
        return sum(request.output_tokens for request in requests) - first, time.perf_counter() - began

    def cancel(self, engine: Any, count: int, arguments: argparse.Namespace) -> float:
        """Returns the seconds from the cancellation of running requests to an empty loop."""
        requests = self._submit(engine, count, arguments, 4096)
        self._until(lambda: all(request.output_tokens >= 1 for request in requests), poll=True)
        began = time.perf_counter()
        for request in requests:
            request.cancelled = True
        self._until(lambda: self._over == count)
        return time.perf_counter() - began

    def _submit(self, engine: Any, count: int, arguments: argparse.Namespace, new: int) -> list[Any]:
        from abstractllm.providers.huggingface.protocol.messages import Conversation, Generate, Sampling
        from abstractllm.providers.huggingface.worker.request import EngineRequest

        self._over = 0
        requests = []
        for _ in range(count):
            self._number += 1
            generator = torch.Generator().manual_seed(self._number)  # each prompt its own: no prefix is shared
            prompt = torch.randint(0, arguments.vocabulary, (arguments.prompt,), generator=generator).tolist()
            message = Generate(self._number, Conversation(()), Sampling(temperature=0.0))
            requests.append(EngineRequest(message, prompt=tuple(prompt), max_tokens=new))
        for request in requests:
            engine.submit(request)
        return requests

    def _until(self, holds: Any, poll: bool = False) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        with self._changed:
            while not holds():
                if self._crashed or time.monotonic() > deadline:
                    raise SystemExit("the batch loop gave up")
                self._changed.wait(0.001 if poll else 1.0)


def _step_bytes(loaded: Any, count: int, arguments: argparse.Namespace) -> float:
    """Returns the bytes that a decode step reads: all weights but the embeddings, and keys and values half-way."""
    model, config = loaded.model, loaded.model.config
    embeddings = model.get_input_embeddings().weight.nbytes
    of_a_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * model.dtype.itemsize
    context = arguments.prompt + arguments.new / 2
    return float(loaded.description.memory_bytes - embeddings + count * context * of_a_token)


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


def _in_use(device: str) -> int:
    """Returns the bytes taken on the device by everybody; on a CPU by this process and those it has started."""
    if device == "cuda":
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info()
        return total - free
    this = psutil.Process()
    return sum(process.memory_info().rss for process in (this, *this.children(recursive=True)))


def _show(runs: list[dict[str, Any]], before: int, after: int) -> None:
    for run in runs:
        graphs = "with" if run["cuda_graphs"] else "without"
        print(
            f"\n{run['attention']}, {graphs} CUDA graphs; weights {run['weight_bytes'] / 1e9:.2f} GB, cache "
            f"{run['cache_bytes'] / 1e9:.2f} GB, bandwidth {run['bandwidth_bytes_per_second'] / 1e9:.0f} GB/s, "
            f"started in {run['start_seconds']:.1f} s\n"
        )
        print("| requests | tokens/s | roofline | share |\n|---|---|---|---|")
        for figures in run["decoding"]:
            rate, roofline = figures["tokens_per_second"], figures["roofline"]
            print(f"| {figures['requests']} | {rate:.0f} | {roofline:.0f} | {figures['share']:.0%} |")
        print(f"\ncancel to idle: {1000 * run['cancel_to_idle_seconds']:.0f} ms")
        print(f"device memory while loaded: {run['device_bytes'] / 1e6:.0f} MB")
    print(f"device memory before: {before / 1e6:.0f} MB; after: {after / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
