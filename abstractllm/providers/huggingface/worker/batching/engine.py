"""The batch loop: transformers' `ContinuousBatchingManager` with our own requests, sampler and way out."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.continuous_api import (
    ContinuousBatchingManager,
    ContinuousBatchProcessor,
)
from transformers.generation.continuous_batching.model_runner import infer_max_single_request_tokens

from abstractllm.providers.huggingface.worker.answer import CANCELLED, AnswerWriter
from abstractllm.providers.huggingface.worker.batching import attention
from abstractllm.providers.huggingface.worker.batching.drawing import draw_after_forward
from abstractllm.providers.huggingface.worker.batching.requests import BatchRequest, Router
from abstractllm.providers.huggingface.worker.batching.settings import Row, row_for
from abstractllm.providers.huggingface.worker.batching.sizes import batching_config
from abstractllm.providers.huggingface.worker.protocol import Begun, Delta, Done

if TYPE_CHECKING:
    from abstractllm.providers.huggingface.worker.loop import Job
    from abstractllm.providers.huggingface.worker.model import LoadedModel

__all__ = ["BatchEngine", "Slot"]

Message = Begun | Delta | Done


class Slot:
    """One request's place in the batch loop: it draws, writes and ends.

    Args:
        job: The request.
        row: Its sampling settings.
        answer: What turns its tokens into text.
        outbox: The step's messages.
        end: Called, in the loop's thread, when the request is over.
    """

    def __init__(
        self,
        job: Job,
        row: Row,
        answer: AnswerWriter,
        outbox: list[Message],
        end: Callable[[Job, Exception | None], None],
    ) -> None:
        self.job = job
        self.row = row
        self._answer = answer
        self._outbox = outbox
        self._end = end
        self._begun = False

    def begin(self) -> None:
        """The request is part of a batch for the first time, or again after an eviction."""
        if not self._begun:
            self._begun = True
            self._answer.began = time.monotonic()
            self._outbox.append(Begun(self.job.request.id))

    def take(self, token: int) -> bool:
        """Takes a token; true if the request is over. What goes wrong here ends this request alone."""
        try:
            if not self._answer.take(token, self.row.report):
                return False
            self._outbox.append(self._answer.done())
        except Exception as error:
            traceback.print_exc()
            self._end(self.job, error)
            return True
        self._end(self.job, None)
        return True

    def cancel(self) -> None:
        """Ends a cancelled request outside a batch."""
        self._answer.finish_reason = CANCELLED
        self._outbox.append(self._answer.done())
        self._end(self.job, None)

    def fail(self, error: Exception) -> None:
        """Ends the request with an error."""
        self._end(self.job, error)


class BatchEngine:
    """Answers many requests at once.

    Args:
        loaded: The model; its attention is switched.
        slots: Requests in a batch at most.
        cache_bytes: Memory for the keys and values of all requests together.
        attention_name: The attention implementation that the model is switched to.
        cuda_graphs: Whether the forward pass is captured in CUDA graphs.
        send: Is given the messages of each step, in the loop's thread; must not wait.
        end: Is given a request that is over, and why it failed if it did.
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
        send: Callable[[Sequence[Message]], None],
        end: Callable[[Job, Exception | None], None],
        crash: Callable[[], None],
        attention_name: str = attention.PAGED_ATTENTION,
        cuda_graphs: bool = False,
    ) -> None:
        self._loaded = loaded
        self._send = send
        self._end = end
        self._outbox: list[Message] = []
        self.slots = slots
        self.dtype: torch.dtype = loaded.model.dtype
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
        self._manager = _Manager(loaded, config, attention_name, self._flush, lambda: self.crash())
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

    def submit(self, job: Job) -> None:
        """Takes a request whose prompt is tokenized and fits; from any thread."""
        row = row_for(job.request.sampling, self._loaded.model.generation_config, job.prompt)
        row.matcher = job.matcher
        answer = AnswerWriter(self._loaded, job, self._outbox.append)
        state = BatchRequest(
            request_id=str(job.request.id),
            initial_tokens=list(job.prompt),
            max_new_tokens=None,
            slot=Slot(job, row, answer, self._outbox, self._end),
        )
        self.take(state)

    def take(self, state: BatchRequest) -> None:
        """Takes a request as transformers' continuous batching knows it; from any thread."""
        self._manager.take(state)

    @property
    def counters(self) -> dict[str, int]:
        """What the loop holds now: for tests and metrics."""
        scheduler, cache = self._manager.processor.scheduler, self._manager.cache
        return {
            "active": len(scheduler.active_requests),
            "waiting": len(scheduler.waiting_requests),
            "blocks_in_use": sum(
                len(table) for a in cache.cache_allocators.values() for table in a.block_table.values()
            ),
        }

    def _flush(self) -> None:
        """Hands over what a step has brought."""
        if self._outbox:
            messages = self._outbox.copy()
            self._outbox.clear()
            self._send(messages)


class _Manager(ContinuousBatchingManager):
    """transformers' manager; everything it is overridden in is named in `tests/unit/test_transformers_seams.py`."""

    def __init__(
        self,
        loaded: LoadedModel,
        config: ContinuousBatchingConfig,
        attention_name: str,
        after_step: Callable[[], None],
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
        self.output_router: Any = Router()
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
        goes_on = super()._generation_loop_body(batch_processor, bootstrapping)
        self._after_step()
        return goes_on

    def _handle_critical_error(self, error: Exception, batch_processor: ContinuousBatchProcessor | None) -> None:
        traceback.print_exception(error)
        self.failure = error
        self._crash()
