"""The batch loop: transformers' `ContinuousBatchingManager` with our own requests, sampler and way out."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.continuous_api import (
    ContinuousBatchingManager,
    ContinuousBatchProcessor,
)
from transformers.generation.continuous_batching.model_runner import infer_max_single_request_tokens

from abstractllm.providers.huggingface.protocol.messages import Batch, Counters
from abstractllm.providers.huggingface.worker.batching import attention
from abstractllm.providers.huggingface.worker.batching.drawing import draw_after_forward
from abstractllm.providers.huggingface.worker.batching.request_output import Message, RequestOutput, StepCounters
from abstractllm.providers.huggingface.worker.batching.requests import BatchRequest, BatchScheduler, NullOutputRouter
from abstractllm.providers.huggingface.worker.batching.sampling_state import row_for
from abstractllm.providers.huggingface.worker.batching.sizes import batching_config
from abstractllm.providers.huggingface.worker.output import OutputProcessor

if TYPE_CHECKING:
    from abstractllm.providers.huggingface.worker.model import LoadedModel
    from abstractllm.providers.huggingface.worker.request import EngineRequest

__all__ = ["BatchEngine"]

_REPORT_SECONDS = 1.0
"""How often the counters are sent where nothing else is."""


class BatchEngine:
    """Answers many requests at once.

    Args:
        loaded: The model; its attention is switched.
        slots: Requests in a batch at most.
        cache_bytes: Memory for the keys and values of all requests together.
        attention_name: The attention implementation that the model is switched to.
        cuda_graphs: Whether the forward pass is captured in CUDA graphs.
        prefix_sharing: Whether a request may use the keys and values that another left of the same beginning.
        send: Is given what each step has brought, in the loop's thread; must not wait.
        end: Is given a request that is over.
        crash: Called, in the loop's thread, when the loop cannot go on.

    Raises:
        Exception: Whatever transformers raises for a model that it cannot batch.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        slots: int,
        cache_bytes: int,
        prefix_sharing: bool,
        send: Callable[[Batch], None],
        end: Callable[[EngineRequest], None],
        crash: Callable[[], None],
        attention_name: str = attention.PAGED_ATTENTION,
        cuda_graphs: bool = False,
    ) -> None:
        self._loaded = loaded
        self._send = send
        self._end = end
        self._outbox: list[Message] = []
        self._tally = StepCounters()
        self._reported, self._reported_steps = 0.0, 0
        self.slots = slots
        self.dtype: torch.dtype = loaded.model.dtype
        self.is_quantized = bool(loaded.description.quantization)
        self.crash = crash
        """Called, in the loop's thread, when the loop cannot go on."""
        window = loaded.description.context_window
        config = batching_config(
            loaded.model,
            slots=slots,
            cache_bytes=cache_bytes,
            window=window,
            attention=attention_name,
            cuda_graphs=cuda_graphs,
        )
        config.allow_block_sharing = prefix_sharing
        self._manager = _Manager(loaded, config, attention_name, self._after_step, lambda: self.crash())
        self._manager.warmup()
        self.longest = min(window, infer_max_single_request_tokens(self._manager.cache))
        """Tokens of prompt and answer that one request may have: by the window, and by the memory of the cache."""
        self.cache_bytes: int = self._manager.cache.cache_tensor.nbytes
        """What the cache of keys and values takes."""

    def start(self) -> None:
        """Starts the loop's thread."""
        self._manager.start()

    @contextmanager
    def steps_of(self, tokens: int) -> Iterator[None]:
        """Takes at most so many prompt tokens in one step."""
        processor = self._manager.processor
        usual, processor.max_batch_tokens = processor.max_batch_tokens, tokens
        try:
            yield
        finally:
            processor.max_batch_tokens = usual

    @property
    def failure(self) -> Exception | None:
        """Why the loop cannot go on, if it cannot."""
        return self._manager.failure

    def stop(self) -> None:
        """Ends the loop after its current step and gives the model its own attention back."""
        self._manager.stop(block=True, hard_stop=True)

    def submit(self, job: EngineRequest) -> None:
        """Takes a request whose prompt is tokenized and fits; from any thread."""
        row = row_for(job.request.sampling, self._loaded.model.generation_config, job.prompt)
        row.matcher = job.matcher
        answer = OutputProcessor(self._loaded, job, self._outbox.append)
        state = BatchRequest(
            request_id=str(job.request.id),
            initial_tokens=list(job.prompt),
            max_new_tokens=None,
            slot=RequestOutput(job, row, answer, self._outbox, self._tally, self._end),
        )
        self.take(state)

    def take(self, state: BatchRequest) -> None:
        """Takes a request as transformers' continuous batching knows it; from any thread."""
        self._manager.take(state)

    @property
    def counters(self) -> Counters:
        """What the loop holds and has done."""
        scheduler, cache = self._manager.scheduler, self._manager.cache
        tables = [table for allocator in cache.cache_allocators.values() for table in allocator.block_table.values()]
        return Counters(
            active=len(scheduler.active_requests),
            waiting=len(scheduler.waiting_requests),
            blocks=cache.num_blocks,
            blocks_in_use=sum(map(len, tables)),
            evictions=scheduler.evictions,
            **asdict(self._tally),
        )

    def _after_step(self, seconds: float, batch_size: int) -> None:
        """Hands over what a step has brought, and the counters.

        Args:
            seconds: What it took.
            batch_size: Requests in it; 0 where there was nothing to do.
        """
        if batch_size:
            self._tally.steps += 1
            self._tally.step_seconds += seconds
            self._tally.batch_size = batch_size
        now = time.monotonic()
        is_due = not batch_size or now - self._reported > _REPORT_SECONDS
        if self._outbox or (is_due and self._reported_steps != self._tally.steps):
            self._reported, self._reported_steps = now, self._tally.steps
            messages = tuple(self._outbox)
            self._outbox.clear()
            self._send(Batch(messages, self.counters))


class _Manager(ContinuousBatchingManager):
    """transformers' manager; everything it is overridden in is named in `tests/unit/test_transformers_seams.py`."""

    def __init__(
        self,
        loaded: LoadedModel,
        config: ContinuousBatchingConfig,
        attention_name: str,
        after_step: Callable[[float, int], None],
        crash: Callable[[], None],
    ) -> None:
        self._attention_name = attention_name
        self._vocabulary_size = loaded.vocabulary_size
        # Nothing of the model's own generation configuration: requests bring everything themselves.
        generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False, eos_token_id=-1, pad_token_id=0
        )
        with torch.no_grad():
            super().__init__(loaded.model, generation_config, config)
        self.output_router: Any = NullOutputRouter()
        self._after_step = after_step
        self._crash = crash
        self.failure: Exception | None = None
        """What ended the loop."""

    @property
    def processor(self) -> ContinuousBatchProcessor:
        """What prepares and runs each batch."""
        assert self.batch_processor is not None
        return self.batch_processor

    @property
    def scheduler(self) -> BatchScheduler:
        """What decides who is in the next batch."""
        scheduler = self.processor.scheduler
        assert isinstance(scheduler, BatchScheduler)
        return scheduler

    @property
    def cache(self) -> Any:
        """The paged cache of keys and values."""
        return self.processor.cache

    def take(self, state: BatchRequest) -> None:
        """Takes a request, from any thread."""
        self.input_queue.put(state)
        self._wake_up_loop.set()

    def switch_to_cb_friendly_attn(self, model: Any, auto_switch_to_flash: bool = True) -> None:
        """The stock method might fetch flash attention from a hub."""
        attention.register()
        self._original_attn_impl = model.config._attn_implementation
        model.set_attn_implementation(self._attention_name)

    def _create_batch_processor(self) -> ContinuousBatchProcessor:
        is_new = self.batch_processor is None
        processor: Any = super()._create_batch_processor()
        if is_new:
            draw_after_forward(processor, self._vocabulary_size)
        return processor  # type: ignore[no-any-return]

    def _generation_loop_body(self, batch_processor: ContinuousBatchProcessor, bootstrapping: bool) -> bool:
        steps, began = self.current_batch, time.monotonic()
        goes_on = super()._generation_loop_body(batch_processor, bootstrapping)
        inputs: Any = batch_processor.inputs_and_outputs
        batch_size = len(inputs.requests_in_batch) if self.current_batch > steps else 0
        self._after_step(time.monotonic() - began, batch_size)
        return goes_on

    def _handle_critical_error(self, error: Exception, batch_processor: ContinuousBatchProcessor | None) -> None:
        traceback.print_exception(error)
        self.failure = error
        self._crash()
