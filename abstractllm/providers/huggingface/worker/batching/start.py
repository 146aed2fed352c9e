"""Starting the batch loop for a model, if it gives the answers that the model gives alone."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from abstractllm.errors import ConfigurationError
from abstractllm.providers.huggingface.protocol.messages import Batch, Load
from abstractllm.providers.huggingface.worker.batching.attention import candidates
from abstractllm.providers.huggingface.worker.batching.engine import BatchEngine
from abstractllm.providers.huggingface.worker.batching.equivalence_check import CheckFailedError, references, run_probes
from abstractllm.providers.huggingface.worker.batching.sizes import SLOTS, default_cache_bytes

if TYPE_CHECKING:
    from abstractllm.providers.huggingface.worker.model import LoadedModel
    from abstractllm.providers.huggingface.worker.request import EngineRequest

__all__ = ["start"]


def start(
    loaded: LoadedModel,
    settings: Load,
    *,
    send: Callable[[Batch], None],
    end: Callable[[EngineRequest], None],
    crash: Callable[[], None],
) -> BatchEngine | None:
    """Starts the batch loop and notes in the model's description how many requests it takes.

    Raises:
        ModelLoadError: If the model cannot generate at all.
        ConfigurationError: If the configured memory is too little, or CUDA graphs are asked for in vain.

    Returns:
        The loop; None if the model answers one request at a time, for a reason that the description gives.
    """
    engine, note = _try(loaded, settings, send, end, crash)
    window = loaded.description.context_window
    loaded.description = msgspec.structs.replace(
        loaded.description,
        slots=engine.slots if engine else 1,
        longest=engine.longest if engine else window,
        cache_bytes=engine.cache_bytes if engine else 0,
        note=f"requests are answered one at a time: {note}" if note else "",
    )
    return engine


def _try(
    loaded: LoadedModel,
    settings: Load,
    send: Callable[[Batch], None],
    end: Callable[[EngineRequest], None],
    crash: Callable[[], None],
) -> tuple[BatchEngine | None, str]:
    model: Any = loaded.model
    slots = settings.max_batch_size or SLOTS["cuda" if model.device.type == "cuda" else "cpu"]
    if slots == 1:
        return None, ""
    if len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1:
        return None, "the model lies on several devices"
    own = model.config._attn_implementation
    wanted = references(loaded)
    note = ""
    for name in candidates(model, settings.cuda_graphs):
        engine: BatchEngine | None = None
        broken = threading.Event()
        try:
            engine = BatchEngine(
                loaded,
                slots=slots,
                cache_bytes=settings.kv_cache_bytes or default_cache_bytes(model.device),
                prefix_sharing=settings.prefix_sharing,
                attention_name=name,
                cuda_graphs=settings.cuda_graphs,
                send=send,
                end=end,
                crash=broken.set,
            )
            engine.start()
            run_probes(engine, wanted, broken)
        except Exception as error:
            # Whatever transformers cannot batch fails in a way of its own; nothing of it may end the engine.
            traceback.print_exc()
            if engine is not None:
                engine.stop()
            model.set_attn_implementation(own)
            if isinstance(error, ConfigurationError) and settings.kv_cache_bytes:
                raise
            is_ours = isinstance(error, (CheckFailedError, ConfigurationError))
            reason = str(error) if is_ours else f"{type(error).__name__}: {error}"
            note = reason.splitlines()[0][:300]
        else:
            engine.crash = crash
            return engine, ""
    if settings.cuda_graphs:
        raise ConfigurationError(f"cuda_graphs: this model cannot be captured: {note}", field="cuda_graphs")
    return None, note
