"""Sampling the next tokens of a batch in which every request has its own settings.

The order is that of transformers' own processors: bias, penalties, the rules of the model's generation configuration,
the answer's format, temperature, top-k, top-p, min-p. A token is sampled by evaluating the inverse of the cumulative
distribution at one random number. That depends on the request's seed and position alone, so that a request's tokens do
not depend on the other requests of its batch. Nothing sorts the whole vocabulary.

The settings of the requests lie on the device as long as the batch stays the same. The device is waited for once in a
step: all that the host has to know of it is read together.

What fails for one request fails that request alone. Whether a request's logits are finite shows in the largest of them,
which is read together with the tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

import torch

from abstractllm.providers.huggingface.worker.batching.choosing import METHODS, Chosen
from abstractllm.providers.huggingface.worker.batching.isolation import run_isolated
from abstractllm.providers.huggingface.worker.batching.logits_rules import RequestRules
from abstractllm.providers.huggingface.worker.batching.row_settings import RowSettings, sampling_method
from abstractllm.providers.huggingface.worker.batching.sampling_state import SamplingState
from abstractllm.providers.huggingface.worker.batching.step_logprobs import StepLogprobs
from abstractllm.providers.huggingface.worker.batching.token_changes import TokenChanges
from abstractllm.providers.huggingface.worker.device_tensors import index_tensor
from abstractllm.providers.huggingface.worker.generation_errors import no_token_error
from abstractllm.providers.huggingface.worker.structured.matcher import forbid

__all__ = ["BatchSampler", "SampledStep", "sample"]


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
    return BatchSampler().sample(logits, states).take()


class BatchSampler:
    """Samples the tokens of a batch, step by step."""

    def __init__(self) -> None:
        self._states: list[SamplingState] = []
        self._changes = TokenChanges(())
        self._groups: list[_Group] = []

    def sample(self, logits: torch.Tensor, states: Sequence[SamplingState]) -> SampledStep:
        """Starts to sample one token for each request; does not wait for the device.

        Args:
            logits: `[requests, vocabulary]`, float32, the model's raw ones; overwritten.
            states: The states of the requests, in the order of the logits. The tokens of all steps before have been
                taken.

        Raises:
            torch.AcceleratorError: If the device cannot be used any more.
        """
        if self._states != (states := list(states)):  # they are compared by identity
            self._changes = TokenChanges(states)
            self._groups = _groups(states, logits)
            self._states = states  # last: what fails for want of memory is made anew by the next step
        logprobs = StepLogprobs(logits, self._states)
        _change_logits(logits, self._states, self._changes)
        step = SampledStep(self._states, logprobs)
        for group in self._groups:
            run_isolated(partial(step.choose, group, logits), group.indexes, self._states)
        step.finish(logits.device)
        return step


class _Group:
    """The requests of a batch that are sampled in the same way."""

    def __init__(
        self, method: str, indexes: Sequence[int], states: Sequence[SamplingState], logits: torch.Tensor
    ) -> None:
        self.method = method
        self.indexes = indexes
        self._size = len(states)
        self.rows = RowSettings([states[index] for index in indexes], logits.shape[1], logits.device)
        self.index = index_tensor(indexes, logits.device)

    def logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Returns the logits of the group's requests, of those of all requests."""
        return logits if len(self.indexes) == self._size else logits.index_select(0, self.index)


class SampledStep:
    """The tokens of a step, which the device may still be computing.

    Args:
        states: The states of the requests.
        logprobs: Their log-probabilities.
    """

    def __init__(self, states: Sequence[SamplingState], logprobs: StepLogprobs) -> None:
        self._states = states
        self._logprobs = logprobs
        self._chosen: list[tuple[Sequence[int], RowSettings, Chosen]] = []
        """What was chosen for some requests, their indexes, and their settings."""
        self.tokens = torch.zeros(0)
        """The tokens on the device, `[requests]`, int64; those of `retried` are not the final ones."""
        self.retried: list[int] = []
        """The requests whose tokens were chosen anew when the first ones had been read."""

    def choose(self, group: _Group, logits: torch.Tensor, indexes: Sequence[int]) -> None:
        """Chooses the tokens of requests that are sampled in the same way; see `run_isolated`."""
        if indexes is not group.indexes:
            group = _Group(group.method, indexes, self._states, logits)
        self._chosen.append((indexes, group.rows, METHODS[group.method](group.logits(logits), group.rows)))

    def finish(self, device: torch.device) -> None:
        """Starts to copy what the host has to know; called when all requests have their tokens."""
        count, order = len(self._states), [index for indexes, _, _ in self._chosen for index in indexes]
        tokens = _joined([chosen.tokens for _, _, chosen in self._chosen], device)
        if order != list(range(count)):  # several groups, or requests with an error
            places = index_tensor(order, device)
            tokens = torch.zeros(count, dtype=torch.int64, device=device).index_copy_(0, places, tokens)
        self.tokens = tokens
        self._numbers = self._logprobs.of_tokens(tokens)
        parts = [tokens, *(chosen.largest for _, _, chosen in self._chosen)]
        parts += [chosen.is_open for _, _, chosen in self._chosen if chosen.is_open is not None]
        parts += [numbers.flatten() for _, numbers in self._numbers]
        # Token ids are below 2^24, so that float32 holds them.
        self._read = torch.cat([part.float() for part in parts]).to("cpu", non_blocking=True)
        self._is_read = None
        if device.type != "cpu":
            self._is_read = torch.Event(device)
            self._is_read.record()

    def take(self, lost: Collection[int] = ()) -> list[int]:
        """Waits for the device, and records the tokens in the states.

        Args:
            lost: Requests that have left the batch since, whose tokens are not recorded.

        Returns:
            The token ids; 0 for a request whose state has an error now.

        Raises:
            torch.AcceleratorError: If the device cannot be used any more.
        """
        if self._is_read is not None:
            self._is_read.synchronize()
        values = iter(self._read.tolist())
        states, tokens = self._states, [int(next(values)) for _ in self._states]
        for indexes, _, _ in self._chosen:
            for index in indexes:
                _check_finite(states[index], next(values))
        for indexes, rows, chosen in self._chosen:
            if chosen.is_open is not None:
                flags = [next(values) for _ in rows.open_rows]
                places = {indexes[row]: place for place, row in enumerate(rows.open_rows) if flags[place]}
                retried = [index for index in places if states[index].error is None and index not in lost]
                run_isolated(partial(self._choose_again, chosen, places, tokens), retried, states)
        self._report_logprobs(values, tokens)
        for index, (state, token) in enumerate(zip(states, tokens, strict=True)):
            if state.error is None and index not in lost:
                try:
                    state.record(token)
                except Exception as error:
                    state.error = error
        return [token if state.error is None else 0 for token, state in zip(tokens, states, strict=True)]

    def _choose_again(self, chosen: Chosen, places: dict[int, int], tokens: list[int], indexes: Sequence[int]) -> None:
        """Chooses the tokens of requests which may get more than the likeliest tokens; see `run_isolated`."""
        assert chosen.open_logits is not None
        logits = chosen.open_logits[[places[index] for index in indexes]]
        rows = RowSettings([self._states[index] for index in indexes], logits.shape[1], logits.device)
        for index, token in zip(indexes, METHODS["open"](logits, rows).tokens.tolist(), strict=True):
            tokens[index] = token
            self.retried.append(index)

    def _report_logprobs(self, values: Iterator[float], tokens: Sequence[int]) -> None:
        """Puts the log-probabilities into the states."""
        if any(self._states[index].top_logprobs is not None for index in self.retried):
            final = index_tensor(tokens, self.tokens.device)
            self._numbers = self._logprobs.of_tokens(final)
            values = iter([number for _, numbers in self._numbers for number in numbers.flatten().tolist()])
        for indexes, numbers in self._numbers:
            for index in indexes:
                self._logprobs.report(index, [next(values) for _ in range(numbers.shape[1])])


def _joined(parts: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    if len(parts) == 1:
        return parts[0]
    return torch.cat(list(parts)) if parts else torch.zeros(0, dtype=torch.int64, device=device)


def _check_finite(state: SamplingState, largest_logit: float) -> None:
    """Fails a request whose logits are not finite."""
    if state.error is None and not math.isfinite(largest_logit):
        state.has_invalid_logits = True
        names = "" if state.rules is None else state.rules.shared.names
        field = None if state.matcher is None else state.matcher.field
        state.error = no_token_error(largest_logit, names, field)


def _change_logits(logits: torch.Tensor, states: Sequence[SamplingState], changes: TokenChanges) -> None:
    """Applies in place what changes logits before the temperature."""
    ruled = [index for index, state in enumerate(states) if state.rules is not None]
    shared = next((state.rules.shared for state in states if state.rules is not None), None)

    def apply(rule: Callable[[torch.Tensor, Sequence[RequestRules]], None], indexes: Sequence[int]) -> None:
        rows = index_tensor(indexes, logits.device)
        changed = logits.index_select(0, rows)  # a copy, so that a failure leaves the logits as they were
        rule(changed, [rules for index in indexes if (rules := states[index].rules) is not None])
        logits.index_copy_(0, rows, changed)

    if shared is not None and shared.comes_before_penalties:
        run_isolated(partial(apply, shared.before_penalties), ruled, states)
    changes.apply(logits)
    if shared is not None and shared.comes_after_penalties:
        run_isolated(partial(apply, shared.after_penalties), ruled, states)
    constrained = [index for index, state in enumerate(states) if state.matcher is not None]

    def hold_to_format(indexes: Sequence[int]) -> None:
        forbid(logits, [matcher for index in indexes if (matcher := states[index].matcher) is not None], indexes)

    run_isolated(hold_to_format, constrained, states)


def _groups(states: Sequence[SamplingState], logits: torch.Tensor) -> list[_Group]:
    """Returns the groups of requests that are sampled in the same way.

    Greedy requests beside sampled ones are those with a top-k of 1.
    """
    methods: dict[str, list[int]] = {}
    for index, state in enumerate(states):
        methods.setdefault(sampling_method(state, logits.shape[1]), []).append(index)
    if "likeliest" in methods and "greedy" in methods:
        methods["likeliest"] = sorted(methods["likeliest"] + methods.pop("greedy"))
    return [_Group(method, indexes, states, logits) for method, indexes in methods.items()]
