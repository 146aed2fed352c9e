"""Starting the batch loop for a model that answers in a batch as it does alone."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from transformers import GenerationMixin

from abstractllm.errors import ConfigurationError, OverloadedError, cause_chain
from abstractllm.providers.huggingface.protocol.messages import Batch, Load
from abstractllm.providers.huggingface.worker.batching.attention import candidates
from abstractllm.providers.huggingface.worker.batching.engine import BatchEngine
from abstractllm.providers.huggingface.worker.batching.equivalence_check import (
    CheckFailedError,
    Reference,
    references,
    run_probes,
)
from abstractllm.providers.huggingface.worker.batching.sizes import (
    DEFAULT_BATCH_SIZE,
    captures_decode,
    default_cache_bytes,
    free_bytes,
)
from abstractllm.providers.huggingface.worker.checkpoint.positions import mixes_lengths
from abstractllm.providers.huggingface.worker.generation_errors import is_out_of_memory
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.request import EngineRequest

__all__ = ["start"]

_ONE_AT_A_TIME = "requests are answered one at a time"
_LONGEST_NOTE = 300
"""Characters of an error in the model's description."""


def start(
    loaded: LoadedModel,
    settings: Load,
    *,
    send: Callable[[Batch], None],
    end: Callable[[EngineRequest], None],
    crash: Callable[[], None],
) -> BatchEngine | None:
    """Starts the batch loop and writes the number of requests that it takes into the model's description.

    Args:
        loaded: The model.
        settings: The settings that it was loaded by.
        send: Called with the messages of each step, in the loop's thread; must not wait.
        end: Called with each request that is over, in the loop's thread.
        crash: Called when the loop cannot go on, in the loop's thread.

    Returns:
        The loop; None if the model answers one request at a time. The description gives the reason.

    Raises:
        ModelLoadError: If the model cannot generate at all.
        ConfigurationError: If the configured memory is too little, or CUDA graphs are configured and cannot be used.
    """
    engine, reason = _start_any(loaded, settings, send, end, crash)
    window = loaded.description.context_window
    loaded.description = msgspec.structs.replace(
        loaded.description,
        slots=engine.max_batch_size if engine else 1,
        longest=engine.max_request_tokens if engine else window,
        cache_bytes=engine.cache_bytes if engine else 0,
        note="; ".join(filter(None, (loaded.description.note, reason and f"{_ONE_AT_A_TIME}: {reason}"))),
    )
    return engine


def _start_any(
    loaded: LoadedModel,
    settings: Load,
    send: Callable[[Batch], None],
    end: Callable[[EngineRequest], None],
    crash: Callable[[], None],
) -> tuple[BatchEngine | None, str]:
    """Starts the loop with the first attention implementation that works.

    Returns:
        The loop, or None and the reason, which is empty if one request at a time is configured.
    """
    model: Any = loaded.model
    if _max_batch_size(model, settings) == 1:
        return None, ""
    if len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1:
        return None, "the model lies on several devices"
    if "generate" in vars(model) or getattr(type(model), "generate", None) is not GenerationMixin.generate:
        return None, "the model comes with a generate function of its own"
    if loaded.rules.not_in_a_batch:
        return None, loaded.rules.not_in_a_batch
    if mixes_lengths(model, loaded.description.context_window):
        return None, "its positions are scaled by the length of the longest text that is computed with them"
    answers = references(loaded)
    reason = ""
    names = candidates(model, settings.cuda_graphs)
    for attention_name in filter(captures_decode, names) if settings.cuda_graphs else names:
        engine, reason = _start_with(attention_name, loaded, settings, answers, send, end)
        if engine is not None:
            engine.crash = crash
            return engine, ""
    if settings.cuda_graphs:
        reason = (
            reason
            or f"decode steps are captured on a GPU, in half precision; its weights are {model.dtype} on {model.device}"
        )
        raise ConfigurationError(f"cuda_graphs: this model cannot be captured: {reason}", field="cuda_graphs")
    return None, reason


def _start_with(
    attention_name: str,
    loaded: LoadedModel,
    settings: Load,
    answers: Sequence[Reference],
    send: Callable[[Batch], None],
    end: Callable[[EngineRequest], None],
) -> tuple[BatchEngine | None, str]:
    """Starts the loop with one attention implementation and checks its answers.

    Returns the loop; or None and the reason, in which case the model has its own attention again.
    """
    model: Any = loaded.model
    original_attention = model.config._attn_implementation
    broken = threading.Event()
    engine: BatchEngine | None = None
    try:
        engine = BatchEngine(
            loaded,
            max_batch_size=_max_batch_size(model, settings),
            cache_bytes=settings.kv_cache_bytes or default_cache_bytes(model.device),
            prefix_sharing=settings.prefix_sharing,
            attention_name=attention_name,
            cuda_graphs=settings.cuda_graphs is not False,
            send=send,
            end=end,
            crash=broken.set,
        )
        if settings.cuda_graphs and not (engine.graph_sizes and engine.graph_sizes.captured):
            raise CheckFailedError(str(engine.graph_sizes))
        engine.start()
        run_probes(engine, answers, broken)
    except Exception as error:
        # Each model that transformers cannot batch fails in its own way; none of them may end the engine process.
        traceback.print_exc()
        if engine is not None:
            engine.stop()
        model.set_attn_implementation(original_attention)
        if isinstance(error, ConfigurationError) and settings.kv_cache_bytes:
            raise
        if settings.kv_cache_bytes and _is_lack_of_memory(error):
            raise ConfigurationError(
                f"kv_cache_bytes: beside a cache of {settings.kv_cache_bytes} bytes there is too little memory on "
                f"{model.device} to compute, where {free_bytes(model.device)} are free without it",
                field="kv_cache_bytes",
                limit=free_bytes(model.device),
                requested=settings.kv_cache_bytes,
            ) from error
        return None, _reason(error)
    return engine, ""


def _max_batch_size(model: Any, settings: Load) -> int:
    return settings.max_batch_size or DEFAULT_BATCH_SIZE["cuda" if model.device.type == "cuda" else "cpu"]


def _is_lack_of_memory(error: Exception) -> bool:
    """Returns True if an error comes of too little memory for a step or for the cache."""
    return any(isinstance(link, OverloadedError) or is_out_of_memory(link) for link in cause_chain(error))


def _reason(error: Exception) -> str:
    """Returns the first line of an error, with its type if it is not one of our own."""
    is_ours = isinstance(error, (CheckFailedError, ConfigurationError))
    text = str(error) if is_ours else f"{type(error).__name__}: {error}"
    return text.splitlines()[0][:_LONGEST_NOTE]
