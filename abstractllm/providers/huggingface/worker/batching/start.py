"""Starting the batch loop for a model that answers in a batch as it does alone."""

from __future__ import annotations

import gc
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from transformers import GenerationMixin

from abstractllm.errors import ConfigurationError, OverloadedError, cause_chain
from abstractllm.providers.huggingface.protocol.messages import Batch, Load
from abstractllm.providers.huggingface.worker.batching.attention import PAGED_ATTENTION, candidates, left_out
from abstractllm.providers.huggingface.worker.batching.engine import BatchEngine
from abstractllm.providers.huggingface.worker.batching.equivalence_check import (
    CheckFailedError,
    Reference,
    references,
    run_probes,
)
from abstractllm.providers.huggingface.worker.batching.fused_kernels import FusedKernels
from abstractllm.providers.huggingface.worker.batching.sizes import (
    DEFAULT_BATCH_SIZE,
    captures_decode,
    configured_cache_bytes,
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
        ConfigurationError: If the configured memory is too little, or is to be a GPU's where there is none; or CUDA
            graphs are configured and cannot be used.
    """
    engine, note = _start_any(loaded, settings, send, end, crash)
    window = loaded.description.context_window
    loaded.description = msgspec.structs.replace(
        loaded.description,
        slots=engine.max_batch_size if engine else 1,
        longest=engine.max_request_tokens if engine else window,
        cache_bytes=engine.cache_bytes if engine else 0,
        note="; ".join(filter(None, (loaded.description.note, note))),
    )
    return engine


def _start_any(
    loaded: LoadedModel,
    settings: Load,
    send: Callable[[Batch], None],
    end: Callable[[EngineRequest], None],
    crash: Callable[[], None],
) -> tuple[BatchEngine | None, str]:
    """Starts the loop with the first attention implementation that works, and with fused kernels if they work, too.

    Returns:
        The loop and what it runs with on a GPU; or None and the reason, which is empty if one request at a time is
        configured.
    """
    model: Any = loaded.model
    if settings.gpu_memory_utilization and model.device.type != "cuda":
        raise ConfigurationError(
            f"gpu_memory_utilization: the model is on {model.device}, which is no GPU", field="gpu_memory_utilization"
        )
    if _max_batch_size(model, settings) == 1:
        return None, ""
    if reason := _never_in_a_batch(loaded):
        return None, f"{_ONE_AT_A_TIME}: {reason}"
    kernels = FusedKernels(model, wanted=settings.fused_kernels)
    trial = _Trial(loaded, settings, references(loaded), send, end, kernels)
    names = candidates(model, settings.cuda_graphs)
    failures: dict[str, str] = {}
    for attention_name in filter(captures_decode, names) if settings.cuda_graphs else names:
        engine, reason = trial.start_fastest(attention_name)
        if engine is not None:
            engine.crash = crash
            excluded = left_out(model, settings.cuda_graphs) | failures
            return engine, _summary(model, attention_name, excluded, kernels, engine)
        failures[attention_name] = reason
    if settings.cuda_graphs:
        reason = (
            reason or f"decode steps are captured on a GPU, in half precision; it is {model.dtype} on {model.device}"
        )
        raise ConfigurationError(f"cuda_graphs: this model cannot be captured: {reason}", field="cuda_graphs")
    return None, f"{_ONE_AT_A_TIME}: {reason}"


def _never_in_a_batch(loaded: LoadedModel) -> str:
    """Returns the reason why a model can only answer one request at a time; empty if a batch is to be tried."""
    model: Any = loaded.model
    if len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1:
        return "the model lies on several devices"
    if "generate" in vars(model) or getattr(type(model), "generate", None) is not GenerationMixin.generate:
        return "the model comes with a generate function of its own"
    if loaded.rules.not_in_a_batch:
        return loaded.rules.not_in_a_batch
    if mixes_lengths(model, loaded.description.context_window):
        return "its positions are scaled by the length of the longest text that is computed with them"
    return ""


def _summary(
    model: Any, attention_name: str, excluded: Mapping[str, str], kernels: FusedKernels, engine: BatchEngine
) -> str:
    """Says what a batch on a GPU runs with, and why with nothing faster; empty on a CPU."""
    if model.device.type != "cuda":
        return ""
    faster = ", ".join(f"not {name}: {reason}" for name, reason in excluded.items() if name != PAGED_ATTENTION)
    graphs = engine.graph_sizes or "no CUDA graphs"
    order = "steps overlap" if engine.overlaps else "steps do not overlap"
    return f"attention {attention_name}{faster and f' ({faster})'}; {kernels}; {graphs}; {order}"


@dataclass(frozen=True)
class _Trial:
    """The start of the loop with one attention implementation after the other."""

    loaded: LoadedModel
    settings: Load
    answers: Sequence[Reference]
    """Those of the model alone, without fused kernels."""
    send: Callable[[Batch], None]
    end: Callable[[EngineRequest], None]
    kernels: FusedKernels

    def start_fastest(self, attention_name: str) -> tuple[BatchEngine | None, str]:
        """Starts the loop with all that makes it fast; if that fails, without fused kernels, then without overlap."""
        kernels = None if self.kernels.left_out else self.kernels
        overlaps = self.settings.overlap_steps and self.loaded.model.device.type != "cpu"
        engine, reason = self.start_with(attention_name, kernels, overlaps=overlaps)
        if engine is None and kernels is not None:
            failure, kernels = reason, None
            engine, reason = self.start_with(attention_name, kernels, overlaps=overlaps)
            if engine is not None:
                self.kernels.left_out = failure
        if engine is None and overlaps:
            engine, reason = self.start_with(attention_name, kernels, overlaps=False)
        return engine, reason

    def start_with(
        self, attention_name: str, kernels: FusedKernels | None, *, overlaps: bool
    ) -> tuple[BatchEngine | None, str]:
        """Starts the loop with one attention implementation and checks its answers.

        Returns the loop; or None and the reason, in which case the model has its own attention and operations again,
        and the memory of the cache is free.
        """
        engine, reason = self._try(attention_name, kernels, overlaps=overlaps)
        if engine is None:
            gc.collect()  # the parts of the loop refer to each other, and hold its cache and its graphs
        return engine, reason

    def _try(
        self, attention_name: str, kernels: FusedKernels | None, *, overlaps: bool
    ) -> tuple[BatchEngine | None, str]:
        model: Any = self.loaded.model
        settings, max_batch_size = self.settings, _max_batch_size(model, self.settings)
        original_attention = model.config._attn_implementation
        broken = threading.Event()
        engine: BatchEngine | None = None
        try:
            if kernels is not None:
                kernels.apply()
            engine = BatchEngine(
                self.loaded,
                max_batch_size=max_batch_size,
                cache_bytes=configured_cache_bytes(model, settings, max_batch_size, attention=attention_name),
                prefix_sharing=settings.prefix_sharing,
                attention_name=attention_name,
                cuda_graphs=settings.cuda_graphs is not False,
                overlaps=overlaps,
                send=self.send,
                end=self.end,
                crash=broken.set,
            )
            if settings.cuda_graphs and not (engine.graph_sizes and engine.graph_sizes.captured):
                raise CheckFailedError(str(engine.graph_sizes))
            engine.start()
            run_probes(engine, self.answers, broken)
        except Exception as error:
            # Each model that transformers cannot batch fails in its own way; none of them may end the engine process.
            traceback.print_exc()
            if engine is not None:
                engine.stop()
            if kernels is not None:
                kernels.undo()
            model.set_attn_implementation(original_attention)
            if isinstance(error, ConfigurationError) and (settings.kv_cache_bytes or settings.gpu_memory_utilization):
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
