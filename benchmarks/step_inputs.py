"""The host's part of a step: preparing its inputs, and taking, parsing and encoding its tokens.

    .venv/bin/python -m benchmarks.step_inputs [--requests 64] [--contexts 128 1024 4096] [--rounds 5]

Nothing is computed: the model's forward pass gives the same logits for whatever it is handed. Preparing is compared
with transformers' own, of the same requests in the same run. All figures are processor time of the thread that does it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig, LlamaConfig
from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager
from transformers.generation.continuous_batching.requests import FutureRequestState, RequestState, RequestStatus
from transformers.modeling_outputs import CausalLMOutputWithPast

from abstractllm.providers.huggingface.protocol.channel import encode
from abstractllm.providers.huggingface.protocol.messages import (
    Batch,
    Conversation,
    Done,
    Generate,
    Load,
    Sampling,
)
from abstractllm.providers.huggingface.worker.batching import attention
from abstractllm.providers.huggingface.worker.batching.engine import BatchEngine
from abstractllm.providers.huggingface.worker.batching.step_inputs import StepInputs
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.request import EngineRequest
from benchmarks.results import Figure, Results, Target, figure, rounds, run, versions
from benchmarks.serving.model import word_tokenizer

_VOCABULARY = 1000
_PAGE = 16
_PROMPT = 256
"""New tokens of the prompt that mixed steps read."""
_PREPARATIONS = 20
_STEPS = 40
"""Steps in which all requests decode, after their prompts have been read."""
_STEP_TOKENS = 512


class _StockManager(ContinuousBatchingManager):
    """Makes a batch processor as transformers does, for a model whose attention is ours."""

    def switch_to_cb_friendly_attn(self, model: Any, auto_switch_to_flash: bool = True) -> None:
        """Keeps the model's attention."""
        vars(self)["_original_attn_impl"] = "sdpa"


def _model(window: int) -> Any:
    config = LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=window,
        bos_token_id=None,
        eos_token_id=None,
    )
    attention.register()
    model = AutoModelForCausalLM.from_config(config).eval()
    model.set_attn_implementation(attention.PAGED_ATTENTION)
    return model


def _processor(model: Any, requests: int, is_ours: bool) -> Any:
    window = model.config.max_position_embeddings
    config = ContinuousBatchingConfig(
        page_size=_PAGE,
        num_blocks=requests * (window // _PAGE),
        max_memory_percent=1e9,
        max_batch_tokens=_STEP_TOKENS,
        max_requests_per_batch=requests,
        max_blocks_per_request=0,
        use_async_batching=False,
        use_cuda_graph=False,
    )
    generation_config = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
    processor = _StockManager(model, generation_config, config)._create_batch_processor()
    if is_ours:
        StepInputs(processor, window, has_kernel=False)
    return processor


def _preparation(processor: Any, requests: int, context: int, has_prompt: bool) -> Callable[[], None]:
    """Returns a function that prepares one and the same step."""
    futures = []
    for index in range(requests):
        is_prompt = has_prompt and index == requests - 1
        length = _PROMPT if is_prompt else 1
        state = RequestState(request_id=str(index), initial_tokens=[0] * context)
        state._status = RequestStatus.PREFILLING if is_prompt else RequestStatus.DECODING
        state.position_offset = max(0, context - length)
        assert processor.cache.can_store_request_tokens(state, length)
        futures.append(FutureRequestState(state, True, {}, length))
    past = [future.state.position_offset for future in futures]

    def prepare() -> None:
        for future, position in zip(futures, past, strict=True):
            future.state.position_offset, future.state.tokens_to_process = position, [1] * future.query_length
        batch = processor.inputs_and_outputs
        tokens = sum(future.query_length for future in futures)
        batch.prepare_batch_tensors(futures, processor.logit_processor, not has_prompt, tokens, sum(past), False)
        batch.get_model_kwargs()

    return prepare


def _milliseconds(function: Callable[[], None]) -> float:
    times = []
    for _ in range(_PREPARATIONS):
        began = time.thread_time()
        function()
        times.append((time.thread_time() - began) * 1000)
    return statistics.median(times)


def _preparing(options: argparse.Namespace) -> list[Figure]:
    """Measures the preparation, ours and transformers' own in turn."""
    model = _model(max(options.contexts) + _PROMPT + _PAGE)
    times: dict[tuple[str, int, bool], list[float]] = {}
    for context in options.contexts:
        for kind in ("decode", "mixed"):
            functions = {
                is_ours: _preparation(
                    _processor(model, options.requests, is_ours), options.requests, context, kind == "mixed"
                )
                for is_ours in (True, False)
            }
            for _ in range(options.rounds):
                for is_ours, function in functions.items():
                    times.setdefault((kind, context, is_ours), []).append(_milliseconds(function))
    figures = []
    for kind, context, is_ours in times:
        if is_ours:
            stock = times[kind, context, False]
            name = f"{kind} step, {options.requests} requests of {context} tokens"
            ours = times[kind, context, True]
            target = Target(most=1.5)
            figures.append(figure("Preparing a step", name, "ms", ours, over=stock, to="transformers", target=target))
    return figures


@contextmanager
def _engine(requests: int, window: int) -> Iterator[tuple[BatchEngine, threading.Event]]:
    """Makes an engine whose model computes nothing."""
    model = _model(window)
    logits = torch.zeros(requests, 1, _VOCABULARY)
    logits[..., 7] = 1.0

    def forward(logits_to_keep: torch.Tensor, **options: Any) -> CausalLMOutputWithPast:
        return CausalLMOutputWithPast(logits=logits[: len(logits_to_keep)].transpose(0, 1))

    model.forward = forward
    load = Load(model="", is_directory=True, cache_dir="", max_batch_size=requests)
    loaded = LoadedModel(model, word_tokenizer(_VOCABULARY, window), load)
    over, left = threading.Event(), [requests]

    def send(batch: Batch) -> None:
        encode(batch)
        left[0] -= sum(isinstance(message, Done) for message in batch.messages)
        if not left[0]:
            over.set()

    engine = BatchEngine(
        loaded,
        max_batch_size=requests,
        cache_bytes=1 << 29,
        prefix_sharing=False,
        send=send,
        end=lambda request: None,
        crash=over.set,
    )
    try:
        yield engine, over
    finally:
        engine.stop()


def _whole_steps(options: argparse.Namespace, context: int) -> list[float]:
    """Returns the processor time of decode steps without the forward pass and the sampling, in ms."""
    new_tokens = (
        _STEPS + 2 * options.requests * context // _STEP_TOKENS
    )  # the first goes on until the last prompt is read
    with _engine(options.requests, context + new_tokens + 1) as (engine, over):
        manager, pipeline = engine._manager, engine._manager._pipeline
        body, sample = manager._generation_loop_body, pipeline._sampler.sample
        sampling, times = [0.0], []

        def timed_sample(*arguments: Any) -> Any:
            began = time.thread_time()
            try:
                return sample(*arguments)
            finally:
                sampling[0] += time.thread_time() - began

        def timed_body(processor: Any, bootstrapping: bool) -> bool:
            sampling[0], began = 0.0, time.thread_time()
            goes_on = body(processor, bootstrapping)
            batch = processor.inputs_and_outputs
            if batch.use_block_table and batch.num_request_in_batch == options.requests:
                times.append((time.thread_time() - began - sampling[0]) * 1000)
            return goes_on

        vars(manager)["_generation_loop_body"], vars(pipeline._sampler)["sample"] = timed_body, timed_sample
        for number in range(options.requests):
            prompt = tuple((number + place) % _VOCABULARY for place in range(context))
            message = Generate(number, Conversation(()), Sampling(temperature=0.0))
            engine.submit(EngineRequest(message, prompt=prompt, max_tokens=new_tokens))
        engine.start()
        assert over.wait(120)
        assert engine.failure is None
    return times


def measure(options: argparse.Namespace) -> Results:
    """Measures the preparation, then whole steps."""
    figures = _preparing(options)
    for context in options.contexts:
        times = [statistics.median(_whole_steps(options, context)) for _ in rounds(options.rounds, 2)]
        name = f"{options.requests} requests of {context} tokens"
        target = Target(most=3.0) if context == 1024 else None
        figures.append(figure("Host time of a decode step", name, "ms", times, target=target))
    return Results(figures, versions("torch", "transformers"))


def main() -> int:
    """Runs the command line."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(
        prog="benchmarks.step_inputs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=64, help="requests in a batch (64)")
    parser.add_argument("--contexts", type=int, nargs="+", default=[128, 1024, 4096], help="tokens of each")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is run (5)")
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
