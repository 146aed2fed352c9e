"""The context window of a model, and of one whose positions are scaled beyond what it was first trained on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from abstractllm.errors import ConfigurationError

__all__ = ["context_window", "mixes_lengths", "reset_positions"]

_WINDOW_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx", "max_sequence_length")
_SCALED_NAMES = ("max_sequence_length", "max_seq_len", "seq_length")
"""Names under which a configuration gives the window with scaled positions beside the one without."""
_DEFAULT_WINDOW = 4096
"""The context window of a model that names none, such as a state-space model or one with ALiBi positions."""
_STRETCHED = ("linear", "dynamic")
"""Scalings beside which `max_position_embeddings` stays the length without scaling, as transformers documents."""
_FROM_ORIGINAL = ("yarn", "longrope", "su", "llama3")
"""Scalings that name the length without scaling themselves."""
_BY_LENGTH = ("dynamic", "longrope", "su")
"""Scalings whose positions depend on the longest text that is computed together."""
_LONGEST = "max_seq_len_cached"
"""The name, in transformers' modules of rotary positions, of the length that they are scaled to now."""
_TABLE = re.compile(r"(^|\.)(wpe|pos_emb\w*|positions?|positions?_emb\w*|emb\w*_positions?)$")
"""Names of tables of learned positions."""


def context_window(model: Any, tokenizer: Any, configured: int | None = None) -> int:
    """Returns the tokens of prompt and answer together that a model takes.

    Args:
        model: A transformers model.
        tokenizer: Its tokenizer.
        configured: The window that the configuration asks for; None for the model's.

    Raises:
        ConfigurationError: If the configured one is longer than a model with learned or tabulated positions has them.
    """
    config = model.config.get_text_config(decoder=True)
    named = next(
        (window for name in _WINDOW_NAMES if isinstance(window := getattr(config, name, None), int) and window > 0),
        None,
    )
    if configured is None:
        if named is not None:
            return max([named, *_scaled_windows(config, named)])
        # transformers gives 1e30 where the tokenizer names no length.
        return int(tokenizer.model_max_length) if tokenizer.model_max_length < 1e9 else _DEFAULT_WINDOW
    limit = _positions(model) if named is None or _rotations(config) else named
    if limit is not None and configured > limit:
        raise ConfigurationError(
            f"context_window: {configured} tokens are asked for, but this model has {limit} positions",
            field="context_window",
            limit=limit,
            requested=configured,
        )
    return configured


def mixes_lengths(model: Any, window: int) -> bool:
    """Returns True if one text's length changes the positions of others that are computed together with it.

    Args:
        model: A transformers model.
        window: The context window that it is used with.
    """
    config = model.config.get_text_config(decoder=True)
    for rotation in _rotations(config):
        kind, original = _kind(rotation), rotation.get("original_max_position_embeddings")
        trained = getattr(config, "max_position_embeddings", 0)
        if kind in _BY_LENGTH and window > (trained if kind == "dynamic" else original or trained):
            return True
    return False


def reset_positions(model: Any) -> None:
    """Forgets the longest text so far, by which dynamic scaling would change the positions of the next one."""
    if not any(_kind(rotation) == "dynamic" for rotation in _rotations(model.config.get_text_config(decoder=True))):
        return
    for module in model.modules():
        for name in [name for name in vars(module) if name.endswith(_LONGEST)]:
            prefix = name.removesuffix(_LONGEST)  # of the kind of layer, where each has its own
            original = getattr(module, f"{prefix}original_inv_freq", None)
            if original is not None:
                setattr(module, name, module.original_max_seq_len)
                setattr(module, f"{prefix}inv_freq", original.to(getattr(module, f"{prefix}inv_freq").device))


def _scaled_windows(config: Any, named: int) -> list[int]:
    """Returns the windows that the scaling of rotary positions gives, for each kind of layer that has one."""
    windows = []
    rotations = _rotations(config)
    is_by_layer = len(rotations) > 1
    for rotation in rotations:
        kind, factor = _kind(rotation), rotation.get("factor")
        original = rotation.get("original_max_position_embeddings")
        if not isinstance(factor, (int, float)) or factor <= 1:
            continue
        if kind in _STRETCHED and isinstance(original, int):
            windows.append(int(original * factor))
        elif kind in _STRETCHED and not is_by_layer:
            # Models with a scaling for some kinds of layers alone name the scaled length, as Gemma 3 does.
            windows.append(_named_scaled(config, named) or int(named * factor))
        elif kind in _FROM_ORIGINAL and isinstance(original, int) and (kind != "llama3" or named <= original):
            windows.append(int(original * factor))
    return windows


def _named_scaled(config: Any, named: int) -> int | None:
    """Returns the length that the configuration names beside `max_position_embeddings`, if that is no shorter."""
    values = [getattr(config, name, None) for name in _SCALED_NAMES]
    lengths = [value for value in values if isinstance(value, int) and value >= named]
    return max(lengths, default=None) if getattr(config, "max_position_embeddings", None) == named else None


def _rotations(config: Any) -> list[Mapping[str, Any]]:
    """Returns the parameters of rotary positions: one set for all layers, or one for each kind of layer."""
    parameters = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(parameters, Mapping):
        return []
    by_layer = [value for value in parameters.values() if isinstance(value, Mapping)]
    return by_layer or [parameters]


def _kind(rotation: Mapping[str, Any]) -> str:
    return str(rotation.get("rope_type") or rotation.get("type") or "default")


def _positions(model: Any) -> int | None:
    """Returns the length of the shortest table of learned positions; None without one."""
    lengths = [
        module.num_embeddings - int(getattr(module, "offset", 0))
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and _TABLE.search(name)
    ]
    return min(lengths, default=None)
