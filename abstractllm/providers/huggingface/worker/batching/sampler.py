"""Drawing the next tokens of a batch in which every request has its own settings.

The order is that of transformers' own processors: bias, penalties, what an answer's format forbids, temperature, top-k,
top-p, min-p. A token is drawn by inverting the cumulative distribution at one random number, which depends on the
request's seed and position alone, so that what a request draws does not depend on its neighbours. Nothing sorts the
whole vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from abstractllm.providers.huggingface.worker.batching.settings import Row, uniform
from abstractllm.providers.huggingface.worker.grammar import forbid

__all__ = ["draw"]

_SMALL_K = 256
"""Rows with at most this top-k are cut together; one huge top-k must not slow them."""
_NUCLEUS_K = 256
"""The likeliest tokens in which a nucleus is looked for first."""
_BLOCK = 128
"""Tokens that are summed together before one of them is drawn."""


def draw(logits: torch.Tensor, rows: Sequence[Row]) -> list[int]:
    """Draws one token for each row, and notes it in the row.

    Args:
        logits: `[rows, vocabulary]`, float32, the model's raw ones; overwritten.
        rows: The requests, in the order of the logits.

    Returns:
        The token ids.
    """
    reporting = [index for index, row in enumerate(rows) if row.logprobs is not None]
    raw = torch.log_softmax(logits[reporting], dim=-1) if reporting else None
    changed = [index for index, row in enumerate(rows) if row.changes_logits]
    if changed:
        _change(logits, rows, changed)
    held = [(index, row.matcher) for index, row in enumerate(rows) if row.matcher is not None]
    if held:
        forbid(logits, [matcher for _, matcher in held], [index for index, _ in held])
    tokens: torch.Tensor = logits.argmax(dim=-1)
    sampled = [index for index, row in enumerate(rows) if row.temperature > 0]
    for group in _groups(rows, sampled, logits.shape[1]):
        tokens[group] = _sample(logits, [rows[index] for index in group], group)
    drawn: list[int] = tokens.tolist()
    for place, index in enumerate(reporting):
        assert raw is not None
        count = min(rows[index].logprobs or 0, raw.shape[1])
        likeliest = raw[place].topk(count)
        rows[index].report = (
            raw[place, drawn[index]].item(),
            likeliest.indices.tolist(),
            likeliest.values.tolist(),
        )
    for row, token in zip(rows, drawn, strict=True):
        row.took(token)
    return drawn


def _change(logits: torch.Tensor, rows: Sequence[Row], changed: Sequence[int]) -> None:
    """Applies bias and penalties in place; only the tokens that they concern are touched."""
    for index in changed:
        row, values = rows[index], logits[index]
        if row.bias:
            ids = torch.tensor(list(row.bias), device=logits.device)
            values.index_add_(0, ids, torch.tensor(list(row.bias.values()), device=logits.device))
        if row.counts is not None and len(row.counts.tokens):
            ids = torch.from_numpy(row.counts.tokens).to(logits.device)
            generated = torch.from_numpy(row.counts.generated).to(logits.device)
            found = values[ids]
            if row.repetition != 1.0:
                found = torch.where(found < 0, found * row.repetition, found / row.repetition)
            values[ids] = found - row.frequency * generated - row.presence * (generated > 0)


def _groups(rows: Sequence[Row], sampled: Sequence[int], vocabulary: int) -> list[list[int]]:
    """Rows that are cut in the same way: small top-k, large top-k, nucleus, whole vocabulary."""
    kinds: dict[str, list[int]] = {}
    for index in sampled:
        row = rows[index]
        if 0 < row.top_k < vocabulary:
            kind = "small" if row.top_k <= _SMALL_K else "large"
        else:
            kind = "nucleus" if row.top_p < 1 else "whole"
        kinds.setdefault(kind, []).append(index)
    return list(kinds.values())


def _sample(logits: torch.Tensor, rows: Sequence[Row], group: Sequence[int]) -> torch.Tensor:
    """Draws for rows of one kind."""
    scores = logits if len(group) == len(logits) else logits[torch.tensor(group, device=logits.device)]
    # At a tiny temperature the division could overflow: the best token is put at zero first, which changes no
    # probability.
    scores = scores - scores.amax(dim=-1, keepdim=True)
    scores = scores / _column([row.temperature for row in rows], scores)
    vocabulary = scores.shape[1]
    top_p = _column([row.top_p for row in rows], scores)
    if 0 < rows[0].top_k < vocabulary:
        largest = max(row.top_k for row in rows)
        values, ids = scores.topk(largest)
        place = torch.arange(largest, device=scores.device)
        values = values.masked_fill(place >= _column([row.top_k for row in rows], scores), -math.inf)
        values = _keep_nucleus(values, values.logsumexp(dim=-1, keepdim=True), top_p)
        return ids.gather(1, _invert(_keep_likely(values, rows), _chances(rows, scores.device))).squeeze(1)
    if rows[0].top_p < 1:
        return _sample_nucleus(scores, rows, top_p)
    return _invert(_keep_likely(scores, rows), _chances(rows, scores.device)).squeeze(1)


def _sample_nucleus(scores: torch.Tensor, rows: Sequence[Row], top_p: torch.Tensor) -> torch.Tensor:
    """Draws from nuclei.

    Most lie within the likeliest tokens. Where one does not, tokens are drawn from the whole vocabulary until one lies
    in the nucleus, that is, until those likelier than it have less than `top_p` together: at least every `1 / top_p`-th
    does, and nothing has to be sorted.
    """
    total = scores.logsumexp(dim=-1, keepdim=True)
    values, ids = scores.topk(min(_NUCLEUS_K, scores.shape[1]))
    lies_within = ((values - total).exp().sum(dim=-1, keepdim=True) >= top_p).squeeze(1)
    kept = _keep_likely(_keep_nucleus(values, total, top_p), rows)
    tokens = ids.gather(1, _invert(kept, _chances(rows, scores.device))).squeeze(1)
    left = (~lies_within).nonzero().squeeze(1)
    tries = 0
    while len(left):
        wide, owners = scores[left], [rows[index] for index in left.tolist()]
        drawn = _invert(_keep_likely(wide, owners), _chances(owners, scores.device, tries))
        mass = (wide - total[left]).exp()
        likelier = torch.where(wide > wide.gather(1, drawn), mass, 0.0).sum(dim=-1, keepdim=True)
        tokens[left] = drawn.squeeze(1)
        left = left[(likelier >= top_p[left]).squeeze(1)]
        tries += 1
    return tokens


def _keep_nucleus(values: torch.Tensor, total: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Masks what lies beyond the nucleus: a token stays if those likelier than it have less than `top_p` together.

    Args:
        values: `[rows, k]`, in descending order.
        total: `[rows, 1]`, the logarithm of the sum over the distribution that the nucleus is of.
        top_p: `[rows, 1]`.
    """
    mass = (values - total).exp()
    before = mass.cumsum(dim=-1) - mass
    before[:, 0] = 0
    return values.masked_fill((before >= top_p) & (top_p < 1), -math.inf)


def _keep_likely(values: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    """Masks what is less likely than `min_p` times the likeliest token."""
    if not any(row.min_p > 0 for row in rows):
        return values
    limits = _column([math.log(row.min_p) if row.min_p > 0 else -math.inf for row in rows], values)
    return values.masked_fill(values < values.amax(dim=-1, keepdim=True) + limits, -math.inf)


def _invert(values: torch.Tensor, chances: torch.Tensor) -> torch.Tensor:
    """Draws from the distributions of masked scores.

    First a block of tokens is found, then the token in it: sums over blocks are cheaper than running sums. Running
    sums are in float64, since over a large vocabulary float32 would lose the tail. What is sought is kept below the
    last sum, so that a token without probability is never found.

    Args:
        values: `[rows, n]`, logarithms of weights; at least one in each row is finite.
        chances: `[rows, 1]`, float64, in [0, 1).

    Returns:
        `[rows, 1]`: a place in each row.
    """
    weights = (values - values.amax(dim=-1, keepdim=True)).exp()
    count = weights.shape[1]
    if count <= _BLOCK:
        sums = weights.cumsum(dim=-1, dtype=torch.float64)
        return torch.searchsorted(sums, _below(sums, chances * sums[:, -1:]), right=True)
    if count % _BLOCK:
        weights = pad(weights, (0, _BLOCK - count % _BLOCK))
    blocks = weights.view(len(weights), -1, _BLOCK)
    block_sums = blocks.sum(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    sought = _below(block_sums, chances * block_sums[:, -1:])
    block = torch.searchsorted(block_sums, sought, right=True)
    before = torch.where(block > 0, block_sums.gather(1, (block - 1).clamp(min=0)), 0.0)
    inside = blocks[torch.arange(len(blocks), device=block.device), block.squeeze(1)].cumsum(
        dim=-1, dtype=torch.float64
    )
    return block * _BLOCK + torch.searchsorted(inside, _below(inside, sought - before), right=True)


def _below(sums: torch.Tensor, sought: torch.Tensor) -> torch.Tensor:
    """What is sought, but less than the last sum."""
    total = sums[:, -1:]
    return torch.minimum(sought, torch.nextafter(total, torch.zeros_like(total)))


def _chances(rows: Sequence[Row], device: torch.device, tries: int = 0) -> torch.Tensor:
    """`[rows, 1]`: each row's random number for its next token; a further try has one of its own."""
    numbers = [uniform(row.seed, row.drawn + (tries << 40)) for row in rows]
    return torch.tensor(numbers, dtype=torch.float64, device=device).unsqueeze(1)


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device).unsqueeze(1)
