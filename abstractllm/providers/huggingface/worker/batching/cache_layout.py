"""The places of keys and values in the cache, and what the layers of one kind read and write in a step.

transformers gives out the memory of the cache in blocks: a page of keys and a page of values for each layer. Within a
page, its own attention puts one token after another. Here a page has the tokens of one head after another, so that the
keys of a head can be read page by page, and lie in the order in which PyTorch's attention is fastest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

__all__ = [
    "LAYER_STEP",
    "CachedTokens",
    "DecodeChunk",
    "DecodeTable",
    "GatherBuffers",
    "GroupStep",
    "LayerPages",
    "LayerStep",
    "Prompts",
]

LAYER_STEP = "abstractllm_layer_step"
"""The name of the keyword argument by which the attention of a layer is handed its `LayerStep`."""


class LayerPages:
    """The pages of one layer.

    Args:
        allocator: transformers' allocator of the layer's pages.
        layer: The number of the layer.
    """

    def __init__(self, allocator: Any, layer: int) -> None:
        keys, values = allocator._kv_page_views[layer]
        pages, tokens, heads, size = keys.shape
        self.keys = keys.view(pages, heads, tokens, size)
        """`[pages, key heads, tokens of a page, head size]`."""
        self.values = values.view(pages, heads, tokens, size)
        """As `keys`."""

    @cached_property
    def rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values by token and head, each `[pages * key heads * tokens of a page, head size]`."""
        size = self.keys.shape[-1]
        return self.keys.view(-1, size), self.values.view(-1, size)

    @cached_property
    def head_pages(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values by page and head, each `[pages * key heads, tokens of a page * head size]`."""
        pages, heads, tokens, size = self.keys.shape
        return self.keys.view(pages * heads, tokens * size), self.values.view(pages * heads, tokens * size)

    def write(self, rows: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Puts keys and values into the cache.

        Args:
            rows: `[tokens * key heads]`: their places among `rows`.
            key: `[1, key heads, tokens, head size]`.
            value: As `key`.
        """
        for target, source in zip(self.rows, (key, value), strict=True):
            target.index_copy_(0, rows, source[0].transpose(0, 1).reshape(-1, source.shape[-1]))


@dataclass(frozen=True)
class DecodeTable:
    """The sequences with one new token, for a kernel that reads their pages where they are.

    With a window, the pages of a sequence are a ring of slots, in which a new token takes the place of the one that it
    no longer sees. For a single new token the order of keys does not matter.
    """

    pages: torch.Tensor
    """`[sequences, pages of a sequence]`, int32."""
    lengths: torch.Tensor
    """`[sequences]`, int32: the tokens that each new one sees, itself included; 0 for one that fills a captured graph.
    """
    slots: torch.Tensor
    """`[sequences]`, int32: the place of each new token among the slots of its pages."""


@dataclass(frozen=True)
class DecodeChunk:
    """Sequences with one new token each that are attended in one padded call."""

    begin: int
    end: int
    """The place after the last one."""
    head_pages: torch.Tensor
    """`[sequences * key heads * pages]`: their pages among a layer's `head_pages`, padded with pages of zeros."""
    mask: torch.Tensor
    """`[sequences, 1, 1, tokens of the pages]`: added to the scores; minus infinity where no token is."""


@dataclass(frozen=True)
class CachedTokens:
    """The tokens of prompts that are in the cache, and where they stand among all keys of these sequences.

    Of these keys each sequence has those of its cached tokens first, in their order.
    """

    rows: torch.Tensor
    """`[cached tokens * key heads]`: places among a layer's `rows`."""
    places: torch.Tensor
    """`[cached tokens]`: their places among all keys."""
    new_places: torch.Tensor
    """`[new tokens]`: those of the new tokens."""


@dataclass(frozen=True)
class Prompts:
    """The sequences of a step that have several new tokens; their tokens follow those of the others."""

    lengths: list[int]
    """The new tokens of each."""
    cached: list[int]
    """The tokens of each that are in the cache, and that its new ones see."""
    reads: CachedTokens | None
    """The places of those; None where no sequence has any."""
    query_starts: torch.Tensor
    """`[sequences + 1]`, int32: running sums of `lengths`."""
    key_starts: torch.Tensor
    """`[sequences + 1]`, int32: running sums of the cached and the new tokens."""


class GatherBuffers:
    """Memory into which pages are gathered, used again for each layer: fresh memory takes longer than the copy."""

    def __init__(self) -> None:
        self._buffers: dict[int, torch.Tensor] = {}

    def gather(self, pages: LayerPages, head_pages: torch.Tensor) -> list[torch.Tensor]:
        """Returns copies of pages of keys and of values, each `[pages and heads, tokens of a page * head size]`."""
        count, copies = head_pages.shape[0], []
        for index, source in enumerate(pages.head_pages):
            buffer = self._buffers.get(index)
            if buffer is None or buffer.shape[0] < count:
                buffer = self._buffers[index] = source.new_empty((count, source.shape[1]))
            copies.append(torch.index_select(source, 0, head_pages, out=buffer[:count]))
        return copies


@dataclass
class GroupStep:
    """The keys and values that the layers of one kind read and write in a step."""

    window: int | None
    """The number of tokens that each token sees, itself included; None for all before it."""
    decoding: int
    """Sequences with one new token; they come first."""
    table: DecodeTable | None
    """The sequences with one new token, if a kernel attends them."""
    chunks: list[DecodeChunk]
    """The sequences with one new token, unless a kernel attends them."""
    prompts: Prompts | None
    written_rows: torch.Tensor | None
    """`[tokens * key heads]`: the places of new tokens among a layer's `rows`, of those of prompts alone where a kernel
    writes the others."""
    buffers: GatherBuffers
    masks: dict[tuple[int, ...], torch.Tensor] = field(default_factory=dict)
    """Masks of prompts, which are the same for each layer."""


@dataclass(frozen=True)
class LayerStep:
    """The keys and values that one layer reads and writes in a step."""

    pages: LayerPages
    group: GroupStep
