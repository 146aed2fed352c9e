"""The check that all of a model was loaded, and all of its checkpoint used: transformers only warns of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from abstractllm.errors import ModelLoadError
from abstractllm.providers.huggingface.worker.checkpoint.files import integer_tensors, tensor_values

__all__ = ["check_load_report", "naming_conversion_errors"]

_NAMED_KEYS = 5
"""Keys in an error message, at most."""
_INDEX = re.compile(r"(?<=\.)\d+(?=\.)")
_BUFFERS = re.compile(
    r"(^|\.)(masked_bias|causal_mask|inv_freq|position_ids|num_batches_tracked|[qkv]_scale|prob_scale)$"
)
"""Names of tensors that are computed anew today, and of scales for a cache in eight bits."""
_MASK_DIMENSIONS = 4
"""Of a causal mask, which older checkpoints have among their weights, under the name of a bias."""
_HEADS = re.compile(
    r"(^|\.)(score|classifier|classification_head|qa_outputs|reward_head|regression_head|value_model|pooler)\."
)
"""Modules of heads that are not a language model's."""
_ADAPTERS = re.compile(r"\.(lora_[ABE]|lora_embedding_[AB]|base_layer|ia3_l|modules_to_save|hada_w\d_[ab])(\.|$)")
"""Parts of the keys of adapters."""

_CONVERSION = re.compile(r"^(?:\x1b\[\d+m)?(\S.*?)\s+\|\s+(?:\x1b\[\d+m)*CONVERSION", re.MULTILINE)
"""A row of transformers' report: weights that could not be brought into the form that the model has them in."""
_logger = logging.getLogger("transformers.modeling_utils")


@contextmanager
def naming_conversion_errors(name: str) -> Iterator[None]:
    """Names the weights that transformers cannot convert, such as experts of which some are missing, in a `with` block.

    transformers names them in a warning, and raises an error that refers to it.

    Args:
        name: The model's name in messages.

    Raises:
        ModelLoadError: If loading fails within the block for weights that cannot be converted.
    """
    reports = _Reports()
    level = _logger.level
    _logger.addHandler(reports)
    _logger.setLevel(logging.WARNING)
    try:
        yield
    except RuntimeError as error:
        keys = sorted({match[1] for text in reports.texts for match in _CONVERSION.finditer(text)})
        if not keys:
            raise
        raise _error(name, "weights are missing from its checkpoint, or do not fit together", keys) from error
    finally:
        _logger.removeHandler(reports)
        _logger.setLevel(level)


class _Reports(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a record's text."""
        self.texts.append(record.getMessage())


def check_load_report(model: Any, report: dict[str, Any], files: Sequence[Path], name: str) -> None:
    """Checks what transformers reports of loading a model.

    Args:
        model: The model.
        report: The loading information: missing, mismatched and unexpected keys. Weights that are tied are not missing.
        files: The files of the weights.
        name: The model's name in messages.

    Raises:
        ModelLoadError: If a weight is not in the checkpoint, or has another shape there, and so would be random, or if
            the checkpoint has weights in the layers that the model leaves out; the keys are named.
    """
    kind = type(model).__name__
    missing, unexpected = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    if adapters := [key for key in unexpected if _ADAPTERS.search(key)]:
        raise _error(name, "its weights hold those of an adapter, which must be merged into them first", adapters)
    if report["mismatched_keys"]:
        shapes = [
            f"{key} is {list(stored)} in the checkpoint and {list(expected)} in the model"
            for key, stored, expected in sorted(report["mismatched_keys"])
        ]
        raise _error(name, f"its weights do not fit {kind} as config.json describes it", shapes)
    if missing:
        hint = f" (it has {', '.join(unexpected[:_NAMED_KEYS])} instead)" if unexpected else ""
        raise _error(name, f"weights of {kind} are not in its checkpoint{hint}", missing)
    if heads := [key for key in unexpected if _HEADS.search(key)]:
        raise _error(name, f"its checkpoint has another head than that of {kind}", heads)
    if packed := _packed_weights(model, files):
        raise _error(name, "its weights are quantized, and config.json does not say in which way", packed)
    if left_out := _left_out(model, unexpected, files):
        raise _error(name, f"its checkpoint has weights that {kind}, as config.json describes it, leaves out", left_out)


def _packed_weights(model: Any, files: Sequence[Path]) -> list[str]:
    """Returns the names of weights that are whole numbers in the checkpoint, though the model is not quantized."""
    if getattr(model, "hf_quantizer", None) is not None:
        return []
    parameters = {key for key, parameter in model.named_parameters() if parameter.is_floating_point()}
    return [key for key in integer_tensors(files) if _own_name(model, key, parameters) is not None]


def _left_out(model: Any, unexpected: Collection[str], files: Sequence[Path]) -> list[str]:
    """Returns the unexpected keys that belong to the model's own layers, and would change its answers.

    Parts beside the layers, such as a vision tower or the layers of multi-token prediction, are not needed for text.
    """
    if not unexpected:
        return []
    expected = set(model.state_dict())
    modules = {module for module, _ in model.named_modules()}
    is_quantized = getattr(model, "hf_quantizer", None) is not None
    extra_layers = _prediction_layers(model.config)
    return [
        key
        for key in unexpected
        if not _BUFFERS.search(key)
        and (
            _is_of_another_layer(model, key, expected, extra_layers)
            or (not is_quantized and _is_within_a_layer(model, key, modules) and _matters(files, key))
        )
    ]


def _is_of_another_layer(model: Any, key: str, expected: set[str], extra_layers: range) -> bool:
    """Returns True if a key is that of a weight but for an index, such as that of a layer, which the model lacks."""
    for match in _INDEX.finditer(key):
        first = f"{key[: match.start()]}0{key[match.end() :]}"
        if _own_name(model, first, expected) is not None:
            return int(match[0]) not in extra_layers
    return False


def _is_within_a_layer(model: Any, key: str, modules: set[str]) -> bool:
    """Returns True if a key is of a module of one of the model's layers."""
    if not (indices := list(_INDEX.finditer(key))):
        return False
    layer = key[: indices[0].end()]
    return _own_name(model, layer, modules) is not None


def _own_name(model: Any, key: str, names: set[str]) -> str | None:
    """Returns the name that the model has for a key, with or without the prefix of its base model."""
    prefix = f"{model.base_model_prefix}."
    return next((name for name in (key, prefix + key, key.removeprefix(prefix)) if name in names), None)


def _matters(files: Sequence[Path], key: str) -> bool:
    """Returns True unless a tensor is a causal mask, or zero throughout, as some converters write for each bias."""
    return not any(
        is_zero or (len(shape) == _MASK_DIMENSIONS and shape[-1] == shape[-2])
        for shape, is_zero in tensor_values(files, key)
    )


def _prediction_layers(config: Any) -> range:
    """Returns the indices of layers for multi-token prediction, which come after the others and are not used."""
    text_config = config.get_text_config(decoder=True)
    layers = getattr(text_config, "num_hidden_layers", 0) or 0
    names = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers", "num_mtp_modules")
    return range(layers, layers + max(int(getattr(text_config, name, 0) or 0) for name in names))


def _error(name: str, fault: str, details: Sequence[str]) -> ModelLoadError:
    more = f" and {len(details) - _NAMED_KEYS} more" if len(details) > _NAMED_KEYS else ""
    return ModelLoadError(f"model {name}: {fault}: {', '.join(details[:_NAMED_KEYS])}{more}", field="model")
