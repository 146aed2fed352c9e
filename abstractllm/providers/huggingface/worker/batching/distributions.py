"""The largest values of a row, and the inverse of a cumulative distribution.

Nothing sorts the whole vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import pad

from abstractllm.providers.huggingface.worker.device_tensors import is_on_cpu

__all__ = ["inverse_cdf", "top_values"]

_BLOCK = 128
"""Tokens whose weights are summed together before one of them is sampled."""
_MOST_SUMS = 1024
"""Rows of at most so many weights are summed one by one."""
_STRIPE = 16
"""Values of which only the largest is looked at first."""
_BELOW_ONE = 1.0 - 2.0**-53
"""The largest number below 1, and the largest random number: what it is multiplied with becomes less."""


def top_values(values: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the largest values of each row, in descending order, and their places; NaN counts as the largest.

    On a GPU that is one operation. On a CPU it is done in a fraction of its time: the values of a row are dealt out to
    stripes of values that stand `stride` apart. The `count` largest values lie in the `count` stripes with the largest
    maxima, and finding these reads the values only once.

    Args:
        values: `[rows, n]`.
        count: At most `n`.

    Returns:
        Two tensors, `[rows, count]`.
    """
    if not is_on_cpu(values):
        return values.topk(count)
    size = values.shape[1]
    stride = size // _STRIPE
    if count * _STRIPE * 2 > size:
        places = _largest_places(values, count)
    else:
        striped = values[:, : stride * _STRIPE].view(len(values), _STRIPE, stride)
        best_stripes = _largest_places(striped.amax(dim=1), count)
        steps = torch.arange(_STRIPE) * stride
        places = (best_stripes.unsqueeze(1) + steps.unsqueeze(1)).flatten(1)
        rest = torch.arange(stride * _STRIPE, size)
        places = torch.cat((places, rest.expand(len(values), -1)), dim=1)
        places = places.gather(1, _largest_places(values.gather(1, places), count))
    largest, order = values.gather(1, places).sort(dim=1, descending=True)
    return largest, places.gather(1, order)


def _largest_places(values: torch.Tensor, count: int) -> torch.Tensor:
    """Returns the places of the largest values of each row, `[rows, count]`, in any order, on a CPU.

    NumPy's partition takes a third of PyTorch's time.
    """
    split = values.shape[1] - count
    return torch.from_numpy(np.argpartition(values.numpy(), split, axis=1)[:, split:])


def inverse_cdf(weights: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Evaluates the inverse of the cumulative distribution that each row of weights describes.

    In a long row first the block of tokens is determined, then the token in it, since the sums of blocks are cheaper
    than running sums. Running sums are in float64: over a large vocabulary float32 would lose the tail. The argument is
    less than the last sum, so that a token of probability 0 is never returned.

    Args:
        weights: `[rows, n]`; at least one in each row is not 0.
        numbers: `[rows, 1]`, float64, in [0, 1).

    Returns:
        A place in each row, `[rows, 1]`; any place of a row that holds NaN.
    """
    count = weights.shape[1]
    if count <= _MOST_SUMS:
        sums = weights.cumsum(dim=-1, dtype=torch.float64)
        return torch.searchsorted(sums, numbers * sums[:, -1:], right=True).clamp_(max=count - 1)
    if count % _BLOCK:
        weights = pad(weights, (0, _BLOCK - count % _BLOCK))
    blocks = weights.view(len(weights), -1, _BLOCK)
    block_sums = blocks.sum(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    targets = numbers * block_sums[:, -1:]
    block = torch.searchsorted(block_sums, targets, right=True).clamp_(max=block_sums.shape[1] - 1)
    before = torch.where(block > 0, block_sums.gather(1, (block - 1).clamp(min=0)), 0.0)
    inside = blocks.gather(1, block.unsqueeze(2).expand(-1, -1, _BLOCK)).squeeze(1)
    inside = inside.cumsum(dim=-1, dtype=torch.float64)
    rest = torch.minimum(targets - before, inside[:, -1:] * _BELOW_ONE)  # the sums of blocks are rounded
    places = torch.searchsorted(inside, rest, right=True)
    return places.add_(block, alpha=_BLOCK).clamp_(max=count - 1)
