"""The keys and values that the layers of one kind, such as those with a sliding window, read and write in a step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from abstractllm.providers.huggingface.worker.batching.cache_layout import (
    CachedTokens,
    DecodeChunk,
    DecodeTable,
    GatherBuffers,
    GroupStep,
    LayerPages,
    Prompts,
)
from abstractllm.providers.huggingface.worker.batching.padded_attention import decode_chunks
from abstractllm.providers.huggingface.worker.device_tensors import to_device

__all__ = ["GroupInputs", "Sequences"]


class Sequences:
    """The sequences of a step, those with one new token first.

    Args:
        ids: The id of each request.
        past: `[sequences]`: the tokens of each before the step.
        lengths: `[sequences]`: the new tokens of each.
    """

    def __init__(self, ids: list[str], past: np.ndarray, lengths: np.ndarray) -> None:
        self.ids, self.past, self.lengths = ids, past, lengths
        self.decoding = int((lengths == 1).sum())
        """The number of those with one new token."""
        self.starts = _running_sums(lengths)
        """`[sequences + 1]`: where the new tokens of each begin, and the last ones end."""
        self.tokens = int(self.starts[-1])
        """The number of new tokens."""
        self.of_tokens = np.arange(len(ids)).repeat(lengths)
        """`[new tokens]`: the sequence of each."""
        self.positions = np.arange(self.tokens) + (past - self.starts[:-1])[self.of_tokens]
        """`[new tokens]`: the place of each in its sequence."""


class GroupInputs:
    """Finds the places of keys and values in the pages of one kind of layers.

    Args:
        allocator: transformers' allocator of these pages.
        requests: The most requests in a step.
        longest: The most tokens of a request.
        device: The device of the model.
        has_kernel: Whether a kernel attends the sequences with one new token, and puts their keys into the cache.
    """

    def __init__(self, allocator: Any, requests: int, longest: int, device: torch.device, *, has_kernel: bool) -> None:
        self.layers = {layer: LayerPages(allocator, layer) for layer in allocator.layer_indices}
        """The pages of each layer, by its number."""
        self.step: GroupStep | None = None
        """The last step that was prepared."""
        self._allocator, self._device, self._has_kernel = allocator, device, has_kernel
        self._window: int | None = getattr(allocator, "sliding_window", None)
        self._page: int = allocator.tokens_per_page
        self._heads: int = allocator.num_key_value_heads
        self._like = torch.empty(0, dtype=allocator.cache_dtype, device=device)
        self._pages_of_block = allocator.block_physical_stride // self._page
        self._unread_page = allocator.write_trash_index // self._page
        self._head_offsets = torch.arange(self._heads, device=device) * self._page
        self._buffers = GatherBuffers()
        self._rows_of_requests: dict[str, _Row] = {}
        pages = -(-min(longest, self._window or longest) // self._page)
        is_pinned = device.type == "cuda"
        # One is written while the copy out of the other may still wait for its turn.
        self._tables = [torch.zeros((requests, pages), dtype=torch.int32, pin_memory=is_pinned) for _ in range(2)]
        self._bounds = [torch.zeros((2, requests), dtype=torch.int32, pin_memory=is_pinned) for _ in range(2)]
        # A captured graph reads these.
        self._device_table = torch.zeros_like(self._tables[0], device=device)
        self._device_bounds = torch.zeros_like(self._bounds[0], device=device)

    def prepare(self, sequences: Sequences, size: int) -> None:
        """Finds what the layers read and write in a step.

        Args:
            sequences: The sequences.
            size: The number of sequences with one new token, or more, where a captured graph is filled.
        """
        self._tables.reverse()
        self._bounds.reverse()
        table = self._fill_table(sequences)
        lengths = sequences.past[: sequences.decoding] + 1
        if self._window is not None:
            lengths = np.minimum(lengths, self._window)
        if self._has_kernel:
            decode_table, chunks = self._decode_table(sequences, lengths, table.shape[1], size), []
            written = slice(sequences.decoding, None)
        else:
            self._wipe_new_pages(sequences, table)
            decode_table, chunks = None, self._chunks(table[: sequences.decoding], lengths)
            written = slice(None)
        self.step = GroupStep(
            window=self._window,
            decoding=size,
            table=decode_table,
            chunks=chunks,
            prompts=self._prompts(sequences, table),
            written_rows=self._written_rows(sequences, table, written),
            buffers=self._buffers,
        )

    def has_room(self, request_id: str, length: int) -> bool:
        """Tells whether a request has pages for so many tokens already."""
        if self._window is not None:
            length = min(length, self._window)
        return length <= len(self._allocator.block_table.get(request_id, ())) * self._page

    def forget(self, request_id: str) -> None:
        """Reads the pages of a request anew in the next step, since some of them have been replaced by others."""
        self._rows_of_requests.pop(request_id, None)

    def _fill_table(self, sequences: Sequences) -> np.ndarray:
        """Returns `[sequences, pages]`: the pages of each sequence, padded with a page of zeros."""
        block_table, kept_rows = self._allocator.block_table, self._rows_of_requests
        if len(kept_rows) > 2 * len(self._tables[0]):
            self._rows_of_requests = kept_rows = {id: row for id, row in kept_rows.items() if id in block_table}
        rows = []
        for id in sequences.ids:
            blocks, row = block_table[id], kept_rows.get(id)
            if row is None or row.blocks is not blocks:
                row = kept_rows[id] = _Row(blocks, self._tables[0].shape[1])
            if row.count < len(blocks):
                row.extend()
            rows.append(row)
        table: np.ndarray = self._tables[0].numpy()[: len(rows), : max(row.count for row in rows)]
        for target, row in zip(table, rows, strict=True):
            target[:] = row.numbers[: len(target)]
        table *= self._pages_of_block
        return table

    def _decode_table(self, sequences: Sequences, lengths: np.ndarray, pages: int, size: int) -> DecodeTable:
        """Copies the table to the device, to where a captured graph reads it."""
        bounds = self._bounds[0].numpy()
        bounds[:, :size] = 0
        bounds[0, : sequences.decoding] = lengths
        bounds[1, : sequences.decoding] = self._slots(sequences.past[: sequences.decoding])
        self._device_table[:size, :pages].copy_(self._tables[0][:size, :pages], non_blocking=True)
        self._device_bounds[:, :size].copy_(self._bounds[0][:, :size], non_blocking=True)
        return DecodeTable(self._device_table[:size], self._device_bounds[0, :size], self._device_bounds[1, :size])

    def _chunks(self, table: np.ndarray, lengths: np.ndarray) -> list[DecodeChunk]:
        if not len(lengths):
            return []
        head_bytes = self._allocator.head_dim * self._like.itemsize
        return decode_chunks(table, lengths, self._page, head_bytes, self._heads, self._like)

    def _wipe_new_pages(self, sequences: Sequences, table: np.ndarray) -> None:
        """Puts zeros into the last page of each sequence where it is new.

        Padded calls read whole pages. What an earlier request has left there gets no weight, but if it is not a number,
        its product with zero is none either.
        """
        before, after = (
            -(-(lengths if self._window is None else np.minimum(lengths, self._window)) // self._page)
            for lengths in (sequences.past, sequences.past + sequences.lengths)
        )
        has_new = np.flatnonzero(after > before)
        if len(has_new):
            blocks = table[has_new, after[has_new] - 1] // self._pages_of_block
            self._allocator._copy_view.index_fill_(0, self._to_device(blocks.astype(np.int64)), 0)

    def _written_rows(self, sequences: Sequences, table: np.ndarray, written: slice) -> torch.Tensor | None:
        """Returns the places of new tokens; those that no later token will see go to a page that nobody reads."""
        of_tokens, positions = sequences.of_tokens[written], sequences.positions[written]
        if not len(positions):
            return None
        slots = self._slots(positions)
        pages = table[of_tokens, slots // self._page]
        if self._window is not None:
            ends = (sequences.past + sequences.lengths)[of_tokens]
            pages = np.where(positions < ends - self._window, self._unread_page, pages)
        return self._rows(pages, slots)

    def _prompts(self, sequences: Sequences, table: np.ndarray) -> Prompts | None:
        first = sequences.decoding
        past, lengths = sequences.past[first:], sequences.lengths[first:]
        if not len(lengths):
            return None
        # A ring does not hold the token any more whose place the first new one takes.
        cached = past if self._window is None else np.minimum(past, self._window - 1)
        key_starts, query_starts, cached_starts = map(_running_sums, (cached + lengths, lengths, cached))
        reads = None
        if cached_starts[-1]:
            positions = np.arange(cached_starts[-1]) + (past - cached - cached_starts[:-1]).repeat(cached)
            slots = self._slots(positions)
            of_tokens = np.arange(first, first + len(lengths)).repeat(cached)
            places = np.arange(cached_starts[-1]) + (key_starts[:-1] - cached_starts[:-1]).repeat(cached)
            new_places = np.arange(query_starts[-1]) + (key_starts[:-1] + cached - query_starts[:-1]).repeat(lengths)
            reads = CachedTokens(
                rows=self._rows(table[of_tokens, slots // self._page], slots),
                places=self._to_device(places),
                new_places=self._to_device(new_places),
            )
        return Prompts(
            lengths=lengths.tolist(),
            cached=cached.tolist(),
            reads=reads,
            query_starts=self._to_device(query_starts.astype(np.int32)),
            key_starts=self._to_device(key_starts.astype(np.int32)),
        )

    def _slots(self, positions: np.ndarray) -> np.ndarray:
        """Returns the slots of tokens among those of their sequence's pages."""
        return positions if self._window is None else positions % self._window

    def _rows(self, pages: np.ndarray, slots: np.ndarray) -> torch.Tensor:
        """Returns `[tokens * key heads]`: places among `LayerPages.rows`."""
        first_rows = pages.astype(np.int64) * (self._heads * self._page) + slots % self._page
        rows: torch.Tensor = self._to_device(first_rows)[:, None] + self._head_offsets
        return rows.reshape(-1)

    def _to_device(self, values: np.ndarray) -> torch.Tensor:
        return to_device(values, self._device)


class _Row:
    """The blocks of a request as a row of a table; those that are added later are appended.

    Args:
        blocks: The allocator's list of them, which it extends.
        width: The most blocks of a request.
    """

    __slots__ = ("blocks", "count", "numbers")

    def __init__(self, blocks: list[int], width: int) -> None:
        self.blocks = blocks
        self.count = 0
        """The number of blocks in the row."""
        self.numbers = np.zeros(width, np.int32)
        """`[width]`: the blocks, and zeros."""

    def extend(self) -> None:
        """Appends the blocks that have been added to the list."""
        self.numbers[self.count : len(self.blocks)] = self.blocks[self.count :]
        self.count = len(self.blocks)


def _running_sums(values: np.ndarray) -> np.ndarray:
    """Returns the running sums, from 0."""
    return np.concatenate((np.zeros(1, np.int64), values.cumsum()))
