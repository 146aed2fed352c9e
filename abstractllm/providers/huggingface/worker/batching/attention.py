"""Attention over a paged cache, sequence by sequence: for a CPU.

The attention that continuous batching uses without flash attention builds one dense mask over all sequences of a batch,
so that each computes its scores against the keys of all others. Here each sequence meets only its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

__all__ = ["PAGED_ATTENTION", "register"]

PAGED_ATTENTION = "abstractllm_paged"
"""The name under which transformers' models find it."""


def register() -> None:
    """Makes the implementation known to transformers."""
    AttentionInterface.register(PAGED_ATTENTION, paged_attention)


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
        key: `[1, key heads, query tokens of all sequences, head size]`; what is in the cache is put before it.
        value: As `key`.
        attention_mask: Not used: the order of the tokens says what each may see.
        scaling: What the scores are multiplied by.
        softcap: Bounds the scores by `softcap * tanh(score / softcap)` (Gemma 2).
        sliding_window: How many tokens, itself included, each may see; all before it if absent.
        s_aux: `[heads]`: attention sinks, a score beside those of the keys (GPT-OSS).
        **kwargs: What continuous batching hands down: the cache, and where sequences begin.

    Returns:
        `[1, query tokens, heads, head size]`, and no weights.
    """
    keys, values = kwargs["cache"].update(key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs)
    query_starts = kwargs["cu_seq_lens_q"].tolist()
    key_starts = kwargs["cu_seq_lens_k"].tolist()
    output = torch.empty_like(query)
    for index in range(len(query_starts) - 1):
        queries = slice(query_starts[index], query_starts[index + 1])
        own = slice(key_starts[index], key_starts[index + 1])
        output[:, :, queries] = _attend(
            query[:, :, queries], keys[:, :, own], values[:, :, own], scaling, softcap, sliding_window, s_aux
        )
    return output.transpose(1, 2).contiguous(), None


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    softcap: float | None,
    window: int | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """One sequence: its last `query` tokens against all its keys."""
    heads, tokens, key_heads, length = query.shape[1], query.shape[2], key.shape[1], key.shape[2]
    if tokens == 1 and softcap is None and sinks is None:
        if window is not None:
            key, value = key[:, :, -window:], value[:, :, -window:]
        # The heads that share a key head are put in the place of the tokens: nothing has to be repeated.
        packed = query.view(1, key_heads, heads // key_heads, -1)
        return scaled_dot_product_attention(packed, key, value, scale=scaling).view(query.shape)
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
