"""Sequences in a paged cache, and what attention in a decode step must give for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

OPTIONS: list[dict[str, Any]] = [
    {},
    {"softcap": 5.0, "window": 7},
    {"sinks": True, "window": 40},
    {"softcap": 30.0, "sinks": True},
]
SHAPES = [(4, 2, 64), (8, 8, 80), (6, 1, 16)]


class DecodeCase:
    """Random queries, keys and values of new tokens, and pages that hold those of earlier ones.

    Args:
        heads: The number of heads.
        key_heads: The number of heads of keys and values.
        size: The size of a head.
        lengths: The length of each sequence, its new token included; one of length 0 fills a captured graph.
        page: Tokens of a page.
        dtype: Of everything.
        device: Of everything.
    """

    def __init__(
        self,
        heads: int,
        key_heads: int,
        size: int,
        lengths: Sequence[int],
        page: int = 16,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        generator = torch.Generator().manual_seed(heads * size)
        count, of_each = len(lengths), -(-max(lengths) // page)

        def random(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator).to(device, dtype)

        self.lengths = lengths
        self.query = random(count, heads, size)
        self.key, self.value = random(count, key_heads, size), random(count, key_heads, size)
        self.pages = random(2 * count * of_each, key_heads, page, size)
        """Pages of keys and pages of values in turn."""
        numbers = torch.randperm(count * of_each, generator=generator).reshape(count, of_each)
        self.table = numbers.to(device, torch.int32)
        for row, length in zip(self.table, lengths, strict=True):
            row[-(-length // page) :] = -1  # which is no page

    def places(self, window: int | None) -> tuple[list[int], list[int]]:
        """Returns the slots that each new token sees, and its own; with a window, they are a ring."""
        if window is None:
            return list(self.lengths), [max(0, length - 1) for length in self.lengths]
        return [min(length, window) for length in self.lengths], [
            max(0, length - 1) % window for length in self.lengths
        ]

    def arguments(self, window: int | None = None) -> tuple[torch.Tensor, ...]:
        """Returns the arguments of `paged_decode`."""
        places = (torch.tensor(each, dtype=torch.int32, device=self.table.device) for each in self.places(window))
        return self.query, self.key, self.value, self.pages[::2], self.pages[1::2], self.table, *places

    def reference(
        self, softcap: float | None = None, window: int | None = None, sinks: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns what attention must give, and the pages afterwards; in float32 meanwhile."""
        output, pages = torch.zeros_like(self.query), self.pages.clone()
        group, page = self.query.shape[1] // self.key.shape[1], pages.shape[2]
        for index, (length, slot) in enumerate(zip(*self.places(window), strict=True)):
            if not length:
                continue
            slots = torch.arange(length, device=pages.device)
            numbers, offsets = self.table[index, slots // page].long(), slots % page
            pages[::2][numbers[slot], :, offsets[slot]] = self.key[index]
            pages[1::2][numbers[slot], :, offsets[slot]] = self.value[index]
            keys = pages[::2][numbers, :, offsets].float().repeat_interleave(group, dim=1)
            values = pages[1::2][numbers, :, offsets].float().repeat_interleave(group, dim=1)
            scores = torch.einsum("hd,nhd->hn", self.query[index].float(), keys) * self.query.shape[2] ** -0.5
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            if sinks is not None:
                scores = torch.cat((scores, sinks.float()[:, None]), dim=1)
            output[index] = torch.einsum("hn,nhd->hd", scores.softmax(dim=-1)[:, :length], values)
        return output, pages


def check(shape: tuple[int, int, int], options: dict[str, Any], case: DecodeCase, tolerance: float) -> None:
    """Compares the kernel with the reference.

    Args:
        shape: Heads, key heads and the size of a head.
        options: Those of `reference`; `sinks` is True for some.
        case: The sequences.
        tolerance: The largest difference.

    Raises:
        AssertionError: If they differ.
    """
    from abstractllm.providers.huggingface.worker.batching.paged_decode import paged_decode

    sinks = torch.linspace(-2, 2, shape[0]).to(case.query)
    chosen = options | ({"sinks": sinks} if "sinks" in options else {})
    wanted, pages = case.reference(**chosen)
    window = chosen.pop("window", None)
    output = paged_decode(*case.arguments(window), **chosen)
    torch.testing.assert_close(output, wanted, atol=tolerance, rtol=tolerance)
    assert torch.equal(case.pages, pages)


if __name__ == "__main__":
    from abstractllm.providers.huggingface.worker.batching import paged_decode

    paged_decode._PROGRAMS = 12  # the interpreter takes a while for each
    for shape in SHAPES:
        for options in OPTIONS:
            check(shape, options, DecodeCase(*shape, lengths=(1, 0, 5, 70)), tolerance=1e-5)
