"""The settings of some requests of a batch as tensors, which change only when the batch does."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from abstractllm.providers.huggingface.worker.batching.random_numbers import uniform_table, uniforms
from abstractllm.providers.huggingface.worker.batching.sampling_state import SamplingState
from abstractllm.providers.huggingface.worker.device_tensors import index_tensor, to_device

__all__ = ["RowSettings", "random_numbers", "sampling_method"]

MOST_LIKELY = 256
"""The number of likeliest tokens among which most are sampled; a larger top-k is sampled apart."""
_LEAST_TOP_P = 1e-30
"""A smaller top-p, which float32 might hold as zero, counts as this: the likeliest token is always kept."""
_STEPS = 16
"""Steps whose random numbers are made, and put on the device, together."""
_ATTEMPT = 40
"""The bit of a position by which the numbers of further attempts are told from those of the first."""


class RowSettings:
    """The settings of some requests, one row for each.

    Args:
        states: The requests.
        vocabulary: The number of logits at each position.
        device: The device of the logits.
    """

    def __init__(self, states: Sequence[SamplingState], vocabulary: int, device: torch.device) -> None:
        self.states = states
        self._device = device
        settings = [state.settings for state in states]
        limits = [1 if each.temperature == 0 else min(each.top_k or vocabulary, vocabulary) for each in settings]
        limited = [limit for limit in limits if limit < vocabulary]
        is_open = [limit == vocabulary for limit in limits]
        self.count = min(vocabulary, max([*limited, MOST_LIKELY] if any(is_open) else limited))
        """The number of likeliest tokens that are looked at."""
        columns = np.array(
            [
                [each.temperature or 1.0 for each in settings],
                [
                    max(each.top_p, _LEAST_TOP_P) if _is_cut(each.temperature, each.top_p) else math.inf
                    for each in settings
                ],
                [each.min_p if each.temperature else 0.0 for each in settings],
                limits,
            ],
            dtype=np.float32,
        )
        self.temperature, self.nucleus_share, self.least_weight, limit = to_device(columns, device).unsqueeze(2)
        """Each `[rows, 1]`, float32: the temperature, top-p, or infinity where every token is kept, and min-p."""
        self.has_least_weight = bool(columns[2].any())
        """True if any request sets min-p."""
        self.has_nucleus = bool(np.isfinite(columns[1]).any())
        """True if any request sets top-p."""
        ranks = torch.arange(self.count, device=device)
        self.within_limit = (ranks < limit) if len(set(limits)) > 1 or self.count > limits[0] else None
        """`[rows, count]`: True for the ranks that top-k keeps; None if it keeps all that are looked at."""
        open_rows = [row for row, value in enumerate(is_open) if value] if self.count < vocabulary else []
        self.open_rows = open_rows
        """The rows without a top-k: what they keep may be more than the likeliest tokens."""
        self.open_index = index_tensor(open_rows, device) if open_rows else None
        """The same on the device, `[open rows]`; None if there are none."""
        self.all_open = len(open_rows) == len(states)
        """True if no request has a top-k."""
        self._positions: list[int] = []
        self._numbers: torch.Tensor | None = None
        """Random numbers of the steps from `_positions` on, `[rows, steps]`."""

    def weights(self, logits: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
        """Returns the probability of each token over that of the best: 1 for the best token, 0 for a forbidden one.

        The best logit is subtracted before the division by the temperature, which could overflow at a tiny one.

        Args:
            logits: `[rows, n]`.
            best: `[rows, 1]`: the largest logit of each request.
        """
        return (logits - best).div_(self.temperature).exp_()

    def numbers(self) -> torch.Tensor:
        """Returns the random number for the next token of each request, `[rows, 1]`, float64 in [0, 1)."""
        positions = [state.sampled for state in self.states]
        step = positions[0] - self._positions[0] if self._positions else -1
        if self._numbers is None or not 0 <= step < _STEPS or positions != [begin + step for begin in self._positions]:
            step = 0
            table = uniform_table([state.seed for state in self.states], positions, _STEPS)
            # Both, or none of them where there is too little memory.
            self._numbers, self._positions = to_device(table, self._device), positions
        return self._numbers[:, step : step + 1]


def sampling_method(state: SamplingState, vocabulary: int) -> str:
    """Returns the name of the way in which a request's tokens are chosen; the ways are in `choosing.METHODS`."""
    settings = state.settings
    if settings.temperature == 0:
        return "greedy"
    if state.rules is not None and state.rules.shared.has_filters:
        return "filtered"
    if 0 < settings.top_k < vocabulary:
        return "likeliest" if settings.top_k <= MOST_LIKELY else "large top-k"
    return "likeliest" if settings.top_p < 1 or settings.min_p > 0 else "whole"


def _is_cut(temperature: float, top_p: float) -> bool:
    return temperature > 0 and top_p < 1


def random_numbers(states: Sequence[SamplingState], device: torch.device, attempt: int) -> torch.Tensor:
    """Returns the random number of a further attempt at the next token of each request, `[requests, 1]`, float64."""
    positions = [state.sampled + (attempt << _ATTEMPT) for state in states]
    return to_device(uniforms([state.seed for state in states], positions), device).unsqueeze(1)
