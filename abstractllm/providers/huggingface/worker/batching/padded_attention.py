"""Attention over pages of the cache by PyTorch's own operations: several sequences at once, padded to one length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from abstractllm.providers.huggingface.worker.batching.cache_layout import DecodeChunk, GroupStep, LayerStep, Prompts
from abstractllm.providers.huggingface.worker.device_tensors import to_device

__all__ = ["Scoring", "attend_decoding", "attend_prompts", "decode_chunks", "gather_prompts"]

_CHUNK_BYTES = 4 << 20
"""Keys and values that are gathered at once, if they are of several sequences: so many stay in a processor's cache.

Measured with 64 sequences of 128 to 4,096 tokens: 1 to 8 MiB take about the same time, all at once up to 1.4 times as
long."""
_MOST_PADDING = 2
"""The most by which padding may multiply the tokens of a chunk."""
_SCORE_BYTES = 64 << 20
"""Scores, or masks, of prompts that are computed at once."""


@dataclass(frozen=True)
class Scoring:
    """The way in which scores are made of queries and keys."""

    scaling: float | None = None
    """The factor of the scores; one over the root of the head size where there is none."""
    softcap: float | None = None
    """Bounds the scores by `softcap * tanh(score / softcap)` (Gemma 2)."""
    sinks: torch.Tensor | None = None
    """`[heads]`: a score beside those of the keys, which takes its share of the weights (GPT-OSS)."""

    @property
    def is_plain(self) -> bool:
        """Tells whether the scores are neither capped nor have sinks beside them."""
        return self.softcap is None and self.sinks is None


def decode_chunks(
    table: np.ndarray, lengths: np.ndarray, page: int, head_bytes: int, heads: int, like: torch.Tensor
) -> list[DecodeChunk]:
    """Divides sequences with one new token each into those that are attended in one padded call.

    Args:
        table: `[sequences, pages of a sequence]`: their pages, padded with a page of zeros; int32.
        lengths: `[sequences]`: the tokens that each sees, in ascending order.
        page: Tokens of a page.
        head_bytes: The bytes of one token's key of one head.
        heads: Key heads.
        like: A tensor of the device and the type that the masks are to have.
    """
    most_tokens = _CHUNK_BYTES // (2 * head_bytes * heads)
    longest = int(-(-lengths[-1] // page) * page)
    head_pages = to_device(
        table[:, None, : longest // page] * heads + np.arange(heads, dtype=table.dtype)[:, None], like.device
    )
    rows = np.zeros((len(lengths), longest), np.float32)
    for row, length in zip(rows, lengths.tolist(), strict=True):
        row[length:] = -np.inf
    masks = to_device(rows, like.device).to(like.dtype)
    page_counts = -(-lengths // page)
    chunks = []
    for begin, end in _similar((page_counts * page).tolist(), most_tokens):
        pages = int(page_counts[end - 1])
        mask = masks[begin:end, None, None, : pages * page]
        chunks.append(DecodeChunk(begin, end, head_pages[begin:end, :, :pages].reshape(-1), mask))
    return chunks


def _similar(lengths: Sequence[int], most_tokens: int) -> Iterator[tuple[int, int]]:
    """Yields where runs of lengths begin and end, each of which can be padded to its longest one."""
    begin = total = longest = 0
    for index, length in enumerate(lengths):
        longest, total = max(longest, length), total + length
        padded = (index - begin + 1) * longest
        if index > begin and (padded > most_tokens or padded > _MOST_PADDING * total):
            yield begin, index
            begin, total, longest = index, length, length
    if len(lengths):
        yield begin, len(lengths)


def attend_decoding(query: torch.Tensor, layer: LayerStep, scoring: Scoring) -> torch.Tensor:
    """Attends the new token of each sequence that has one to all its keys, which the cache holds.

    Args:
        query: `[1, heads, sequences, head size]`.
        layer: The layer.
        scoring: How scores are made.

    Returns:
        `[1, sequences, heads, head size]`.
    """
    _, heads, count, size = query.shape
    key_heads = layer.pages.keys.shape[1]
    by_sequence = query.permute(2, 1, 0, 3)
    outputs = []
    for chunk in layer.group.chunks:
        shape = (chunk.end - chunk.begin, key_heads, -1, size)
        key, value = (copy.view(shape) for copy in layer.group.buffers.gather(layer.pages, chunk.head_pages))
        outputs.append(_attend(by_sequence[chunk.begin : chunk.end], key, value, chunk.mask, scoring))
    output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return output.reshape(1, count, heads, size)


def gather_prompts(key: torch.Tensor, value: torch.Tensor, layer: LayerStep) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns all keys and values that the new tokens of prompts see, sequence by sequence, in their order.

    To be called before they are put into the cache: in a ring of slots they take the place of some of them.

    Args:
        key: `[1, key heads, new tokens, head size]`.
        value: As `key`.
        layer: The layer.

    Returns:
        Keys and values, each `[cached and new tokens, key heads, head size]`.
    """
    prompts = layer.group.prompts
    assert prompts is not None
    new = [each[0].transpose(0, 1) for each in (key, value)]
    reads = prompts.reads
    if reads is None:
        return new[0], new[1]
    gathered = []
    tokens = sum(prompts.lengths) + sum(prompts.cached)
    for rows, of_new in zip(layer.pages.rows, new, strict=True):
        packed = of_new.new_empty((tokens, *of_new.shape[1:]))
        cached = torch.index_select(rows, 0, reads.rows)
        packed.index_copy_(0, reads.places, cached.view(-1, *of_new.shape[1:]))
        packed.index_copy_(0, reads.new_places, of_new)
        gathered.append(packed)
    return gathered[0], gathered[1]


def attend_prompts(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, group: GroupStep, scoring: Scoring
) -> torch.Tensor:
    """Attends the new tokens of prompts: several at once of which the cache holds nothing, others one by one.

    Args:
        query: `[1, heads, new tokens, head size]`.
        keys: `[cached and new tokens, key heads, head size]`, as `gather_prompts` gives them.
        values: As `keys`.
        group: The step.
        scoring: How scores are made.

    Returns:
        `[1, new tokens, heads, head size]`.
    """
    prompts = group.prompts
    assert prompts is not None
    queries = query[0].transpose(0, 1)
    outputs: list[torch.Tensor] = []
    query_begin = key_begin = 0
    for first, last in _prompt_runs(prompts):
        lengths = prompts.lengths[first:last]
        query_end = query_begin + sum(lengths)
        key_end = key_begin + sum(lengths) + sum(prompts.cached[first:last])
        longest, visible = max(lengths), max(lengths) + prompts.cached[first]
        is_even = len(set(lengths)) == 1
        rows = None if is_even else to_device(_padded_rows(lengths, longest), query.device)
        output = _attend_causally(
            _by_sequence(queries[query_begin:query_end], rows, len(lengths), longest),
            _by_sequence(keys[key_begin:key_end], rows, len(lengths), visible),
            _by_sequence(values[key_begin:key_end], rows, len(lengths), visible),
            group,
            scoring,
        )
        tokens = output.transpose(1, 2).reshape(-1, *queries.shape[1:])
        outputs.append(tokens if is_even else tokens[to_device(_real_rows(lengths, longest), query.device)])
        query_begin, key_begin = query_end, key_end
    return torch.cat(outputs).unsqueeze(0) if len(outputs) > 1 else outputs[0].unsqueeze(0)


def _prompt_runs(prompts: Prompts) -> Iterator[tuple[int, int]]:
    """Yields where runs of prompts begin and end that are attended at once."""
    begin, count = 0, len(prompts.lengths)
    while begin < count:
        end = begin
        while end < count and not prompts.cached[end]:
            end += 1
        if end == begin:
            yield begin, begin + 1
            begin += 1
        else:
            for first, last in _similar(prompts.lengths[begin:end], sum(prompts.lengths) * _MOST_PADDING):
                yield begin + first, begin + last
            begin = end


def _padded_rows(lengths: Sequence[int], longest: int) -> np.ndarray:
    """Returns `[sequences * longest]`: the row of each token, and the last one's row for those that pad."""
    sizes = np.array(lengths)
    places: np.ndarray = np.minimum(np.arange(longest), sizes[:, None] - 1) + (sizes.cumsum() - sizes)[:, None]
    return places.reshape(-1)


def _real_rows(lengths: Sequence[int], longest: int) -> np.ndarray:
    """Returns `[tokens]`: the rows of tokens among those of `_padded_rows`."""
    return np.flatnonzero(np.arange(longest) < np.array(lengths)[:, None])


def _by_sequence(packed: torch.Tensor, rows: torch.Tensor | None, count: int, longest: int) -> torch.Tensor:
    """Returns `[sequences, heads, longest, head size]` of `[tokens, heads, head size]`."""
    padded = packed if rows is None else packed.index_select(0, rows)
    return padded.view(count, longest, *padded.shape[1:]).transpose(1, 2)


def _attend_causally(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, group: GroupStep, scoring: Scoring
) -> torch.Tensor:
    """Attends the last tokens of sequences to the keys before them, within the window."""
    count, heads, tokens, _ = query.shape
    visible, window = key.shape[2], group.window
    if scoring.is_plain and tokens == visible and (window is None or tokens <= window):
        return _attend(query, key, value, None, scoring, is_causal=True)
    of_each = visible * torch.float32.itemsize * (1 if scoring.is_plain else count * heads)
    step = max(1, _SCORE_BYTES // of_each)
    outputs = []
    for begin in range(0, tokens, step):
        end = min(begin + step, tokens)
        mask = group.masks.get((tokens, visible, begin))
        if mask is None:
            mask = _causal_mask(visible - tokens, begin, end, visible, window, query)
            if step >= tokens:  # otherwise all of them would take too much memory
                group.masks[tokens, visible, begin] = mask
        outputs.append(_attend(query[:, :, begin:end], key, value, mask, scoring))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)


def _causal_mask(
    cached: int, begin: int, end: int, visible: int, window: int | None, like: torch.Tensor
) -> torch.Tensor:
    """Returns `[1, 1, end - begin, visible]`: what is added to the scores of some new tokens."""
    distance = torch.arange(begin + cached, end + cached, device=like.device)[:, None] - torch.arange(
        visible, device=like.device
    )
    is_hidden = distance < 0
    if window is not None:
        is_hidden |= distance >= window
    mask = torch.zeros(is_hidden.shape, dtype=like.dtype, device=like.device)
    return mask.masked_fill_(is_hidden, -torch.inf)[None, None]


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scoring: Scoring,
    is_causal: bool = False,
) -> torch.Tensor:
    """Attends by PyTorch's function, or by a formula for scores that it does not know.

    Args:
        query: `[sequences, heads, tokens, head size]`.
        key: `[sequences, key heads, keys, head size]`.
        value: As `key`.
        mask: `[sequences or 1, 1, tokens, keys]`: added to the scores.
        scoring: How scores are made.
        is_causal: Whether each token sees those before it; there are as many keys then.

    Returns:
        `[sequences, heads, tokens, head size]`.
    """
    count, heads, tokens, size = query.shape
    key_heads = key.shape[1]
    if scoring.is_plain:
        if tokens == 1:
            # The heads that share a key head take the place of the tokens, so that no keys have to be repeated.
            packed = query.reshape(count, key_heads, heads // key_heads, size)
            output = scaled_dot_product_attention(packed, key, value, attn_mask=mask, scale=scoring.scaling)
            return output.reshape(count, heads, 1, size)
        return scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            scale=scoring.scaling,
            is_causal=is_causal,
            enable_gqa=heads != key_heads,
        )
    grouped = (count, key_heads, heads // key_heads, tokens)
    scores = query.reshape(count, key_heads, -1, size) @ key.transpose(2, 3)
    scores = scores.float() * (size**-0.5 if scoring.scaling is None else scoring.scaling)
    if scoring.softcap is not None:
        scores = torch.tanh(scores / scoring.softcap) * scoring.softcap
    scores = scores.view(*grouped, -1)
    if mask is not None:
        scores = scores + mask[:, :, None]
    if scoring.sinks is not None:
        sinks = scoring.sinks.view(1, key_heads, -1, 1, 1).float().expand(*grouped, 1)
        scores = torch.cat((scores, sinks), dim=-1)
    weights = scores.softmax(dim=-1)[..., : key.shape[2]].to(query.dtype)
    return (weights.flatten(2, 3) @ value).reshape(query.shape)
