"""Drawing the next tokens of a batch in which every request has its own settings.

The order is that of transformers' own processors: bias, penalties, what an answer's format forbids, temperature, top-k,
top-p, min-p. A token is drawn by inverting the cumulative distribution at one random number, which depends on the
request's seed and position alone, so that what a request draws does not depend on its neighbours. Nothing sorts the
whole vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import pad

from abstractllm.providers.huggingface.worker.batching.sampling_state import SamplingState, uniforms
from abstractllm.providers.huggingface.worker.structured.grammar import forbid

__all__ = ["draw"]

_SMALL_K = 256
"""Rows with at most this top-k are cut together; one huge top-k must not slow them."""
_NUCLEUS_K = 256
"""The likeliest tokens in which a nucleus is looked for first."""
_LEAST_SHARE = 1e-30
"""A smaller top-p, which float32 might hold as zero, keeps the likeliest token alone all the same."""
_BLOCK = 128
"""Tokens that are summed together before one of them is drawn."""
_STRIPE = 16
"""Values of which only the largest is looked at first."""


def draw(logits: torch.Tensor, rows: Sequence[SamplingState]) -> list[int]:
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
    tokens = torch.empty(len(rows), dtype=torch.long, device=logits.device)
    for kind, group in _groups(rows, logits.shape[1]).items():
        own = logits if len(group) == len(rows) else logits[group]
        tokens[group] = _DRAWING[kind](own, [rows[index] for index in group])
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


def _change(logits: torch.Tensor, rows: Sequence[SamplingState], changed: Sequence[int]) -> None:
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


def _groups(rows: Sequence[SamplingState], vocabulary: int) -> dict[str, list[int]]:
    """Rows that are drawn in the same way: greedy, small top-k, large top-k, nucleus, whole vocabulary."""
    kinds: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        if row.temperature == 0:
            kind = "greedy"
        elif 0 < row.top_k < vocabulary:
            kind = "small" if row.top_k <= _SMALL_K else "large"
        else:
            kind = "nucleus" if row.top_p < 1 else "whole"
        kinds.setdefault(kind, []).append(index)
    return kinds


def _likeliest(logits: torch.Tensor, rows: Sequence[SamplingState]) -> torch.Tensor:
    """The likeliest token of each row."""
    if logits.device.type == "cpu":  # NumPy's takes a tenth of PyTorch's time there
        return torch.from_numpy(logits.numpy().argmax(axis=1))
    return logits.argmax(dim=-1)


def _sample_top(logits: torch.Tensor, rows: Sequence[SamplingState]) -> torch.Tensor:
    """Draws from the top k."""
    largest = max(row.top_k for row in rows)
    values, ids = _top(logits, largest)
    weights = _weights(values, values[:, :1], rows)
    place = torch.arange(largest, device=weights.device)
    weights = weights.masked_fill(place >= _column([row.top_k for row in rows], weights), 0.0)
    kept = _keep_nucleus(weights, _nucleus_weight(weights.sum(dim=-1, keepdim=True), rows))
    return ids.gather(1, _invert(_keep_likely(kept, rows), _chances(rows, weights.device))).squeeze(1)


def _sample_whole(logits: torch.Tensor, rows: Sequence[SamplingState]) -> torch.Tensor:
    """Draws from the whole vocabulary."""
    weights = _weights(logits, logits.amax(dim=-1, keepdim=True), rows)
    return _invert(_keep_likely(weights, rows), _chances(rows, weights.device)).squeeze(1)


def _sample_nucleus(logits: torch.Tensor, rows: Sequence[SamplingState]) -> torch.Tensor:
    """Draws from nuclei.

    Most lie within the likeliest tokens. Where one does not, tokens are drawn from the whole vocabulary until one lies
    in the nucleus, that is, until those likelier than it have less than `top_p` together: at least every `1 / top_p`-th
    does, and nothing has to be sorted.
    """
    weights = _weights(logits, logits.amax(dim=-1, keepdim=True), rows)
    nucleus = _nucleus_weight(weights.sum(dim=-1, keepdim=True), rows)
    values, ids = _top(weights, min(_NUCLEUS_K, weights.shape[1]))
    kept = _keep_likely(_keep_nucleus(values, nucleus), rows)
    tokens = ids.gather(1, _invert(kept, _chances(rows, weights.device))).squeeze(1)
    left = (values.sum(dim=-1) < nucleus.squeeze(1)).nonzero().squeeze(1)
    tries = 0
    while len(left):
        wide, owners = weights[left], [rows[index] for index in left.tolist()]
        drawn = _invert(_keep_likely(wide, owners), _chances(owners, weights.device, tries))
        likelier = torch.where(wide > wide.gather(1, drawn), wide, 0.0).sum(dim=-1, keepdim=True)
        tokens[left] = drawn.squeeze(1)
        left = left[(likelier >= nucleus[left]).squeeze(1)]
        tries += 1
    return tokens


def _weights(logits: torch.Tensor, best: torch.Tensor, rows: Sequence[SamplingState]) -> torch.Tensor:
    """How likely each token is at its row's temperature, over how likely the best is: 1 for this one, 0 for the masked.

    The best token is put at zero before the division, which could overflow at a tiny temperature.
    """
    return (logits - best).div_(_column([row.temperature for row in rows], logits)).exp_()


def _nucleus_weight(total: torch.Tensor, rows: Sequence[SamplingState]) -> torch.Tensor:
    """`[rows, 1]`: what a nucleus weighs, of the whole distribution's weight; infinite where all tokens are kept."""
    shares = [max(row.top_p, _LEAST_SHARE) if row.top_p < 1 else math.inf for row in rows]
    return total * _column(shares, total)


def _keep_nucleus(weights: torch.Tensor, nucleus: torch.Tensor) -> torch.Tensor:
    """Takes away what lies beyond the nucleus: a token stays if those likelier than it weigh less than the nucleus.

    Args:
        weights: `[rows, k]`, in descending order.
        nucleus: `[rows, 1]`.
    """
    return weights.masked_fill(weights.cumsum(dim=-1) - weights >= nucleus, 0.0)


def _keep_likely(weights: torch.Tensor, rows: Sequence[SamplingState]) -> torch.Tensor:
    """Takes away what is less likely than `min_p` times the likeliest token, which weighs 1."""
    if not any(row.min_p > 0 for row in rows):
        return weights
    return weights.masked_fill(weights < _column([row.min_p for row in rows], weights), 0.0)


def _top(values: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest values of each row, in descending order, and their places: as `topk`, but in a fraction of the time.

    Values that stand `stride` apart are a stripe. The `count` largest values lie in the `count` stripes with the
    largest maxima, and finding these reads the values once.
    """
    size = values.shape[1]
    stride = size // _STRIPE
    if count * _STRIPE * 2 > size:
        places = _largest(values, count)
    else:
        striped = values[:, : stride * _STRIPE].view(len(values), _STRIPE, stride)
        best = _largest(striped.amax(dim=1), count)
        steps = torch.arange(_STRIPE, device=values.device) * stride
        places = (best.unsqueeze(1) + steps.unsqueeze(1)).flatten(1)
        rest = torch.arange(stride * _STRIPE, size, device=values.device)
        places = torch.cat((places, rest.expand(len(values), -1)), dim=1)
        places = places.gather(1, _largest(values.gather(1, places), count))
    found, order = values.gather(1, places).sort(dim=1, descending=True)
    return found, places.gather(1, order)


def _largest(values: torch.Tensor, count: int) -> torch.Tensor:
    """`[rows, count]`: where the largest values of each row are, in no order."""
    if values.device.type == "cpu":  # NumPy's partition takes a third of PyTorch's time there
        split = values.shape[1] - count
        return torch.from_numpy(np.argpartition(values.numpy(), split, axis=1)[:, split:])
    return values.topk(count, sorted=False).indices


def _invert(weights: torch.Tensor, chances: torch.Tensor) -> torch.Tensor:
    """Draws tokens by their weights.

    First a block of tokens is found, then the token in it: sums over blocks are cheaper than running sums. Running
    sums are in float64, since over a large vocabulary float32 would lose the tail. What is sought is kept below the
    last sum, so that a token without probability is never found.

    Args:
        weights: `[rows, n]`; at least one in each row is not zero.
        chances: `[rows, 1]`, float64, in [0, 1).

    Returns:
        `[rows, 1]`: a place in each row.
    """
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


def _chances(rows: Sequence[SamplingState], device: torch.device, tries: int = 0) -> torch.Tensor:
    """`[rows, 1]`: each row's random number for its next token; a further try has one of its own."""
    numbers = uniforms([row.seed for row in rows], [row.drawn + (tries << 40) for row in rows])
    return torch.from_numpy(numbers).to(device).unsqueeze(1)


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device).unsqueeze(1)


_DRAWING = {
    "greedy": _likeliest,
    "small": _sample_top,
    "large": _sample_top,
    "nucleus": _sample_nucleus,
    "whole": _sample_whole,
}
"""How each kind of row is drawn: from its logits, one token each."""
