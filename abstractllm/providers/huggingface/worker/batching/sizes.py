"""The sizes of the cache of keys and values and of the batches."""

from __future__ import annotations

import math
from typing import Any

import psutil
import torch
from transformers import ContinuousBatchingConfig
from transformers.generation.continuous_batching.cache import group_layers_by_attn_type
from transformers.generation.continuous_batching.utils import find_head_dim, find_num_key_value_heads

from abstractllm.errors import ConfigurationError
from abstractllm.providers.huggingface.machine import memory_left
from abstractllm.providers.huggingface.protocol.messages import (
    CPU_BATCH_SIZE,
    CPU_CACHE_BYTES,
    GPU_BATCH_SIZE,
    Load,
)
from abstractllm.providers.huggingface.worker.batching.attention import IN_PLACE_ATTENTION, is_flash
from abstractllm.providers.huggingface.worker.batching.scheduling import SCHEDULER

__all__ = [
    "DEFAULT_BATCH_SIZE",
    "batching_config",
    "captures_decode",
    "configured_cache_bytes",
    "default_cache_bytes",
    "free_bytes",
    "most_graph_bytes",
    "reserved_bytes",
]

DEFAULT_BATCH_SIZE = {"cpu": CPU_BATCH_SIZE, "cuda": GPU_BATCH_SIZE}
"""The most requests in a batch, by device."""

_PAGE = 16
"""Tokens of a page of the cache; large ones waste memory on short requests."""
_FLASH_PAGE = 256
"""Tokens of a page that flash attention's kernels can read themselves."""
_BATCH_TOKENS = {"cpu": 512, "cuda": 2048}
"""Prompt tokens taken in one step: they bound the time of a step, and so of a cancellation."""
_LEAST_SECTORS = 4
_PADDING_SECTORS = 2
"""transformers writes and reads padding there; they take memory too."""
_ALIGNMENT = 128

_UNCHECKED = 1e9
"""A share of the memory that no cache exceeds."""

_GRAPH_DIVISOR = 20
_MOST_GRAPH_BYTES = 2 << 30

_CPU_CACHE_SHARE = 0.25
_GPU_CACHE_SHARE = 0.4


def free_bytes(device: torch.device) -> int:
    """Returns the memory that is free on a device, in bytes; on a CPU, what this process may still take."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(device)
        return free
    left: int = psutil.virtual_memory().available
    limited = memory_left()
    return left if limited is None else min(left, limited)


def reserved_bytes(device: torch.device) -> int:
    """Returns the memory that this process holds on a GPU, as PyTorch's allocator counts it, in bytes; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved(device)


def most_graph_bytes(device: torch.device) -> int:
    """Returns the memory that CUDA graphs may take: a twentieth of the GPU's, at most 2 GiB."""
    if device.type != "cuda":
        return _MOST_GRAPH_BYTES
    _, total = torch.cuda.mem_get_info(device)
    return min(total // _GRAPH_DIVISOR, _MOST_GRAPH_BYTES)


def captures_decode(attention: str) -> bool:
    """Tells whether decode steps with an attention implementation can be captured: it reads pages by a table."""
    return is_flash(attention) or attention == IN_PLACE_ATTENTION


def default_cache_bytes(device: torch.device) -> int:
    """Returns the memory for the cache where the configuration names none, in bytes.

    On a CPU it is 512 MiB, but at most a quarter of the memory that is left; on a GPU 40 % of the memory that is free
    there, so that a second model fits beside this one.
    """
    if device.type == "cuda":
        return int(free_bytes(device) * _GPU_CACHE_SHARE)
    return min(CPU_CACHE_BYTES, int(free_bytes(device) * _CPU_CACHE_SHARE))


def configured_cache_bytes(model: Any, settings: Load, max_batch_size: int, *, attention: str) -> int:
    """Returns the memory for the cache, in bytes.

    Args:
        model: A transformers model.
        settings: The settings of the engine.
        max_batch_size: The most requests in a batch.
        attention: The name of the attention implementation.

    Raises:
        ConfigurationError: If the configured share of a GPU leaves too little; the message names all parts.
    """
    if settings.kv_cache_bytes:
        return settings.kv_cache_bytes
    if not settings.gpu_memory_utilization:
        return default_cache_bytes(model.device)
    held, free = reserved_bytes(model.device), free_bytes(model.device)
    _, total = torch.cuda.mem_get_info(model.device)
    allowed = int(total * settings.gpu_memory_utilization)
    kept = _step_bytes(model, max_batch_size)
    if settings.cuda_graphs is not False and captures_decode(attention):
        kept += most_graph_bytes(model.device)
    left, least = min(allowed - held, free) - kept, _least_cache_bytes(model, attention)
    if left < least:
        raise ConfigurationError(
            f"gpu_memory_utilization: {settings.gpu_memory_utilization:g} of the {total} bytes of {model.device} are "
            f"{allowed}. The weights take {held}, and {kept} are kept for steps and CUDA graphs; with {free} free, "
            f"nothing is left for keys and values, which need at least {least}",
            field="gpu_memory_utilization",
            limit=held + kept + least,
            requested=allowed,
        )
    return left


def batching_config(
    model: Any, max_batch_size: int, cache_bytes: int, *, window: int, attention: str, cuda_graphs: bool
) -> ContinuousBatchingConfig:
    """Returns the configuration of continuous batching, sized by the most requests and the memory for the cache.

    Args:
        model: A transformers model.
        max_batch_size: The most requests in a batch.
        cache_bytes: The memory that the cache may take; it takes less where a full batch of full context windows does.
        window: The most tokens that one request may have.
        attention: The name of the attention implementation.
        cuda_graphs: Whether decode steps are captured, if the attention implementation allows it.

    Raises:
        ConfigurationError: If the memory is too little for the smallest cache, or not there; the message names both
            sizes.
        ValueError: If transformers cannot batch the model.
    """
    on_gpu = model.device.type == "cuda"
    page = _page(attention)
    block_bytes, sector_bytes = _unit_bytes(model, page)
    if cache_bytes < (least := _least_cache_bytes(model, attention)):
        raise ConfigurationError(
            f"kv_cache_bytes: {cache_bytes} bytes are too few for the keys and values of this model, "
            f"which need at least {least}",
            field="kv_cache_bytes",
            limit=least,
            requested=cache_bytes,
        )
    blocks = (cache_bytes // sector_bytes - _PADDING_SECTORS) * sector_bytes // block_bytes
    blocks = min(blocks, max_batch_size * -(-window // page))
    needed = (-(-blocks * block_bytes // sector_bytes) + _PADDING_SECTORS) * sector_bytes
    if needed > (free := free_bytes(model.device)):
        raise ConfigurationError(
            f"kv_cache_bytes: the cache of keys and values would take {needed} bytes, and {free} are free on "
            f"{model.device}",
            field="kv_cache_bytes",
            limit=free,
            requested=needed,
        )
    return ContinuousBatchingConfig(
        page_size=page,
        num_blocks=blocks,
        # transformers' own check counts a mask that our attention does not make, and asks the current GPU alone.
        max_memory_percent=_UNCHECKED,
        max_batch_tokens=max(max_batch_size, _BATCH_TOKENS["cuda" if on_gpu else "cpu"]),
        max_requests_per_batch=max_batch_size,
        max_blocks_per_request=-(-window // page) if is_flash(attention) else 0,
        use_async_batching=False,
        # Prompts are of any length; a step that reads one is never captured.
        use_cuda_graph=(False, cuda_graphs and captures_decode(attention)),
        scheduler_type=SCHEDULER,
    )


def _page(attention: str) -> int:
    return _FLASH_PAGE if is_flash(attention) else _PAGE


def _least_cache_bytes(model: Any, attention: str) -> int:
    """Returns the bytes of the smallest cache."""
    _, sector_bytes = _unit_bytes(model, _page(attention))
    return (_LEAST_SECTORS + _PADDING_SECTORS) * sector_bytes


def _step_bytes(model: Any, max_batch_size: int) -> int:
    """Returns the bytes that a step takes beside weights and cache, generously.

    They are the numbers of one layer for each new token, and for each request its logits: in the model's precision, in
    float32, kept, and what the sampler makes of them.
    """
    config = model.config.get_text_config(decoder=True)
    hidden = config.hidden_size
    wide = max(getattr(config, "intermediate_size", None) or 0, 4 * hidden)
    tokens = max(max_batch_size, _BATCH_TOKENS["cuda"])
    return int(tokens * (8 * hidden + 3 * wide) * model.dtype.itemsize + max_batch_size * config.vocab_size * 16)


def _unit_bytes(model: Any, page: int) -> tuple[int, int]:
    """Returns the bytes of a block, which is a page of each layer, and of a sector, by which memory is given out.

    A sector holds whole blocks of the layers of every kind, such as those with a sliding window.
    """
    config = model.config.get_text_config(decoder=True)
    page_bytes = 2 * page * find_num_key_value_heads(config) * find_head_dim(config) * model.dtype.itemsize
    kinds = [len(layers) for layers in group_layers_by_attn_type(config).values()]
    sector_bytes = math.lcm(*(layers * page_bytes for layers in kinds), _ALIGNMENT)
    return page_bytes * config.num_hidden_layers, sector_bytes
