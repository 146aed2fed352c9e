"""Starting the batch loop for a model, if it gives the answers that the model gives alone."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import torch

from abstractllm.providers.huggingface.worker.batching.engine import BatchEngine, Message
from abstractllm.providers.huggingface.worker.batching.selfcheck import CheckFailedError, references, run_probes
from abstractllm.providers.huggingface.worker.protocol import Load

if TYPE_CHECKING:
    from abstractllm.providers.huggingface.worker.loop import Job
    from abstractllm.providers.huggingface.worker.model import LoadedModel

__all__ = ["start"]

_SLOTS = {"cpu": 64, "cuda": 256}
_CPU_CACHE_BYTES = 512 * 1024 * 1024
_GPU_CACHE_SHARE = 0.4


def start(
    loaded: LoadedModel,
    settings: Load,
    *,
    send: Callable[[Sequence[Message]], None],
    end: Callable[[Job, Exception | None], None],
    crash: Callable[[], None],
) -> BatchEngine | None:
    """Starts the batch loop and notes in the model's description how many requests it takes.

    Raises:
        ModelLoadError: If the model cannot generate at all.

    Returns:
        The loop; None if the model answers one request at a time, for a reason that the description gives.
    """
    engine, note = _try(loaded, settings, send, end, crash)
    window = loaded.description.context_window
    loaded.description = msgspec.structs.replace(
        loaded.description,
        slots=engine.slots if engine else 1,
        longest=engine.longest if engine else window,
        note=f"requests are answered one at a time: {note}" if note else "",
    )
    return engine


def _try(
    loaded: LoadedModel,
    settings: Load,
    send: Callable[[Sequence[Message]], None],
    end: Callable[[Job, Exception | None], None],
    crash: Callable[[], None],
) -> tuple[BatchEngine | None, str]:
    model: Any = loaded.model
    slots = settings.max_batch_size or _SLOTS.get(model.device.type, _SLOTS["cpu"])
    if slots == 1:
        return None, ""
    if len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1:
        return None, "the model lies on several devices"
    attention = model.config._attn_implementation
    engine: BatchEngine | None = None
    broken = threading.Event()
    wanted = references(loaded)
    try:
        engine = BatchEngine(
            loaded,
            slots=slots,
            cache_bytes=settings.kv_cache_bytes or _cache_bytes(model.device),
            send=send,
            end=end,
            crash=broken.set,
        )
        engine.start()
        run_probes(engine, wanted, broken)
        engine.crash = crash
        return engine, ""
    except Exception as error:
        # Whatever transformers cannot batch fails in a way of its own; nothing of it may end the engine.
        traceback.print_exc()
        if engine is not None:
            engine.stop()
        model.set_attn_implementation(attention)
        reason = str(error) if isinstance(error, CheckFailedError) else f"{type(error).__name__}: {error}"
        return None, reason.splitlines()[0][:300]


def _cache_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return _CPU_CACHE_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    return int(free * _GPU_CACHE_SHARE)
