"""How large the cache of keys and values and the batches are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import ContinuousBatchingConfig
from transformers.generation.continuous_batching.cache import group_layers_by_attn_type
from transformers.generation.continuous_batching.utils import find_head_dim, find_num_key_value_heads

from abstractllm.errors import ConfigurationError
from abstractllm.providers.huggingface.worker.batching.attention import is_flash
from abstractllm.providers.huggingface.worker.batching.requests import SCHEDULER

__all__ = ["SLOTS", "batching_config", "default_cache_bytes"]

SLOTS = {"cpu": 64, "cuda": 256}
"""Requests in a batch."""

_PAGE = 16
"""Tokens of a page of the cache; large ones waste memory on short requests."""
_FLASH_PAGE = 256
"""What flash attention's kernels need to read pages themselves."""
_BATCH_TOKENS = {"cpu": 512, "cuda": 2048}
"""Prompt tokens taken in one step: they bound how long a step, and so a cancellation, takes."""
_LEAST_SECTORS = 4
_UNUSED_SECTORS = 2
"""transformers lets padding write and read there; they count, too."""
_ALIGNMENT = 128

_CPU_CACHE_BYTES = 512 * 1024 * 1024
_CPU_CACHE_SHARE = 0.25
_GPU_CACHE_SHARE = 0.4

_CONTROL_GROUP = Path("/sys/fs/cgroup")
_LIMITS = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
"""Of control groups of version 2 and 1."""


def default_cache_bytes(device: torch.device) -> int:
    """Memory for the cache where the configuration names none.

    On a CPU 512 MiB, but at most a quarter of the memory that is left; on a GPU 40 % of what is free there, so that a
    second model fits beside this one.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * _GPU_CACHE_SHARE)
    return min(_CPU_CACHE_BYTES, int(_memory_left() * _CPU_CACHE_SHARE))


def _memory_left() -> int:
    """Bytes that this process may still take: of the machine, or less by the limit of its control group."""
    left: int = psutil.virtual_memory().available
    for limit_name, used_name, statistics_name in _LIMITS:
        try:
            limit = int((_CONTROL_GROUP / limit_name).read_text("ascii"))
            used = int((_CONTROL_GROUP / used_name).read_text("ascii"))
            lines = (_CONTROL_GROUP / statistics_name).read_text("ascii").splitlines()
        except (OSError, ValueError):  # no control group of this version, or one without a limit ("max")
            continue
        counts = {name: int(value) for name, value in (line.split() for line in lines)}
        # Pages of files, such as those of the weights, count as used, but are given up when memory runs short.
        files = counts.get("inactive_file", 0) + counts.get("active_file", 0)
        left = min(left, max(0, limit - used + files))
    return left


def batching_config(
    model: Any, *, slots: int, cache_bytes: int, window: int, attention: str, cuda_graphs: bool
) -> ContinuousBatchingConfig:
    """Sizes everything from the number of slots and the memory for the cache.

    Args:
        model: A transformers model.
        slots: Requests in a batch at most.
        cache_bytes: What the cache may take; it takes less where all slots with full windows need less.
        window: Tokens that one request may have.
        attention: The name of the attention implementation.
        cuda_graphs: Whether the forward pass is captured.

    Raises:
        ConfigurationError: If the memory is too little for any cache; the message names both sizes.
        ValueError: If transformers cannot batch the model.
    """
    config = model.config.get_text_config(decoder=True)
    on_gpu = model.device.type == "cuda"
    page = _FLASH_PAGE if is_flash(attention) else _PAGE
    page_bytes = 2 * page * find_num_key_value_heads(config) * find_head_dim(config) * model.dtype.itemsize
    # A block of the cache is a page of each layer; what is handed out is a sector, which holds whole blocks of the
    # layers of every kind, such as those with a sliding window.
    kinds = [len(layers) for layers in group_layers_by_attn_type(config).values()]
    sector_bytes = math.lcm(*(layers * page_bytes for layers in kinds), _ALIGNMENT)
    block_bytes = page_bytes * config.num_hidden_layers
    least = (_LEAST_SECTORS + _UNUSED_SECTORS) * sector_bytes
    if cache_bytes < least:
        raise ConfigurationError(
            f"kv_cache_bytes: {cache_bytes} bytes are too few for the keys and values of this model, "
            f"which need at least {least}",
            field="kv_cache_bytes",
            limit=least,
            requested=cache_bytes,
        )
    blocks = (cache_bytes // sector_bytes - _UNUSED_SECTORS) * sector_bytes // block_bytes
    return ContinuousBatchingConfig(
        page_size=page,
        num_blocks=min(blocks, slots * -(-window // page)),
        max_batch_tokens=max(slots, _BATCH_TOKENS["cuda" if on_gpu else "cpu"]),
        max_requests_per_batch=slots,
        max_blocks_per_request=-(-window // page) if is_flash(attention) else 0,
        use_async_batching=False,
        use_cuda_graph=cuda_graphs,
        scheduler_type=SCHEDULER,
    )
