"""Attention of decode steps that reads the pages of the cache where they are.

Each sequence has one new token. Copying its keys and values out of their pages first, as is done for prompts, would
move every byte three times. The kernel also puts the new keys and values into the cache. Its sizes depend on the number
of sequences alone, never on their lengths, so that a CUDA graph can hold it.

The keys of a sequence are divided into splits, which are attended in parallel and joined afterwards, as in
"Flash-Decoding for long-context inference" (Dao et al., 2023).
"""

from __future__ import annotations

import torch
import triton
from triton import language as tl

__all__ = ["paged_decode"]

_BLOCK = 64
"""Keys that are read together."""
_PROGRAMS = 528
"""The least number of programs that keep a large GPU busy: four for each of 132 processors."""
_MOST_SPLITS = 16
_LEAST_ROWS = 16
"""The least number of rows of a matrix product in Triton."""
_NOTHING = tl.constexpr(-1e30)
"""A score that no key has."""


def paged_decode(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    block_table: torch.Tensor,
    lengths: torch.Tensor,
    slots: torch.Tensor,
    scaling: float | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attends the new token of each sequence to all its keys, and puts its own key and value into the cache.

    Args:
        query: `[sequences, heads, head size]`.
        key: `[sequences, key heads, head size]`: the keys of the new tokens.
        value: As `key`.
        key_pages: `[pages, key heads, tokens of a page, head size]`; changed.
        value_pages: As `key_pages`, with the same strides; changed.
        block_table: `[sequences, pages of a sequence]`, int32: the pages of each sequence, in the order of their slots.
        lengths: `[sequences]`, int32: the slots of each sequence that are read, from its first on, the new token's
            included. A sequence of length 0 has no query: it is there to fill a captured graph.
        slots: `[sequences]`, int32: the slot of each new token, whose earlier content is not read. It is the last one,
            or any other where the pages of a sequence are a ring.
        scaling: The factor of the scores; one over the root of the head size where there is none.
        softcap: Bounds the scores by `softcap * tanh(score / softcap)`.
        sinks: `[heads]`: a score beside those of the keys, which takes its share of the weights.

    Returns:
        `[sequences, heads, head size]`; zeros for a sequence of length 0.
    """
    sequences, heads, size = query.shape
    key_heads = key.shape[1]
    splits = min(_MOST_SPLITS, max(1, -(-_PROGRAMS // (sequences * key_heads))))
    output = torch.empty_like(query)
    partial = torch.empty((splits, sequences, heads, size), dtype=torch.float32, device=query.device)
    weights = torch.empty((2, splits, sequences, heads), dtype=torch.float32, device=query.device)
    group = heads // key_heads
    padded_size = max(_LEAST_ROWS, triton.next_power_of_2(size))
    _attend_split[(sequences, key_heads, splits)](
        query,
        key,
        value,
        key_pages,
        value_pages,
        block_table,
        lengths,
        slots,
        partial,
        weights,
        query.stride(0),
        query.stride(1),
        key.stride(0),
        key.stride(1),
        value.stride(0),
        value.stride(1),
        key_pages.stride(0),
        key_pages.stride(2),
        key_pages.stride(1),
        block_table.stride(0),
        size**-0.5 if scaling is None else scaling,
        softcap or 0.0,
        sequences,
        splits,
        HEADS=heads,
        GROUP=group,
        ROWS=max(_LEAST_ROWS, triton.next_power_of_2(group)),
        SIZE=size,
        PADDED_SIZE=padded_size,
        PAGE=key_pages.shape[2],
        BLOCK=_BLOCK,
        PRECISION="ieee" if query.dtype == torch.float32 else "tf32",
        num_warps=4,
    )
    _join_splits[(sequences, heads)](
        partial,
        weights,
        query if sinks is None else sinks,
        output,
        output.stride(0),
        output.stride(1),
        sequences,
        splits,
        HEADS=heads,
        SIZE=size,
        PADDED_SIZE=padded_size,
        MOST_SPLITS=_MOST_SPLITS,
        HAS_SINKS=sinks is not None,
        num_warps=4,
    )
    return output


@triton.jit
def _attend_split(
    query,
    key,
    value,
    key_pages,
    value_pages,
    block_table,
    lengths,
    slots,
    partial,
    weights,
    query_row,
    query_head,
    key_row,
    key_head,
    value_row,
    value_head,
    page_stride,
    token_stride,
    head_stride,
    table_row,
    scaling,
    softcap,
    sequences,
    splits,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED_SIZE: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Attends the heads of one sequence that share a key head to one split of its keys."""
    sequence, shared_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length, slot = tl.load(lengths + sequence), tl.load(slots + sequence)
    places = tl.arange(0, PADDED_SIZE)
    in_size = places < SIZE
    rows = tl.arange(0, ROWS)
    in_group = rows < GROUP
    queries = tl.load(
        query + sequence * query_row + (shared_head * GROUP + rows)[:, None] * query_head + places[None, :],
        mask=in_group[:, None] & in_size[None, :],
        other=0.0,
    )
    new_key = tl.load(key + sequence * key_row + shared_head * key_head + places, mask=in_size, other=0.0)
    new_value = tl.load(value + sequence * value_row + shared_head * value_head + places, mask=in_size, other=0.0)
    step = tl.cdiv(tl.cdiv(length, splits), BLOCK) * BLOCK
    begin = split * step
    end = tl.minimum(begin + step, length)
    best = tl.full((ROWS,), _NOTHING, tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    summed = tl.zeros((ROWS, PADDED_SIZE), tl.float32)
    for start in range(begin, end, BLOCK):
        tokens = start + tl.arange(0, BLOCK)
        in_split = tokens < end
        is_new = tokens == slot
        is_cached = in_split & (tokens != slot)
        pages = tl.load(block_table + sequence * table_row + tokens // PAGE, mask=is_cached, other=0).to(tl.int64)
        offsets = pages * page_stride + (tokens % PAGE) * token_stride + shared_head * head_stride
        in_cache = is_cached[:, None] & in_size[None, :]
        keys = tl.load(key_pages + offsets[:, None] + places[None, :], mask=in_cache, other=0.0)
        keys = tl.where(is_new[:, None], new_key[None, :], keys)
        scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scaling
        if softcap > 0.0:
            # tanh(x) = 2 / (1 + exp(-2 x)) - 1
            scores = softcap * (2.0 / (1.0 + tl.exp(-2.0 * scores / softcap)) - 1.0)
        scores = tl.where(in_split[None, :], scores, _NOTHING)
        new_best = tl.maximum(best, tl.max(scores, axis=1))
        share = tl.where(in_split[None, :], tl.exp(scores - new_best[:, None]), 0.0)
        shrink = tl.exp(best - new_best)
        values = tl.load(value_pages + offsets[:, None] + places[None, :], mask=in_cache, other=0.0)
        values = tl.where(is_new[:, None], new_value[None, :], values)
        total = total * shrink + tl.sum(share, axis=1)
        summed = summed * shrink[:, None] + tl.dot(share.to(values.dtype), values, input_precision=PRECISION)
        best = new_best
    if (split == 0) & (length > 0):
        # No program reads this place.
        page = tl.load(block_table + sequence * table_row + slot // PAGE).to(tl.int64)
        place = page * page_stride + (slot % PAGE) * token_stride + shared_head * head_stride
        tl.store(key_pages + place + places, new_key, mask=in_size)
        tl.store(value_pages + place + places, new_value, mask=in_size)
    row = (split * sequences + sequence) * HEADS + shared_head * GROUP + rows
    tl.store(partial + row[:, None] * SIZE + places[None, :], summed, mask=in_group[:, None] & in_size[None, :])
    tl.store(weights + row, best, mask=in_group)
    tl.store(weights + splits * sequences * HEADS + row, total, mask=in_group)


@triton.jit
def _join_splits(
    partial,
    weights,
    sinks,
    output,
    output_row,
    output_head,
    sequences,
    splits,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED_SIZE: tl.constexpr,
    MOST_SPLITS: tl.constexpr,
    HAS_SINKS: tl.constexpr,
):
    """Joins what the splits of one sequence have given for one head."""
    sequence, head = tl.program_id(0), tl.program_id(1)
    places = tl.arange(0, MOST_SPLITS)
    in_splits = places < splits
    rows = (places * sequences + sequence) * HEADS + head
    best = tl.load(weights + rows, mask=in_splits, other=_NOTHING)
    total = tl.load(weights + splits * sequences * HEADS + rows, mask=in_splits, other=0.0)
    highest = tl.max(best, axis=0)
    if HAS_SINKS:
        highest = tl.maximum(highest, tl.load(sinks + head).to(tl.float32))
    share = tl.where(total > 0.0, tl.exp(best - highest), 0.0)
    weight = tl.sum(total * share, axis=0)
    if HAS_SINKS:
        weight += tl.exp(tl.load(sinks + head).to(tl.float32) - highest)
    places = tl.arange(0, PADDED_SIZE)
    in_size = places < SIZE
    summed = tl.load(
        partial + rows[:, None] * SIZE + places[None, :], mask=in_splits[:, None] & in_size[None, :], other=0.0
    )
    joined = tl.sum(summed * share[:, None], axis=0) / tl.where(weight > 0.0, weight, 1.0)
    joined = joined.to(output.dtype.element_ty)
    tl.store(output + sequence * output_row + head * output_head + places, joined, mask=in_size)
