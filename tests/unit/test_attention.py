"""Attention over pages of the cache, against the formula computed token by token, and other versions of PyTorch."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from abstractllm.providers.huggingface.worker.batching import attention, padded_attention
from abstractllm.providers.huggingface.worker.batching.cache_layout import LAYER_STEP, LayerStep
from abstractllm.providers.huggingface.worker.batching.group_inputs import GroupInputs, Sequences
from tests.unit.architectures import packed_attention

PAGE, HEADS, KEY_HEADS, SIZE = 4, 4, 2, 8
OPTIONS: list[dict[str, Any]] = [{}, {"softcap": 2.0}, {"s_aux": True}, {"softcap": 3.0, "s_aux": True}]


class Pages:
    """A paged cache of one layer, and all keys and values that its sequences have had so far.

    Args:
        window: Of a layer with a sliding window.
        has_kernel: Whether a kernel attends sequences with one new token.
    """

    def __init__(self, window: int | None = None, has_kernel: bool = False) -> None:
        count = 400
        # What was left there by others is no number, but for the first page.
        memory = torch.full((count + 1, PAGE, KEY_HEADS, SIZE), math.nan)
        memory[:2] = 0.0
        self.allocator = SimpleNamespace(
            layer_indices=[0],
            layer_type="full_attention",
            _kv_page_views={0: (memory[:-1], memory[1:])},
            _copy_view=memory[:-1].view(count // 2, -1),
            block_table={},
            tokens_per_page=PAGE,
            num_key_value_heads=KEY_HEADS,
            head_dim=SIZE,
            cache_dtype=torch.float32,
            block_physical_stride=2 * PAGE,
            write_trash_index=2 * PAGE,
        )
        if window is not None:
            self.allocator.sliding_window = window
        self.window = window
        self.group = GroupInputs(self.allocator, 16, 500, torch.device("cpu"), has_kernel=has_kernel)
        self.keys: dict[str, torch.Tensor] = {}
        self.values: dict[str, torch.Tensor] = {}
        self._free = list(np.random.default_rng(0).permutation(np.arange(2, count // 2)).tolist())
        self._random = torch.Generator().manual_seed(1)

    def step(self, lengths: dict[str, int], **options: Any) -> None:
        """Attends new tokens of some sequences, and compares with the formula.

        Args:
            lengths: The number of new tokens of each.
            **options: Of the attention.
        """
        ordered = sorted(lengths, key=lambda id: (lengths[id] > 1, len(self.keys.get(id, ()))))
        lengths = {id: lengths[id] for id in ordered}
        past = np.array([len(self.keys.get(id, ())) for id in lengths])
        for id, before in zip(lengths, past, strict=True):
            held = min(before + lengths[id], self.window or 10**9)
            table = self.allocator.block_table.setdefault(id, [])
            table.extend(self._free.pop() for _ in range(-(-held // PAGE) - len(table)))
        sequences = Sequences(list(lengths), past, np.array(list(lengths.values())))
        self.group.prepare(sequences, sequences.decoding)
        query, key, value = (
            torch.randn(1, heads, sequences.tokens, SIZE, generator=self._random)
            for heads in (HEADS, KEY_HEADS, KEY_HEADS)
        )
        if "s_aux" in options:
            options["s_aux"] = torch.linspace(-1, 1, HEADS)
        assert self.group.step is not None
        layer = LayerStep(self.group.layers[0], self.group.step)
        output, _ = attention.paged_attention(
            torch.nn.Module(), query, key, value, None, **options, **{LAYER_STEP: layer}
        )
        begin = 0
        for id, length in lengths.items():
            end = begin + length
            for kept, new in ((self.keys, key), (self.values, value)):
                of_id = new[0, :, begin:end].transpose(0, 1)
                kept[id] = torch.cat((kept.get(id, of_id[:0]), of_id))
            torch.testing.assert_close(output[0, begin:end], self.wanted(id, query[0, :, begin:end], **options))
            begin = end

    def wanted(
        self, id: str, query: torch.Tensor, softcap: float | None = None, s_aux: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The last tokens' `[tokens, heads, head size]`, by the formula."""
        keys, values = (each[id].repeat_interleave(HEADS // KEY_HEADS, 1) for each in (self.keys, self.values))
        total = len(keys)
        rows = []
        for index in range(query.shape[1]):
            end = total - query.shape[1] + index + 1
            begin = 0 if self.window is None else max(0, end - self.window)
            scores = torch.einsum("hd,nhd->hn", query[:, index], keys[begin:end]) * SIZE**-0.5
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            if s_aux is not None:
                scores = torch.cat((scores, s_aux[:, None]), dim=1)
            rows.append(torch.einsum("hn,nhd->hd", scores.softmax(-1)[:, : end - begin], values[begin:end]))
        return torch.stack(rows)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("window", [None, 3, 8, 10])
def test_tokens_see_those_before_them_in_steps_of_every_kind(window: int | None, options: dict[str, Any]) -> None:
    pages = Pages(window)
    pages.step({"a": 1, "b": 5, "c": 4, "d": 7}, **options)  # prompts, one of a single token
    pages.step({"a": 1, "b": 1, "c": 1, "d": 1}, **options)
    pages.step({"a": 1, "c": 1, "e": 3, "b": 9, "f": 6}, **options)  # new prompts beside a later piece of one
    pages.step({"g": 30}, **options)
    for _ in range(2 * PAGE):
        pages.step({"a": 1, "e": 1, "d": 1, "f": 1, "b": 1, "g": 1}, **options)
    pages.step({"g": 13, "a": 12}, **options)


def test_long_prompts_are_attended_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(padded_attention, "_SCORE_BYTES", 400)
    for options in OPTIONS:
        pages = Pages(window=9)
        pages.step({"a": 20, "b": 20}, **options)
        pages.step({"a": 20, "b": 3}, **options)


def test_sequences_are_padded_to_those_of_about_their_length() -> None:
    def runs(lengths: list[int], most: int = 10**6) -> list[tuple[int, int]]:
        return list(padded_attention._similar(lengths, most))

    assert runs([16] * 64) == [(0, 64)]
    assert runs([16, 32, 32, 48]) == [(0, 4)]
    assert runs([16] * 32 + [1024] * 32) == [(0, 32), (32, 64)]
    assert runs([100, 100, 100], most=200) == [(0, 2), (2, 3)]
    assert runs([1000, 1000], most=200) == [(0, 1), (1, 2)]
    assert runs([]) == []
    wasted = [sum((end - begin) * lengths[end - 1] for begin, end in runs(lengths)) / sum(lengths)
              for lengths in (list(range(1, 65)), [2**power for power in range(12)])]  # fmt: skip
    assert max(wasted) <= 2


def test_one_padded_call_attends_all_sequences_that_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = torch.nn.functional.scaled_dot_product_attention

    def counting(query: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(query.shape)
        return original(query, *arguments, **options)

    pages = Pages()
    pages.step({"a": 5, "b": 7, "c": 6})
    monkeypatch.setattr(padded_attention, "scaled_dot_product_attention", counting)
    pages.step({"a": 1, "c": 1, "b": 1})
    assert [shape[0] for shape in calls] == [3]
    calls.clear()
    pages.step({"a": 1, "c": 1, "d": 5, "e": 5, "f": 4})
    assert sorted(shape[0] for shape in calls) == [2, 3]


def test_one_new_token_is_attended_whatever_the_layout_of_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    original = torch.nn.functional.scaled_dot_product_attention

    def on_a_gpu(*arguments: Any, **options: Any) -> torch.Tensor:
        # The kernel for float32 gives a result whose tokens and heads have changed places in memory.
        return original(*arguments, **options).transpose(1, 2).contiguous().transpose(1, 2)

    monkeypatch.setattr(padded_attention, "scaled_dot_product_attention", on_a_gpu)
    pages = Pages()
    pages.step({"a": 5, "b": 3})
    pages.step({"b": 1, "a": 1})


@pytest.mark.parametrize("window", [None, 6])
def test_prompts_are_packed_for_pytorchs_flash_attention(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "varlen_attn", packed_attention)
    monkeypatch.setattr(
        attention, "paged_attention", lambda *arguments, **options: attention.in_place_attention(
            *arguments, **{"scaling": SIZE**-0.5, **options}
        )
    )  # fmt: skip
    pages = Pages(window, has_kernel=True)
    pages.step({"a": 7, "b": 3})
    pages.step({"a": 2, "c": 4, "b": 9})


def test_pytorch_is_asked_for_shared_heads_only_where_it_has_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "varlen_attn", lambda query, key, value, *, enable_gqa, window_size: query)
    attention._varlen_options.cache_clear()
    assert attention._varlen_options() == {"enable_gqa": True}
    monkeypatch.setattr(attention, "varlen_attn", lambda query, key, value, *, window_size: query)
    attention._varlen_options.cache_clear()
    assert attention._varlen_options() == {}
    monkeypatch.undo()
    attention._varlen_options.cache_clear()
