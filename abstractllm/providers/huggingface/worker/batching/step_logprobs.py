"""The log-probabilities of the tokens of one step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from abstractllm.providers.huggingface.worker.batching.isolation import run_isolated
from abstractllm.providers.huggingface.worker.batching.sampling_state import SamplingState

__all__ = ["StepLogprobs"]


class StepLogprobs:
    """The log-probabilities of one step, of the requests that want them.

    Args:
        logits: `[requests, vocabulary]`: the raw ones, which are not changed yet.
        states: The states of all requests.
    """

    def __init__(self, logits: torch.Tensor, states: Sequence[SamplingState]) -> None:
        self._states = states
        self._computed: list[tuple[Sequence[int], torch.Tensor]] = []
        """The indexes of some requests, and their log-probabilities, `[requests, vocabulary]`."""
        indexes = [index for index, state in enumerate(states) if state.top_logprobs is not None]
        run_isolated(partial(self._compute, logits), indexes, states)

    def report(self, tokens: Sequence[int]) -> None:
        """Puts the log-probabilities of the tokens that were sampled into the states.

        Args:
            tokens: The tokens sampled for all requests.
        """
        states = self._states
        for indexes, logprobs in self._computed:
            rows = {index: row for row, index in enumerate(indexes) if states[index].error is None}
            run_isolated(partial(self._put, tokens, logprobs, rows), list(rows), states)

    def _compute(self, logits: torch.Tensor, indexes: Sequence[int]) -> None:
        values = logits[indexes]
        rules = self._states[indexes[0]].rules
        if rules is not None and rules.shared.rules.remove_invalid_values:
            values.nan_to_num_()
        self._computed.append((indexes, torch.log_softmax(values, dim=-1)))

    def _put(self, tokens: Sequence[int], logprobs: torch.Tensor, rows: dict[int, int], indexes: Sequence[int]) -> None:
        if len(indexes) < len(logprobs):
            logprobs = logprobs[[rows[index] for index in indexes]]
        chosen = logprobs.gather(1, torch.tensor([[tokens[index]] for index in indexes], device=logprobs.device))
        counts = [self._states[index].top_logprobs or 0 for index in indexes]
        likeliest = logprobs.topk(min(max(counts), logprobs.shape[1]))
        values = zip(chosen[:, 0].tolist(), likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
        for index, count, (value, ids, top_values) in zip(indexes, counts, values, strict=True):
            self._states[index].logprobs = (value, ids[:count], top_values[:count])
