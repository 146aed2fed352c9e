"""The attention that a model is switched to in a batch: over pages of the cache, each sequence to its own keys only.

Without flash attention, transformers' continuous batching builds one dense mask over all sequences of a batch and
computes the scores of each against the keys of all. Here the sequences with one new token are attended where their
pages are, all at once: by a kernel on a GPU, by padded calls of PyTorch's own operations anywhere. Prompts are attended
by PyTorch's flash attention, in half precision on a GPU, or by padded calls, too.
"""

from __future__ import annotations

import inspect
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface
from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

from abstractllm.providers.huggingface.worker.batching.cache_layout import LAYER_STEP, GroupStep, LayerStep
from abstractllm.providers.huggingface.worker.batching.padded_attention import (
    Scoring,
    attend_decoding,
    attend_prompts,
    gather_prompts,
)

__all__ = ["IN_PLACE_ATTENTION", "PAGED_ATTENTION", "candidates", "is_flash", "left_out", "register"]

PAGED_ATTENTION = "abstractllm_paged"
"""The name in transformers of the attention by PyTorch's own operations, which any device can do."""
IN_PLACE_ATTENTION = "abstractllm_in_place"
"""The name in transformers of the attention by kernels of a GPU."""
_HALF = (torch.float16, torch.bfloat16)


def register() -> None:
    """Registers the implementations with transformers."""
    AttentionInterface.register(PAGED_ATTENTION, paged_attention)
    AttentionInterface.register(IN_PLACE_ATTENTION, in_place_attention)


def is_flash(name: str) -> bool:
    """Tells whether an implementation is of a flash attention package, which reads the pages of the cache itself."""
    return name.startswith("flash_attention_")


def candidates(model: Any, cuda_graphs: bool | None) -> list[str]:
    """Returns the attention implementations to try for a batch, the fastest first; only packages that are installed.

    Args:
        model: A transformers model.
        cuda_graphs: Whether CUDA graphs must be used; None for where they can be. An implementation that needs the host
            between its kernels is left out where they must.
    """
    excluded = left_out(model, cuda_graphs)
    names = ("flash_attention_3", "flash_attention_2", IN_PLACE_ATTENTION, PAGED_ATTENTION)
    return [name for name in names if name not in excluded]


def left_out(model: Any, cuda_graphs: bool | None) -> dict[str, str]:
    """Returns the implementations that are not tried, each with the reason; see `candidates`."""
    reasons: dict[str, str] = {}
    has_triton = find_spec("triton") is not None
    installed = {"flash_attention_3": is_flash_attn_3_available(), "flash_attention_2": is_flash_attn_2_available()}
    for name, is_installed in installed.items():
        if model.device.type != "cuda":
            reasons[name] = f"not on {model.device.type}"
        elif model.dtype not in _HALF:
            reasons[name] = f"not in {_type_name(model.dtype)}"
        elif not model._supports_flash_attn:
            reasons[name] = "the model does not support it"
        elif not is_installed:
            reasons[name] = "its package is not installed"
        elif has_triton and _has_window(model):
            reasons[name] = "it does not read pages in place with a sliding window"
    if model.device.type != "cuda":
        reasons[IN_PLACE_ATTENTION] = f"not on {model.device.type}"
    elif model.dtype not in _HALF:
        reasons[IN_PLACE_ATTENTION] = f"not in {_type_name(model.dtype)}"
    elif not has_triton:
        reasons[IN_PLACE_ATTENTION] = "Triton is not installed"
    if cuda_graphs:
        reasons[PAGED_ATTENTION] = "CUDA graphs cannot hold it"
    return reasons


def _has_window(model: Any) -> bool:
    """Tells whether some layers of a model have a sliding window."""
    config = model.config.get_text_config(decoder=True)
    if layer_types := getattr(config, "layer_types", None):
        return "sliding_attention" in layer_types
    return getattr(config, "sliding_window", None) is not None


def _type_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def paged_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Puts the new keys and values into the cache and attends each sequence to its own, by PyTorch's own operations.

    Args:
        module: The attention layer.
        query: `[1, heads, new tokens of all sequences, head size]`.
        key: `[1, key heads, new tokens of all sequences, head size]`.
        value: As `key`.
        attention_mask: Not used: each token sees those before it in its sequence.
        scaling: The factor of the scores.
        softcap: Bounds the scores by `softcap * tanh(score / softcap)` (Gemma 2).
        sliding_window: Not used: the layer's pages hold no more than a window.
        s_aux: `[heads]`: attention sinks, a score beside those of the keys (GPT-OSS).
        **kwargs: Passed on by continuous batching: the layer's pages, or the cache that knows them.

    Returns:
        `[1, new tokens, heads, head size]`, and no weights.
    """
    layer = _layer_step(module, key, value, kwargs)
    scoring = Scoring(scaling, softcap, s_aux)
    outputs = []
    count, prompts = layer.group.decoding, layer.group.prompts
    if prompts is not None:
        keys, values = gather_prompts(key[:, :, count:], value[:, :, count:], layer)
        outputs.append(attend_prompts(query[:, :, count:], keys, values, layer.group, scoring))
    assert layer.group.written_rows is not None
    layer.pages.write(layer.group.written_rows, key, value)
    if count:
        outputs.insert(0, attend_decoding(query[:, :, :count], layer, scoring))
    return _joined(outputs), None


def in_place_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Puts the new keys and values into the cache and attends each sequence to its own, by kernels of a GPU.

    Only prompts of models with capped scores or attention sinks are attended by PyTorch's own operations. See
    `paged_attention`.
    """
    layer = _layer_step(module, key, value, kwargs)
    scoring = Scoring(scaling, softcap, s_aux)
    outputs = []
    group, count = layer.group, layer.group.decoding
    if group.table is not None and count:
        from abstractllm.providers.huggingface.worker.batching.paged_decode import paged_decode  # only where Triton is

        new = [each[0].transpose(0, 1)[:count] for each in (query, key, value)]
        output = paged_decode(
            new[0],
            new[1],
            new[2],
            layer.pages.keys,
            layer.pages.values,
            group.table.pages,
            group.table.lengths,
            group.table.slots,
            scaling=scaling,
            softcap=softcap,
            sinks=s_aux,
        )
        outputs.append(output.unsqueeze(0))
    if group.prompts is not None:
        new_key, new_value = key[:, :, count:], value[:, :, count:]
        keys, values = gather_prompts(new_key, new_value, layer)
        attend = _attend_packed if scoring.is_plain else attend_prompts
        outputs.append(attend(query[:, :, count:], keys, values, group, scoring))
        assert group.written_rows is not None
        layer.pages.write(group.written_rows, new_key, new_value)
    return _joined(outputs), None


def _layer_step(module: torch.nn.Module, key: torch.Tensor, value: torch.Tensor, kwargs: dict[str, Any]) -> LayerStep:
    """Returns what the layer reads and writes.

    The cache tells it, see `StepInputs`. Since transformers 5.24 each layer of a model calls the cache itself, before
    its attention, and does not pass it on.
    """
    if "cache" in kwargs:
        kwargs["cache"].update(key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs)
    layer = kwargs[LAYER_STEP]
    assert isinstance(layer, LayerStep)
    return layer


def _joined(outputs: list[torch.Tensor]) -> torch.Tensor:
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


def _attend_packed(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, group: GroupStep, scoring: Scoring
) -> torch.Tensor:
    """Attends all prompts in one kernel; see `attend_prompts`."""
    prompts = group.prompts
    assert prompts is not None
    output = varlen_attn(
        query[0].transpose(0, 1),
        keys,
        values,
        prompts.query_starts,
        prompts.key_starts,
        max(prompts.lengths),
        max(length + cached for length, cached in zip(prompts.lengths, prompts.cached, strict=True)),
        scale=scoring.scaling,
        window_size=(-1 if group.window is None else group.window - 1, 0),
        **_varlen_options(),
    )
    assert isinstance(output, torch.Tensor)
    return output.unsqueeze(0)


@cache
def _varlen_options() -> dict[str, Any]:
    """Returns what allows heads to share key heads: nothing in PyTorch 2.11, which always does, a switch after it."""
    return {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
