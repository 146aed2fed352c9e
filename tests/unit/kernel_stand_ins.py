"""Stand-ins for the kernels of a GPU, which compute the same on a CPU."""

from __future__ import annotations

import sys

import pytest
import torch

from abstractllm.providers.huggingface.worker.batching import attention
from tests.unit.architectures import packed_attention

_KERNELS = "abstractllm.providers.huggingface.worker.batching.paged_decode"


def stand_in_for_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the stand-ins into the attention by kernels."""
    module = type(sys)(_KERNELS)
    monkeypatch.setattr(module, "paged_decode", _paged_decode, raising=False)
    monkeypatch.setitem(sys.modules, _KERNELS, module)
    monkeypatch.setattr(attention, "varlen_attn", packed_attention)


def _paged_decode(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    block_table: torch.Tensor,
    lengths: torch.Tensor,
    slots: torch.Tensor,
    *,
    scaling: float,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """The same as the kernel, sequence by sequence."""
    output, page = torch.zeros_like(query), key_pages.shape[2]
    for index, (length, slot) in enumerate(zip(lengths.tolist(), slots.tolist(), strict=True)):
        if not length:
            continue
        places = torch.arange(length)
        numbers, offsets = block_table[index, places // page].long(), places % page
        for pages, new in ((key_pages, key), (value_pages, value)):
            pages[numbers[slot], :, offsets[slot]] = new[index]
        group = query.shape[1] // key.shape[1]
        keys, values = (each[numbers, :, offsets].repeat_interleave(group, 1) for each in (key_pages, value_pages))
        scores = torch.einsum("hd,nhd->hn", query[index], keys) * scaling
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if sinks is not None:
            scores = torch.cat((scores, sinks[:, None]), dim=1)
        output[index] = torch.einsum("hn,nhd->hd", scores.softmax(-1)[:, :length], values)
    return output
