"""Attention over a paged cache that computes the scores of each sequence against its own keys only.

Without flash attention, transformers' continuous batching builds one dense mask over all sequences of a batch and
computes the scores of each against the keys of all. Here sequences are computed one after another, which any device can
do, or by PyTorch's own flash attention, in half precision on a GPU. There, decode steps read the pages of the cache
where they are, if all layers of the model have full attention.
"""

from __future__ import annotations

import inspect
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.generation.continuous_batching.cache import group_layers_by_attn_type
from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

__all__ = ["IN_PLACE_ATTENTION", "PAGED_ATTENTION", "VARLEN_ATTENTION", "candidates", "is_flash", "register"]

PAGED_ATTENTION = "abstractllm_paged"
"""The name in transformers of the attention that takes sequences one after another."""
VARLEN_ATTENTION = "abstractllm_varlen"
"""The name in transformers of the attention by PyTorch's flash attention."""
IN_PLACE_ATTENTION = "abstractllm_in_place"
"""The name in transformers of the attention that reads the pages of the cache in decode steps."""
_ALL_KEYS = (-1, -1)
"""The window in which each token sees every key of its sequence."""


def register() -> None:
    """Registers the implementations with transformers."""
    AttentionInterface.register(PAGED_ATTENTION, paged_attention)
    AttentionInterface.register(VARLEN_ATTENTION, varlen_attention)
    AttentionInterface.register(IN_PLACE_ATTENTION, in_place_attention)


def is_flash(name: str) -> bool:
    """Tells whether an implementation is of a flash attention package, which reads the pages of the cache itself."""
    return name.startswith("flash_attention_")


def candidates(model: Any, cuda_graphs: bool | None) -> list[str]:
    """Returns the attention implementations to try for a batch, the fastest first; only packages that are installed.

    Args:
        model: A transformers model.
        cuda_graphs: Whether CUDA graphs must be used; None for where they can be. An implementation that needs the host
            between its kernels is left out where they must.
    """
    names: list[str] = []
    if model.device.type == "cuda" and model.dtype in (torch.float16, torch.bfloat16):
        if model._supports_flash_attn:
            installed = {
                "flash_attention_3": is_flash_attn_3_available(),
                "flash_attention_2": is_flash_attn_2_available(),
            }
            names += [name for name, is_installed in installed.items() if is_installed]
        if find_spec("triton") and _is_attention_full(model):
            names.append(IN_PLACE_ATTENTION)
        names.append(VARLEN_ATTENTION)
    return names if cuda_graphs else [*names, PAGED_ATTENTION]


def _is_attention_full(model: Any) -> bool:
    """Tells whether each layer of a model attends to all tokens before: a ring of pages has no table in their order."""
    return list(group_layers_by_attn_type(model.config.get_text_config(decoder=True))) == ["full_attention"]


def paged_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attends each sequence to its own keys.

    Args:
        module: The attention layer.
        query: `[1, heads, query tokens of all sequences, head size]`.
        key: `[1, key heads, query tokens of all sequences, head size]`; the keys of the cache are put before it. With
            transformers 5.24 they are there already, `[1, key heads, key tokens of all sequences, head size]`.
        value: As `key`.
        attention_mask: Not used: each token sees those before it in its sequence.
        scaling: The factor of the scores.
        softcap: Bounds the scores by `softcap * tanh(score / softcap)` (Gemma 2).
        sliding_window: The number of tokens that each token sees, itself included; None for all before it.
        s_aux: `[heads]`: attention sinks, a score beside those of the keys (GPT-OSS).
        **kwargs: Passed on by continuous batching: the cache, and where sequences begin.

    Returns:
        `[1, query tokens, heads, head size]`, and no weights.
    """
    keys, values = _cached(module, key, value, kwargs)
    return _attend_in_turn(query, keys, values, kwargs, scaling, softcap, sliding_window, s_aux), None


def _attend_in_turn(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    kwargs: dict[str, Any],
    scaling: float | None,
    softcap: float | None,
    sliding_window: int | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attends one sequence after another."""
    query_lengths = _lengths(kwargs["cu_seq_lens_q"])
    key_lengths = _lengths(kwargs["cu_seq_lens_k"])
    sequences = zip(
        torch.split(query, query_lengths, dim=2),
        torch.split(keys, key_lengths, dim=2),
        torch.split(values, key_lengths, dim=2),
        strict=True,
    )
    outputs = [_attend(*sequence, scaling, softcap, sliding_window, sinks) for sequence in sequences]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous()


def varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attends each sequence to its own keys, all sequences in one kernel; see `paged_attention`.

    Raises:
        ValueError: For a model with capped scores or attention sinks, which the kernel does not support.
    """
    keys, values = _cached(module, key, value, kwargs)
    return _attend_together(query, keys, values, kwargs, scaling, softcap, sliding_window, s_aux), None


def in_place_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attends each sequence to its own keys, in decode steps to those in the pages of the cache; see `paged_attention`.

    Raises:
        ValueError: As `varlen_attention`, in other steps.
    """
    keys, values = _cached(module, key, value, kwargs)
    if kwargs.get("block_table") is None:
        attend = _attend_together if query.device.type == "cuda" else _attend_in_turn
        return attend(query, keys, values, kwargs, scaling, softcap, sliding_window, s_aux), None
    from abstractllm.providers.huggingface.worker.batching.paged_decode import paged_decode  # only where Triton is

    output = paged_decode(
        query[0].transpose(0, 1),
        keys[0].transpose(0, 1),
        values[0].transpose(0, 1),
        kwargs["k_cache"],
        kwargs["v_cache"],
        kwargs["block_table"],
        kwargs["cu_seq_lens_k"],
        scaling=scaling,
        softcap=softcap,
        window=sliding_window,
        sinks=s_aux,
    )
    return output.unsqueeze(0), None


def _attend_together(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    kwargs: dict[str, Any],
    scaling: float | None,
    softcap: float | None,
    sliding_window: int | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attends all sequences in one kernel."""
    if softcap is not None or sinks is not None:
        raise ValueError("PyTorch's flash attention has neither capped scores nor attention sinks")
    output = varlen_attn(
        query[0].transpose(0, 1),
        keys[0].transpose(0, 1),
        values[0].transpose(0, 1),
        kwargs["cu_seq_lens_q"],
        kwargs["cu_seq_lens_k"],
        kwargs["max_length_q"],
        kwargs["max_length_k"],
        scale=scaling,
        window_size=_window(kwargs["max_length_q"], sliding_window),
        **_varlen_options(),
    )
    assert isinstance(output, torch.Tensor)
    return output.unsqueeze(0)


@cache
def _varlen_options() -> dict[str, Any]:
    """Returns what allows heads to share key heads: nothing in PyTorch 2.11, which always does, a switch after it."""
    return {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


def _cached(
    module: torch.nn.Module, key: torch.Tensor, value: torch.Tensor, kwargs: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Puts the keys and values of the new tokens into the cache, and returns those of all tokens of the sequences.

    Since transformers 5.24 each layer of a model does so itself, before its attention, and no cache is passed on.
    """
    if "cache" not in kwargs:
        return key, value
    cached: tuple[torch.Tensor, torch.Tensor] = kwargs["cache"].update(
        key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs
    )
    return cached


def _window(longest_query: int, sliding_window: int | None) -> tuple[int, int]:
    """Returns the tokens to the left and to the right, without itself, that a token sees; -1 is all of them.

    The one new token of a sequence sees every key that is read for it, since the cache reads no more than a window of
    them. A kernel that masks nothing may split the keys of a sequence among more of the device's processors.
    """
    if longest_query == 1:
        return _ALL_KEYS
    return (-1 if sliding_window is None else sliding_window - 1, 0)


def _lengths(starts: torch.Tensor) -> list[int]:
    """Returns the length of each sequence, from the places where each begins and the last one ends."""
    return [end - begin for begin, end in pairwise(starts.tolist())]


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    softcap: float | None,
    window: int | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attends one sequence: the tokens of `query`, its last ones, to all its keys."""
    heads, tokens, key_heads, length = query.shape[1], query.shape[2], key.shape[1], key.shape[2]
    if tokens == 1 and softcap is None and sinks is None:
        if window is not None:
            key, value = key[:, :, -window:], value[:, :, -window:]
        # The heads that share a key head take the place of the tokens, so that no keys have to be repeated.
        packed = query.view(1, key_heads, heads // key_heads, -1)
        return scaled_dot_product_attention(packed, key, value, scale=scaling).reshape(query.shape)
    if heads != key_heads:
        key = key.repeat_interleave(heads // key_heads, dim=1)
        value = value.repeat_interleave(heads // key_heads, dim=1)
    window = length if window is None else min(window, length)
    if softcap is None and sinks is None and tokens == length == window:
        return scaled_dot_product_attention(query, key, value, scale=scaling, is_causal=True)
    distance = torch.arange(length - tokens, length, device=query.device)[:, None] - torch.arange(
        length, device=query.device
    )
    visible = (distance >= 0) & (distance < window)
    if softcap is None and sinks is None:
        return scaled_dot_product_attention(query, key, value, attn_mask=visible, scale=scaling)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
    if sinks is not None:
        scores = torch.cat((scores, sinks.view(1, -1, 1, 1).expand(1, heads, tokens, 1)), dim=-1)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return weights[..., :length] @ value
