"""The log-probabilities of the tokens of one step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from abstractllm.providers.huggingface.worker.batching.distributions import top_values
from abstractllm.providers.huggingface.worker.batching.isolation import run_isolated
from abstractllm.providers.huggingface.worker.batching.sampling_state import SamplingState
from abstractllm.providers.huggingface.worker.device_tensors import index_tensor

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

    def _compute(self, logits: torch.Tensor, indexes: Sequence[int]) -> None:
        device = logits.device
        values = logits if len(indexes) == len(self._states) else logits.index_select(0, index_tensor(indexes, device))
        rules = self._states[indexes[0]].rules
        if rules is not None and rules.shared.rules.remove_invalid_values:
            values = values.nan_to_num()
        self._computed.append((indexes, torch.log_softmax(values, dim=-1)))

    def of_tokens(self, tokens: torch.Tensor) -> list[tuple[Sequence[int], torch.Tensor]]:
        """Returns what is to be reported of the tokens that were chosen; it is still on the device.

        Args:
            tokens: `[requests]`, int64: the tokens of all requests.

        Returns:
            The indexes of some requests, and a row of numbers for each, float32: the log-probability of its token, the
            likeliest tokens, and their log-probabilities.
        """
        numbers: list[tuple[Sequence[int], torch.Tensor]] = []
        for indexes, logprobs in self._computed:
            rows = {index: row for row, index in enumerate(indexes) if self._states[index].error is None}
            run_isolated(partial(self._gather, numbers, tokens, logprobs, rows), list(rows), self._states)
        return numbers

    def _gather(
        self,
        numbers: list[tuple[Sequence[int], torch.Tensor]],
        tokens: torch.Tensor,
        logprobs: torch.Tensor,
        rows: dict[int, int],
        indexes: Sequence[int],
    ) -> None:
        if len(indexes) < len(logprobs):
            logprobs = logprobs.index_select(0, index_tensor([rows[index] for index in indexes], tokens.device))
        if len(indexes) < len(tokens):
            tokens = tokens.index_select(0, index_tensor(indexes, tokens.device))
        parts = [logprobs.gather(1, tokens.unsqueeze(1))]
        if most := min(max(self._states[index].top_logprobs or 0 for index in indexes), logprobs.shape[1]):
            values, ids = top_values(logprobs, most)
            parts += [ids.float(), values]
        numbers.append((indexes, torch.cat(parts, dim=1)))

    def report(self, index: int, numbers: Sequence[float]) -> None:
        """Puts the log-probabilities of a request's token into its state.

        Args:
            index: The request.
            numbers: Its row of what `of_tokens` returned.
        """
        state = self._states[index]
        count, most = state.top_logprobs or 0, len(numbers) // 2
        ids, values = numbers[1 : 1 + most], numbers[1 + most :]
        state.logprobs = (numbers[0], [int(id) for id in ids[:count]], list(values[:count]))
