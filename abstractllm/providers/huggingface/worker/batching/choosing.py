"""The ways in which the next tokens of some requests are chosen, all of them at once.

Each takes the logits of the requests, `[rows, vocabulary]`, and their settings, and returns what was `Chosen`. None but
`choose_open` waits for the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from abstractllm.providers.huggingface.worker.batching.distributions import inverse_cdf, top_values
from abstractllm.providers.huggingface.worker.batching.row_settings import RowSettings, random_numbers
from abstractllm.providers.huggingface.worker.device_tensors import is_on_cpu

__all__ = ["METHODS", "Chosen"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The tokens that were chosen for some requests."""

    tokens: torch.Tensor
    """`[rows]`, int64."""
    largest: torch.Tensor
    """`[rows]`: the largest logit of each: NaN if one of them is."""
    is_open: torch.Tensor | None = None
    """`[open rows]`: True where the likeliest tokens are fewer than those that may be sampled; None if none is."""
    open_logits: torch.Tensor | None = None
    """`[open rows, vocabulary]`: the logits of those rows, for `choose_open`; None as before."""


def choose_likeliest(logits: torch.Tensor, rows: RowSettings) -> Chosen:
    """Chooses the likeliest token of each request; NaN counts as the largest logit."""
    # On a CPU NumPy's takes a tenth of PyTorch's time.
    tokens = torch.from_numpy(logits.numpy().argmax(axis=1)) if is_on_cpu(logits) else logits.argmax(dim=-1)
    return Chosen(tokens, logits.gather(1, tokens.unsqueeze(1)).squeeze(1))


def choose_among_likeliest(logits: torch.Tensor, rows: RowSettings) -> Chosen:
    """Samples from the likeliest tokens: those that a top-k keeps, or as many as mostly suffice for other cuts."""
    values, ids = top_values(logits, rows.count)
    best = values[:, :1]
    weights = rows.weights(values, best)
    if rows.within_limit is not None:
        weights.mul_(rows.within_limit)
    kept, is_open, open_logits = weights, None, None
    if rows.open_index is not None:
        # A copy, where the next forward pass may write to the same logits before `choose_open` is called.
        open_logits = logits if rows.all_open and is_on_cpu(logits) else logits.index_select(0, rows.open_index)
    if rows.has_nucleus:
        nucleus = _total(weights, best, rows, open_logits) * rows.nucleus_share
        running = weights.cumsum(dim=-1)
        # A token is in the nucleus if the likelier ones weigh less than it.
        kept = torch.where(running - weights < nucleus, weights, 0.0)
        is_open = running[:, -1:] < nucleus
    if rows.has_least_weight:
        kept = torch.where(weights >= rows.least_weight, kept, 0.0)
        goes_on = weights[:, -1:] >= rows.least_weight
        is_open = goes_on if is_open is None else is_open & goes_on
    tokens = ids.gather(1, inverse_cdf(kept, rows.numbers())).squeeze(1)
    if rows.open_index is None or is_open is None:
        return Chosen(tokens, best.squeeze(1))
    is_open = is_open.squeeze(1)
    return Chosen(
        tokens, best.squeeze(1), is_open if rows.all_open else is_open.index_select(0, rows.open_index), open_logits
    )


def _total(
    weights: torch.Tensor, best: torch.Tensor, rows: RowSettings, open_logits: torch.Tensor | None
) -> torch.Tensor:
    """Returns the weight of the distribution that a nucleus is a share of, `[rows, 1]`.

    It is that of the tokens which top-k keeps or, without a top-k, of all tokens.
    """
    if open_logits is None or rows.open_index is None:
        return weights.sum(dim=-1, keepdim=True)
    open_best, temperature = best, rows.temperature
    if not rows.all_open:
        open_best, temperature = (column.index_select(0, rows.open_index) for column in (best, rows.temperature))
    whole = (open_logits - open_best).div_(temperature).exp_().sum(dim=-1, keepdim=True)
    if rows.all_open:
        return whole
    return weights.sum(dim=-1, keepdim=True).index_copy_(0, rows.open_index, whole)


def choose_from_all(logits: torch.Tensor, rows: RowSettings) -> Chosen:
    """Samples from the whole vocabulary."""
    best = logits.amax(dim=-1, keepdim=True)
    return Chosen(inverse_cdf(rows.weights(logits, best), rows.numbers()).squeeze(1), best.squeeze(1))


def choose_filtered(logits: torch.Tensor, rows: RowSettings) -> Chosen:
    """Samples from what the model's own filters leave, beside the cuts of each request."""
    best = logits.amax(dim=-1, keepdim=True)
    finite = torch.where(best.isfinite(), logits, 0.0)  # transformers' filters raise an error for a row that is not
    scores = finite / rows.temperature
    by_cuts: dict[tuple[float, ...], list[int]] = {}
    for index, state in enumerate(rows.states):
        by_cuts.setdefault(state.settings.cut_values, []).append(index)
    for indexes in by_cuts.values():
        first = rows.states[indexes[0]]
        assert first.rules is not None
        scores[indexes] = first.rules.shared.filter(scores[indexes], first.settings)
    weights = (scores - scores.amax(dim=-1, keepdim=True)).exp_()
    return Chosen(inverse_cdf(weights, rows.numbers()).squeeze(1), best.squeeze(1))


def choose_open(logits: torch.Tensor, rows: RowSettings) -> Chosen:
    """Samples from nuclei, and from what min-p keeps, however many tokens that are; waits for the device.

    Tokens are sampled from the whole vocabulary until one lies in the nucleus, that is, until the tokens that are
    likelier than it have less than `top_p` together. At least one in `1 / top_p` tries succeeds, and nothing has to be
    sorted.
    """
    best = logits.amax(dim=-1, keepdim=True)
    weights = rows.weights(logits, best)
    nucleus = weights.sum(dim=-1, keepdim=True) * rows.nucleus_share
    kept = torch.where(weights >= rows.least_weight, weights, 0.0)
    tokens = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    open_rows, numbers, attempt = torch.arange(len(logits), device=logits.device), rows.numbers(), 0
    while len(open_rows):
        candidates = inverse_cdf(kept[open_rows], numbers)
        open_weights = weights[open_rows]
        likelier = torch.where(open_weights > open_weights.gather(1, candidates), open_weights, 0.0)
        tokens[open_rows] = candidates.squeeze(1)
        open_rows = open_rows[(likelier.sum(dim=-1, keepdim=True) >= nucleus[open_rows]).squeeze(1)]
        attempt += 1
        numbers = random_numbers([rows.states[index] for index in open_rows.tolist()], logits.device, attempt)
    return Chosen(tokens, best.squeeze(1))


METHODS = {
    "greedy": choose_likeliest,
    "likeliest": choose_among_likeliest,
    "large top-k": choose_among_likeliest,
    "whole": choose_from_all,
    "filtered": choose_filtered,
    "open": choose_open,
}
"""The ways, by the names that the sampler gives to groups of requests."""
