"""Attention, and other devices and other versions of PyTorch and transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from abstractllm.providers.huggingface.worker.batching import attention


def test_one_new_token_is_attended_whatever_the_layout_of_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = torch.randn(1, 4, 1, 8), torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)
    wanted = attention._attend(query, key, value, None, None, None, None)
    original = torch.nn.functional.scaled_dot_product_attention

    def on_a_gpu(*arguments: Any, **options: Any) -> torch.Tensor:
        # The kernel for float32 gives a result whose tokens and heads have changed places in memory.
        return original(*arguments, **options).transpose(1, 2).contiguous().transpose(1, 2)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", on_a_gpu)
    torch.testing.assert_close(attention._attend(query, key, value, None, None, None, None), wanted)


def test_pytorch_is_asked_for_shared_heads_only_where_it_has_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attention._varlen_options() == {"enable_gqa": True}
    monkeypatch.setattr(attention, "varlen_attn", lambda query, key, value, *, window_size: query)
    attention._varlen_options.cache_clear()
    assert attention._varlen_options() == {}
    monkeypatch.undo()
    attention._varlen_options.cache_clear()


def test_a_layer_may_have_put_its_keys_into_the_cache_itself() -> None:
    key, value = torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)
    query = torch.randn(1, 4, 2, 8)
    starts = {"cu_seq_lens_q": torch.tensor([0, 2]), "cu_seq_lens_k": torch.tensor([0, 5])}
    output, _ = attention.paged_attention(torch.nn.Module(), query, key, value, None, **starts)
    wanted = attention._attend(query, key, value, None, None, None, None).transpose(1, 2)
    torch.testing.assert_close(output, wanted)
