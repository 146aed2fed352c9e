"""The batch loop: transformers' `ContinuousBatchingManager` with our own requests, sampler and outputs."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.continuous_api import (
    ContinuousBatchingManager,
    ContinuousBatchProcessor,
)
from transformers.generation.continuous_batching.model_runner import infer_max_single_request_tokens

from abstractllm.providers.huggingface.protocol.messages import Batch, Counters
from abstractllm.providers.huggingface.worker.batching import attention
from abstractllm.providers.huggingface.worker.batching.decode_graphs import DecodeGraphs, GraphSizes
from abstractllm.providers.huggingface.worker.batching.logits_rules import LogitsRules
from abstractllm.providers.huggingface.worker.batching.memory_recovery import recover_memory
from abstractllm.providers.huggingface.worker.batching.request_output import Message, RequestOutput, StepCounters
from abstractllm.providers.huggingface.worker.batching.sampling_state import new_sampling_state
from abstractllm.providers.huggingface.worker.batching.scheduling import BatchRequest, BatchScheduler, NullOutputRouter
from abstractllm.providers.huggingface.worker.batching.sizes import batching_config, most_graph_bytes, reserved_bytes
from abstractllm.providers.huggingface.worker.batching.step_inputs import StepInputs
from abstractllm.providers.huggingface.worker.batching.step_pipeline import StepPipeline
from abstractllm.providers.huggingface.worker.generation_errors import is_out_of_memory
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.output import OutputProcessor
from abstractllm.providers.huggingface.worker.request import EngineRequest, failure_message

__all__ = ["BatchEngine"]

_REPORT_SECONDS = 1.0
"""The interval of reports of the counters, while steps bring no messages."""


class BatchEngine:
    """Answers many requests at once.

    Args:
        loaded: The model; its attention is switched.
        max_batch_size: The most requests in a batch.
        cache_bytes: Memory for the keys and values of all requests together.
        attention_name: The attention implementation that the model is switched to.
        cuda_graphs: Whether decode steps are captured in CUDA graphs, where they can be.
        overlaps: Whether a step begins before the tokens of the one before are known.
        prefix_sharing: Whether a request may use the keys and values of an earlier one with the same beginning.
        send: Called with the messages of each step, in the loop's thread; must not wait.
        end: Called with each request that is over, in the loop's thread.
        crash: Called when the loop cannot go on, in the loop's thread.

    Raises:
        Exception: Any error of transformers, for a model that it cannot batch.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        max_batch_size: int,
        cache_bytes: int,
        prefix_sharing: bool,
        send: Callable[[Batch], None],
        end: Callable[[EngineRequest], None],
        crash: Callable[[], None],
        attention_name: str = attention.PAGED_ATTENTION,
        cuda_graphs: bool = True,
        overlaps: bool = False,
    ) -> None:
        self._loaded = loaded
        self._send = send
        self._end = end
        self._outbox: list[Message] = []
        """The messages of the current step."""
        self._step_counters = StepCounters()
        self._reported_at, self._reported_steps = 0.0, 0
        """The time of the last report of the counters, and the number of steps then."""
        self.max_batch_size = max_batch_size
        self.dtype: torch.dtype = loaded.model.dtype
        self.is_quantized = bool(loaded.description.quantization)
        self.crash = crash
        """Called when the loop cannot go on, in the loop's thread."""
        self.rounds = 0
        """The rounds of the loop so far: steps, and short waits where there is nothing to do."""
        rules = loaded.rules
        has_rules = bool(rules.logits_rules) or rules.has_filters
        self._rules = LogitsRules(rules, loaded.vocabulary_size, loaded.model.device) if has_rules else None
        window = loaded.description.context_window
        config = batching_config(
            loaded.model,
            max_batch_size,
            cache_bytes,
            window=window,
            attention=attention_name,
            cuda_graphs=cuda_graphs,
        )
        config.allow_block_sharing = prefix_sharing
        # For flash attention's packages transformers itself prepares a step, over the inputs of the one that runs.
        self.overlaps = overlaps = overlaps and not attention.is_flash(attention_name)
        """Whether a step begins before the tokens of the one before are known."""
        self._manager = _Manager(
            loaded,
            config,
            attention_name,
            overlaps,
            self._after_step,
            has_messages=lambda: bool(self._outbox),
            crash=lambda: self.crash(),
        )
        self._manager.warmup()
        self.max_request_tokens = min(window, infer_max_single_request_tokens(self._manager.cache))
        """The most tokens of prompt and answer of one request: the context window, or less where the cache is small."""
        self.cache_bytes: int = self._manager.cache.cache_tensor.nbytes
        """The memory that the cache of keys and values takes."""
        graphs = self._manager.graphs
        self.graph_sizes: GraphSizes | None = None if graphs is None else graphs.sizes
        """The sizes of decode steps that were captured; None where none can be."""

    def start(self) -> None:
        """Starts the loop's thread."""
        self._manager.start()

    @contextmanager
    def limited_steps(self, prompt_tokens: int) -> Iterator[None]:
        """Limits the prompt tokens that are taken in one step, for the time of a `with` block."""
        processor = self._manager.processor
        default, processor.max_batch_tokens = processor.max_batch_tokens, prompt_tokens
        try:
            yield
        finally:
            processor.max_batch_tokens = default

    @property
    def failure(self) -> Exception | None:
        """The error because of which the loop has ended; None while it runs."""
        return self._manager.failure

    def stop(self) -> None:
        """Ends the loop after its current step and gives the model its own attention back."""
        self._manager.stop(block=True, hard_stop=True)
        if self._loaded.model.device.type == "cuda":  # a step that has begun may still be running
            torch.cuda.synchronize(self._loaded.model.device)

    def submit(self, request: EngineRequest) -> None:
        """Takes a request whose prompt is tokenized and fits; from any thread."""
        sampling_state = new_sampling_state(request, self._loaded.model.generation_config, self._rules)
        processor = OutputProcessor(self._loaded, request, self._outbox.append)
        output = RequestOutput(request, sampling_state, processor, self._outbox, self._step_counters, self._end)
        self.add(
            BatchRequest(
                request_id=str(request.message.id),
                initial_tokens=list(request.prompt),
                max_new_tokens=None,
                output=output,
                caller=request.message.caller,
            )
        )

    def add(self, request: BatchRequest) -> None:
        """Adds a request in the form of transformers' continuous batching; from any thread."""
        self._manager.add(request)

    @property
    def counters(self) -> Counters:
        """The requests and blocks that the loop holds, and the work that it has done."""
        scheduler, cache = self._manager.scheduler, self._manager.cache
        tables = [table for allocator in cache.cache_allocators.values() for table in allocator.block_table.values()]
        return Counters(
            active=len(scheduler.active_requests),
            waiting=len(scheduler.waiting_requests),
            blocks=cache.num_blocks,
            blocks_in_use=sum(map(len, tables)),
            evictions=scheduler.evictions,
            **asdict(self._step_counters),
        )

    def _after_step(self, seconds: float, batch_size: int) -> None:
        """Sends the messages of a step, and the counters.

        Args:
            seconds: The time that it took.
            batch_size: Requests in it; 0 where there was nothing to do.
        """
        self.rounds += 1
        counters = self._step_counters
        if batch_size:
            counters.steps += 1
            counters.step_seconds += seconds
            counters.batch_size = batch_size
        now = time.monotonic()
        is_due = not batch_size or now - self._reported_at > _REPORT_SECONDS
        if self._outbox or (is_due and self._reported_steps != counters.steps):
            self._reported_at, self._reported_steps = now, counters.steps
            messages = tuple(self._outbox)
            self._outbox.clear()
            self._send_isolated(messages)

    def _send_isolated(self, messages: tuple[Message, ...]) -> None:
        """Sends messages together; if that fails, one by one, and fails the requests of those that cannot be sent."""
        try:
            self._send(Batch(messages, self.counters))
            return
        except Exception as error:
            if not messages:
                raise
            fault = error
        failed: set[int] = set()
        for message in messages:
            if message.id in failed:
                continue
            try:
                self._send(Batch((message,), self.counters))
            except Exception:
                failed.add(message.id)
        states: Any = self._manager.scheduler.active_requests
        outputs = [state.output for state in states.values() if state.output.request.message.id in failed]
        for output in outputs:  # which fail with their next token
            output.sampling_state.error = fault
            failed.discard(output.request.message.id)
        for id in failed:
            self._send(Batch((failure_message(id, fault),), self.counters))


class _Manager(ContinuousBatchingManager):
    """transformers' manager; the methods that it overrides are pinned by `tests/unit/test_transformers_seams.py`."""

    def __init__(
        self,
        loaded: LoadedModel,
        config: ContinuousBatchingConfig,
        attention_name: str,
        overlaps: bool,
        after_step: Callable[[float, int], None],
        has_messages: Callable[[], bool],
        crash: Callable[[], None],
    ) -> None:
        self._attention_name, self._overlaps = attention_name, overlaps
        self._vocabulary_size, self._longest = loaded.vocabulary_size, loaded.description.context_window
        # Nothing of the model's own generation configuration: requests bring everything themselves.
        generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False, eos_token_id=-1, pad_token_id=0
        )
        with torch.no_grad():
            super().__init__(loaded.model, generation_config, config)
        self.output_router: Any = NullOutputRouter()
        self._after_step, self._has_messages = after_step, has_messages
        self._crash = crash
        self.graphs: DecodeGraphs | None = None
        """The CUDA graphs of decode steps, where there are some."""
        self.failure: Exception | None = None
        """The error that has ended the loop."""

    @property
    def processor(self) -> ContinuousBatchProcessor:
        """The processor, which prepares and runs each batch."""
        assert self.batch_processor is not None
        return self.batch_processor

    @property
    def scheduler(self) -> BatchScheduler:
        """The scheduler, which chooses the requests of the next batch."""
        scheduler = self.processor.scheduler
        assert isinstance(scheduler, BatchScheduler)
        return scheduler

    @property
    def cache(self) -> Any:
        """The paged cache of keys and values."""
        return self.processor.cache

    def add(self, request: BatchRequest) -> None:
        """Adds a request, from any thread."""
        self.input_queue.put(request)
        self._wake_up_loop.set()

    def switch_to_cb_friendly_attn(self, model: Any, auto_switch_to_flash: bool = True) -> None:
        """Switches the model's attention; transformers' own method might fetch flash attention from a hub."""
        attention.register()
        self._original_attn_impl = model.config._attn_implementation
        model.set_attn_implementation(self._attention_name)

    def _create_batch_processor(self) -> ContinuousBatchProcessor:
        is_new = self.batch_processor is None
        processor: Any = super()._create_batch_processor()
        if is_new:
            if any(processor.cb_config.cuda_graph_booleans):
                device = processor.model_device
                self.graphs = DecodeGraphs(processor, most_graph_bytes(device), partial(reserved_bytes, device))
            if not attention.is_flash(self._attention_name):
                has_kernel = self._attention_name == attention.IN_PLACE_ATTENTION
                StepInputs(processor, self._longest, has_kernel=has_kernel)
            self._pipeline = StepPipeline(processor, self._vocabulary_size, overlaps=self._overlaps)
            self._prepare_next, processor.prepare_next_batch = processor.prepare_next_batch, self._prepare
        return processor  # type: ignore[no-any-return]

    def _prepare(self) -> bool:
        """Prepares the next step; if there is none, the loop waits, but not with messages that are to be sent.

        They are of requests that have been cancelled, and the last ones where steps overlap.
        """
        is_prepared = bool(self._prepare_next())
        if not is_prepared and self._has_messages():
            self._wake_up_loop.set()
        return is_prepared

    def _generation_loop_body(self, batch_processor: ContinuousBatchProcessor, bootstrapping: bool) -> bool:
        steps, began = self.current_batch, time.monotonic()
        goes_on = super()._generation_loop_body(batch_processor, bootstrapping)
        inputs: Any = batch_processor.inputs_and_outputs
        batch_size = len(inputs.requests_in_batch) if self.current_batch > steps else 0
        self._after_step(time.monotonic() - began, batch_size)
        return goes_on

    def _generation_step(self) -> None:
        try:
            super()._generation_step()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._pipeline.take_tokens()
            recover_memory(self.processor, error)

    def _handle_critical_error(self, error: Exception, batch_processor: ContinuousBatchProcessor | None) -> None:
        traceback.print_exception(error)
        self.failure = error
        self._crash()
