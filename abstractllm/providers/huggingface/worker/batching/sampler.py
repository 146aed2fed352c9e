"""Sampling the next tokens of a batch in which every request has its own settings.

The order is that of transformers' own processors: bias, penalties, the rules of the model's generation configuration,
the answer's format, temperature, top-k, top-p, min-p. A token is sampled by evaluating the inverse of the cumulative
distribution at one random number. That depends on the request's seed and position alone, so that a request's tokens do
not depend on the other requests of its batch. Nothing sorts the whole vocabulary.

What fails for one request fails that request alone. Whether a request's logits are finite shows in the largest of them,
which is read together with the tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch.nn.functional import pad

from abstractllm.providers.huggingface.worker.batching.isolation import run_isolated
from abstractllm.providers.huggingface.worker.batching.logits_rules import RequestRules
from abstractllm.providers.huggingface.worker.batching.random_numbers import uniforms
from abstractllm.providers.huggingface.worker.batching.sampling_state import SamplingState
from abstractllm.providers.huggingface.worker.batching.step_logprobs import StepLogprobs
from abstractllm.providers.huggingface.worker.generation_errors import no_token_error
from abstractllm.providers.huggingface.worker.structured.matcher import forbid

__all__ = ["sample"]

_SMALL_K = 256
"""Requests with at most this top-k are sampled together, so that one huge top-k does not slow them."""
_NUCLEUS_K = 256
"""The number of likeliest tokens among which a nucleus is expected."""
_LEAST_TOP_P = 1e-30
"""A smaller top-p, which float32 might hold as zero, counts as this: the likeliest token is always kept."""
_BLOCK = 128
"""Tokens whose weights are summed together before one of them is sampled."""
_STRIPE = 16
"""Values of which only the largest is looked at first."""

_Chosen = tuple[torch.Tensor, torch.Tensor]
"""The tokens of some requests, `[requests]`, and the largest logit of each, `[requests]`: NaN if one of them is."""


def sample(logits: torch.Tensor, states: Sequence[SamplingState]) -> list[int]:
    """Samples one token for each request, and records it in its state.

    Args:
        logits: `[requests, vocabulary]`, float32, the model's raw ones; overwritten.
        states: The states of the requests, in the order of the logits.

    Returns:
        The token ids; 0 for a request whose state has an error now.

    Raises:
        torch.AcceleratorError: If the device cannot be used any more.
    """
    logprobs = StepLogprobs(logits, states)
    _change_logits(logits, states)
    groups = _group_by_method(states, logits.shape[1])
    result = torch.zeros((2, len(states)), dtype=torch.float32, device=logits.device)  # holds token ids below 2^24

    def choose(method: str, group: Sequence[int]) -> None:
        group_logits = logits if len(group) == len(states) else logits[group]
        chosen, largest = _METHODS[method](group_logits, [states[index] for index in group])
        values = torch.stack((chosen.float(), largest.float()))
        if len(group) == len(states):
            result.copy_(values)
        else:
            result[:, group] = values

    for method, group in groups.items():
        run_isolated(partial(choose, method), group, states)
    ids, largest_logits = result.tolist()
    tokens = [int(id) for id in ids]
    for state, largest_logit in zip(states, largest_logits, strict=True):
        if state.error is None and not math.isfinite(largest_logit):
            state.has_invalid_logits = True
            names = "" if state.rules is None else state.rules.shared.names
            field = None if state.matcher is None else state.matcher.field
            state.error = no_token_error(largest_logit, names, field)
    logprobs.report(tokens)
    for state, token in zip(states, tokens, strict=True):
        if state.error is None:
            try:
                state.record(token)
            except Exception as error:
                state.error = error
    return [token if state.error is None else 0 for token, state in zip(tokens, states, strict=True)]


def _change_logits(logits: torch.Tensor, states: Sequence[SamplingState]) -> None:
    """Applies in place what changes logits before the temperature."""
    ruled = [index for index, state in enumerate(states) if state.rules is not None]
    shared = next((state.rules.shared for state in states if state.rules is not None), None)

    def apply(rule: Callable[[torch.Tensor, Sequence[RequestRules]], None], indexes: Sequence[int]) -> None:
        changed = logits[indexes]  # a copy, so that a failure leaves the logits as they were
        rule(changed, [rules for index in indexes if (rules := states[index].rules) is not None])
        logits[indexes] = changed

    if shared is not None and shared.comes_before_penalties:
        run_isolated(partial(apply, shared.before_penalties), ruled, states)
    for index, state in enumerate(states):
        if state.changes_logits:
            run_isolated(partial(_apply_bias_and_penalties, logits, states), [index], states)
    if shared is not None and shared.comes_after_penalties:
        run_isolated(partial(apply, shared.after_penalties), ruled, states)
    constrained = [index for index, state in enumerate(states) if state.matcher is not None]

    def hold_to_format(indexes: Sequence[int]) -> None:
        forbid(logits, [matcher for index in indexes if (matcher := states[index].matcher) is not None], indexes)

    run_isolated(hold_to_format, constrained, states)


def _apply_bias_and_penalties(logits: torch.Tensor, states: Sequence[SamplingState], indexes: Sequence[int]) -> None:
    """Applies bias and penalties in place; only the logits of tokens that they concern are touched."""
    for index in indexes:
        settings, counts, row = states[index].settings, states[index].counts, logits[index]
        if settings.logit_bias:
            ids = torch.tensor(list(settings.logit_bias), device=logits.device)
            row.index_add_(0, ids, torch.tensor(list(settings.logit_bias.values()), device=logits.device))
        if counts is not None and len(counts.tokens):
            ids = torch.from_numpy(counts.tokens).to(logits.device)
            generated = torch.from_numpy(counts.generated).to(logits.device)
            values, penalty = row[ids], settings.repetition_penalty
            if penalty != 1.0:
                values = torch.where(values < 0, values * penalty, values / penalty)
            row[ids] = values - settings.frequency_penalty * generated - settings.presence_penalty * (generated > 0)


def _group_by_method(states: Sequence[SamplingState], vocabulary: int) -> dict[str, list[int]]:
    """Returns the indexes of the requests that are sampled by the same method, by its name in `_METHODS`."""
    groups: dict[str, list[int]] = {}
    for index, state in enumerate(states):
        settings = state.settings
        if settings.temperature == 0:
            method = "greedy"
        elif state.rules is not None and state.rules.shared.has_filters:
            method = "filtered"
        elif 0 < settings.top_k < vocabulary:
            method = "small top-k" if settings.top_k <= _SMALL_K else "large top-k"
        else:
            method = "nucleus" if settings.top_p < 1 else "whole"
        groups.setdefault(method, []).append(index)
    return groups


def _likeliest(logits: torch.Tensor, states: Sequence[SamplingState]) -> _Chosen:
    """Returns the likeliest token of each request; NaN counts as the largest logit."""
    on_cpu = logits.device.type == "cpu"  # NumPy's takes a tenth of PyTorch's time there
    tokens = torch.from_numpy(logits.numpy().argmax(axis=1)) if on_cpu else logits.argmax(dim=-1)
    return tokens, logits.gather(1, tokens.unsqueeze(1)).squeeze(1)


def _sample_top_k(logits: torch.Tensor, states: Sequence[SamplingState]) -> _Chosen:
    """Samples from the top k."""
    largest = max(state.settings.top_k for state in states)
    values, ids = _top_values(logits, largest)
    weights = _weights(values, values[:, :1], states)
    rank = torch.arange(largest, device=weights.device)
    weights = weights.masked_fill(rank >= _column([state.settings.top_k for state in states], weights), 0.0)
    weights = _keep_nucleus(weights, _nucleus_weight(weights.sum(dim=-1, keepdim=True), states))
    places = _inverse_cdf(_keep_min_p(weights, states), _uniforms(states, weights.device))
    return ids.gather(1, places).squeeze(1), values[:, 0]


def _sample_whole(logits: torch.Tensor, states: Sequence[SamplingState]) -> _Chosen:
    """Samples from the whole vocabulary."""
    best = logits.amax(dim=-1, keepdim=True)
    weights = _weights(logits, best, states)
    return _inverse_cdf(_keep_min_p(weights, states), _uniforms(states, weights.device)).squeeze(1), best.squeeze(1)


def _sample_filtered(logits: torch.Tensor, states: Sequence[SamplingState]) -> _Chosen:
    """Samples from what the model's own filters leave, beside the cuts of each request."""
    best = logits.amax(dim=-1, keepdim=True)
    finite = torch.where(best.isfinite(), logits, 0.0)  # transformers' filters raise an error for a row that is not
    scores = finite / _column([state.settings.temperature for state in states], logits)
    by_cuts: dict[tuple[float, ...], list[int]] = {}
    for index, state in enumerate(states):
        settings = state.settings
        by_cuts.setdefault((settings.top_k, settings.top_p, settings.min_p), []).append(index)
    for indexes in by_cuts.values():
        first = states[indexes[0]]
        assert first.rules is not None
        scores[indexes] = first.rules.shared.filter(scores[indexes], first.settings)
    weights = (scores - scores.amax(dim=-1, keepdim=True)).exp_()
    return _inverse_cdf(weights, _uniforms(states, weights.device)).squeeze(1), best.squeeze(1)


def _sample_nucleus(logits: torch.Tensor, states: Sequence[SamplingState]) -> _Chosen:
    """Samples from nuclei.

    Most nuclei lie within the likeliest tokens. Where one does not, tokens are sampled from the whole vocabulary until
    one lies in the nucleus, that is, until the tokens that are likelier than it have less than `top_p` together. At
    least one in `1 / top_p` tries succeeds, and nothing has to be sorted.
    """
    best = logits.amax(dim=-1, keepdim=True)
    weights = _weights(logits, best, states)
    nucleus = _nucleus_weight(weights.sum(dim=-1, keepdim=True), states)
    values, ids = _top_values(weights, min(_NUCLEUS_K, weights.shape[1]))
    kept = _keep_min_p(_keep_nucleus(values, nucleus), states)
    tokens = ids.gather(1, _inverse_cdf(kept, _uniforms(states, weights.device))).squeeze(1)
    open_rows = (values.sum(dim=-1) < nucleus.squeeze(1)).nonzero().squeeze(1)
    attempt = 0
    while len(open_rows):
        open_weights, open_states = weights[open_rows], [states[index] for index in open_rows.tolist()]
        numbers = _uniforms(open_states, weights.device, attempt)
        candidates = _inverse_cdf(_keep_min_p(open_weights, open_states), numbers)
        likelier = torch.where(open_weights > open_weights.gather(1, candidates), open_weights, 0.0)
        tokens[open_rows] = candidates.squeeze(1)
        open_rows = open_rows[(likelier.sum(dim=-1, keepdim=True) >= nucleus[open_rows]).squeeze(1)]
        attempt += 1
    return tokens, best.squeeze(1)


def _weights(logits: torch.Tensor, best: torch.Tensor, states: Sequence[SamplingState]) -> torch.Tensor:
    """Returns the probability of each token over that of the best: 1 for the best token, 0 for a forbidden one.

    The best logit is subtracted before the division by the temperature, which could overflow at a tiny one.

    Args:
        logits: `[requests, n]`.
        best: `[requests, 1]`: the largest logit of each request.
        states: The states of the requests.
    """
    return (logits - best).div_(_column([state.settings.temperature for state in states], logits)).exp_()


def _nucleus_weight(total: torch.Tensor, states: Sequence[SamplingState]) -> torch.Tensor:
    """Returns the weight of each nucleus, `[requests, 1]`; infinity where all tokens are kept.

    Args:
        total: `[requests, 1]`: the weight of the whole distribution.
        states: The states of the requests.
    """
    shares = [max(state.settings.top_p, _LEAST_TOP_P) if state.settings.top_p < 1 else math.inf for state in states]
    return total * _column(shares, total)


def _keep_nucleus(weights: torch.Tensor, nucleus: torch.Tensor) -> torch.Tensor:
    """Sets the weights outside the nucleus to 0: a token is in it if the likelier ones weigh less than the nucleus.

    Args:
        weights: `[requests, k]`, in descending order.
        nucleus: `[requests, 1]`: the weight of the nucleus.
    """
    return weights.masked_fill(weights.cumsum(dim=-1) - weights >= nucleus, 0.0)


def _keep_min_p(weights: torch.Tensor, states: Sequence[SamplingState]) -> torch.Tensor:
    """Sets the weights below `min_p` to 0; the likeliest token weighs 1."""
    if not any(state.settings.min_p > 0 for state in states):
        return weights
    return weights.masked_fill(weights < _column([state.settings.min_p for state in states], weights), 0.0)


def _top_values(values: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the largest values of each row, in descending order, and their places, in a fraction of `topk`'s time.

    The values of a row are dealt out to stripes of values that stand `stride` apart. The `count` largest values lie in
    the `count` stripes with the largest maxima, and finding these reads the values only once.
    """
    size = values.shape[1]
    stride = size // _STRIPE
    if count * _STRIPE * 2 > size:
        places = _largest_places(values, count)
    else:
        striped = values[:, : stride * _STRIPE].view(len(values), _STRIPE, stride)
        best_stripes = _largest_places(striped.amax(dim=1), count)
        steps = torch.arange(_STRIPE, device=values.device) * stride
        places = (best_stripes.unsqueeze(1) + steps.unsqueeze(1)).flatten(1)
        rest = torch.arange(stride * _STRIPE, size, device=values.device)
        places = torch.cat((places, rest.expand(len(values), -1)), dim=1)
        places = places.gather(1, _largest_places(values.gather(1, places), count))
    largest, order = values.gather(1, places).sort(dim=1, descending=True)
    return largest, places.gather(1, order)


def _largest_places(values: torch.Tensor, count: int) -> torch.Tensor:
    """Returns the places of the largest values of each row, `[rows, count]`, in any order."""
    if values.device.type == "cpu":  # NumPy's partition takes a third of PyTorch's time there
        split = values.shape[1] - count
        return torch.from_numpy(np.argpartition(values.numpy(), split, axis=1)[:, split:])
    return values.topk(count, sorted=False).indices


def _inverse_cdf(weights: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Evaluates the inverse of the cumulative distribution that each row of weights describes.

    First the block of tokens is determined, then the token in it, since the sums of blocks are cheaper than running
    sums. Running sums are in float64: over a large vocabulary float32 would lose the tail. The argument is kept below
    the last sum, so that a token of probability 0 is never returned.

    Args:
        weights: `[rows, n]`; at least one in each row is not 0.
        numbers: `[rows, 1]`, float64, in [0, 1).

    Returns:
        A place in each row, `[rows, 1]`; any place of a row that holds NaN.
    """
    count = weights.shape[1]
    if count <= _BLOCK:
        sums = weights.cumsum(dim=-1, dtype=torch.float64)
        return torch.searchsorted(sums, _below_last(sums, numbers * sums[:, -1:]), right=True).clamp_(max=count - 1)
    if count % _BLOCK:
        weights = pad(weights, (0, _BLOCK - count % _BLOCK))
    blocks = weights.view(len(weights), -1, _BLOCK)
    block_sums = blocks.sum(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    targets = _below_last(block_sums, numbers * block_sums[:, -1:])
    block = torch.searchsorted(block_sums, targets, right=True).clamp_(max=block_sums.shape[1] - 1)
    before = torch.where(block > 0, block_sums.gather(1, (block - 1).clamp(min=0)), 0.0)
    inside = blocks[torch.arange(len(blocks), device=block.device), block.squeeze(1)].cumsum(
        dim=-1, dtype=torch.float64
    )
    places = block * _BLOCK + torch.searchsorted(inside, _below_last(inside, targets - before), right=True)
    return places.clamp_(max=count - 1)


def _below_last(sums: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Returns the targets, but at most the largest number below the last sum."""
    total = sums[:, -1:]
    return torch.minimum(targets, torch.nextafter(total, torch.zeros_like(total)))


def _uniforms(states: Sequence[SamplingState], device: torch.device, attempt: int = 0) -> torch.Tensor:
    """Returns the random number for the next token of each request, `[requests, 1]`; another one for each attempt."""
    numbers = uniforms([state.seed for state in states], [state.sampled + (attempt << 40) for state in states])
    return torch.from_numpy(numbers).to(device).unsqueeze(1)


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device).unsqueeze(1)


_METHODS = {
    "greedy": _likeliest,
    "small top-k": _sample_top_k,
    "large top-k": _sample_top_k,
    "filtered": _sample_filtered,
    "nucleus": _sample_nucleus,
    "whole": _sample_whole,
}
"""The functions from the logits and states of some requests to one token for each, and to the largest logits."""
