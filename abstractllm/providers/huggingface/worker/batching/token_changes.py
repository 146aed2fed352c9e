"""The bias and the penalties of a batch: one table of the tokens whose logits they change.

The table has an entry for each request and each distinct token that its bias or its penalties concern. It is made when
the batch changes. With each step the entries of the tokens that came last are written, all of them in one copy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from abstractllm.providers.huggingface.worker.batching.isolation import run_isolated
from abstractllm.providers.huggingface.worker.batching.sampling_state import SamplingState
from abstractllm.providers.huggingface.worker.device_tensors import to_device

__all__ = ["TokenChanges"]

_SPARE = 32
"""Steps for whose new tokens a table has entries; then it is made anew."""

_Places = npt.NDArray[np.int64]
_Values = npt.NDArray[np.float32]


class TokenChanges:
    """The bias and the penalties of a batch.

    Args:
        states: The states of all requests of the batch, in the order of the logits.
    """

    def __init__(self, states: Sequence[SamplingState]) -> None:
        self._states = states
        self._indexes = [index for index, state in enumerate(states) if state.changes_logits]
        """The requests that have a bias or penalties."""
        self._table: _Table | None = None

    def apply(self, logits: torch.Tensor) -> None:
        """Changes logits in place; only those of tokens that are concerned are touched.

        Args:
            logits: `[requests, vocabulary]`.
        """
        run_isolated(lambda indexes: self._apply(logits, indexes), self._indexes, self._states)

    def _apply(self, logits: torch.Tensor, indexes: Sequence[int]) -> None:
        if indexes is not self._indexes:
            _Table(self._states, indexes, logits.device).apply(logits)
            return
        table, self._table = self._table, None  # one that has failed is not used again
        if table is None or not table.follow():
            table = _Table(self._states, indexes, logits.device)
        table.apply(logits)
        self._table = table


class _Table:
    """The entries of some requests.

    Args:
        states: The states of all requests of the batch.
        indexes: The requests that are in the table.
        device: The device of the logits.
    """

    def __init__(self, states: Sequence[SamplingState], indexes: Sequence[int], device: torch.device) -> None:
        self._device = device
        self._followed = [(index, states[index]) for index in indexes if states[index].counts is not None]
        self._sampled = [state.sampled for _, state in self._followed]
        """The tokens that each had when its entries were last written."""
        self._entries: dict[int, dict[int, int]] = {}
        """The entry of each token that is not in a request's counts from the beginning, by request and token."""
        self._begins: dict[int, tuple[int, int]] = {}
        """The first entry of each request, and the number of entries of its counts."""
        places, values = zip(*(self._of_request(states[index], index) for index in indexes), strict=True)
        self._size, count = 0, sum(part.shape[1] for part in places)
        for index, part in zip(indexes, places, strict=True):
            counts = states[index].counts
            counted = 0 if counts is None else len(counts.tokens)
            self._begins[index] = (self._size, counted)
            others = range(self._size + counted, self._size + part.shape[1])
            self._entries[index] = dict(zip(part[1, counted:].tolist(), others, strict=True))
            self._size += part.shape[1]
        spare = np.zeros((2, _SPARE * len(self._followed)), dtype=np.int64)
        self._places = to_device(np.concatenate((*places, spare), axis=1), device)
        """`[2, entries]`: the row and the token of each entry."""
        blank = np.zeros((3, spare.shape[1]), dtype=np.float32)
        self._values = to_device(np.concatenate((*values, blank), axis=1), device)
        """`[3, entries]`: the bias, the factor of a repetition, and what is taken off."""
        assert self._size == count

    def apply(self, logits: torch.Tensor) -> None:
        """Changes logits in place."""
        row, token = self._places[:, : self._size]
        bias, factor, less = self._values[:, : self._size]
        biased = logits[row, token] + bias
        penalized = torch.where(biased < 0, biased * factor, biased / factor)
        logits.index_put_((row, token), penalized - less)

    def follow(self) -> bool:
        """Writes the entries of the tokens that came since; returns False if the table has to be made anew."""
        if not self._followed:
            return True
        if any(state.sampled != then + 1 for (_, state), then in zip(self._followed, self._sampled, strict=True)):
            return False
        places = np.empty((3, len(self._followed)), dtype=np.int64)
        values = np.empty((3, len(self._followed)), dtype=np.float32)
        for column, (index, state) in enumerate(self._followed):
            assert state.counts is not None
            token, generated, place = state.counts.last
            begin, counted = self._begins[index]
            entry = begin + place if place < counted else self._entries[index].get(token)
            if entry is None:
                if self._size == self._places.shape[1]:
                    return False
                entry = self._entries[index][token] = self._size
                self._size += 1
            places[:, column] = entry, index, token
            values[:, column] = _values(state, token, generated)
        self._sampled = [state.sampled for _, state in self._followed]
        changed = to_device(places, self._device)
        self._places.index_copy_(1, changed[0], changed[1:])
        self._values.index_copy_(1, changed[0], to_device(values, self._device))
        return True

    @staticmethod
    def _of_request(state: SamplingState, index: int) -> tuple[_Places, _Values]:
        """Returns the places and the values of a request's entries, those of its counts first."""
        settings, counts = state.settings, state.counts
        tokens = np.zeros(0, dtype=np.int64) if counts is None else counts.tokens
        generated = np.zeros(0, dtype=np.float32) if counts is None else counts.generated
        counted = set(tokens.tolist()) if settings.logit_bias else set()
        others = [token for token in settings.logit_bias if token not in counted]
        places = np.empty((2, len(tokens) + len(others)), dtype=np.int64)
        places[0] = index
        places[1, : len(tokens)] = tokens
        places[1, len(tokens) :] = others
        values = np.zeros((3, places.shape[1]), dtype=np.float32)
        if settings.logit_bias:
            values[0] = [settings.logit_bias.get(token, 0.0) for token in places[1].tolist()]
        values[1] = 1.0
        values[1, : len(tokens)] = settings.repetition_penalty
        values[2, : len(tokens)] = settings.reduction(generated)
        return places, values


def _values(state: SamplingState, token: int, generated: float) -> tuple[float, float, float]:
    """Returns the values of the entry of a token that has been generated."""
    settings = state.settings
    return settings.logit_bias.get(token, 0.0), settings.repetition_penalty, settings.reduction(generated)
