"""Adapters, such as LoRA's: merged into the model that they belong to, where the package peft is installed."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from abstractllm.errors import ConfigurationError, ModelLoadError, ModelNotFoundError

__all__ = ["CONFIG_NAME", "WITHOUT_ADAPTERS", "Adapter", "merge_adapter", "read_adapter"]

CONFIG_NAME = "adapter_config.json"
WITHOUT_ADAPTERS = {"subfolder": "no-adapters"}
"""The place that transformers is told for adapters: it would apply them, and not report what is missing."""

_WEIGHTS = "adapter_model.safetensors"
_ADAPTER_NAME = "served"


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter in a folder."""

    folder: Path
    base: str
    """The model that it was trained on: a directory or a hub id; empty if its configuration names none."""
    base_revision: str | None


def read_adapter(folder: Path, model: str, quantization: str) -> Adapter | None:
    """Returns the adapter in a folder; None if there is none.

    Args:
        folder: A folder of files.
        model: The model's name in messages.
        quantization: The precision that is asked for; `none` for that of the checkpoint.

    Raises:
        ConfigurationError: If peft is not installed, or the weights are to be quantized.
        ModelLoadError: If the adapter is of a kind that cannot be merged, or its configuration cannot be read.
        ModelNotFoundError: If the adapter's weights are missing.
    """
    path = folder / CONFIG_NAME
    if not path.is_file():
        return None
    try:
        facts = json.loads(path.read_bytes())
        kind, task = str(facts["peft_type"]), facts.get("task_type")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelLoadError(
            f"model {model}: {CONFIG_NAME} of its adapter cannot be read: {error}", field="model"
        ) from error
    base = str(facts.get("base_model_name_or_path") or "")
    described = f"model {model} is an adapter ({kind})" + (f" of {base}" if base else "")
    if (folder / "config.json").is_file():
        described = f"model {model} has an adapter ({kind}) beside its weights"
    if importlib.util.find_spec("peft") is None:
        raise ConfigurationError(
            f"{described}: to have it applied, pip install 'abstractllm-grpc[adapters]'; or merge it into the model, "
            f"or take {CONFIG_NAME} away to serve the model without it",
            field="model",
        )
    if quantization != "none":
        raise ConfigurationError(
            f"{described}, which cannot be merged into weights in {quantization}: merge it first", field="quantization"
        )
    if task not in (None, "CAUSAL_LM"):
        raise ModelLoadError(f"{described} for {task}, not for a causal language model", field="model")
    if not (folder / _WEIGHTS).is_file():
        raise ModelNotFoundError(f"{described}, but there is no {_WEIGHTS} in {folder}", field="model")
    return Adapter(folder, base, facts.get("revision"))


def merge_adapter(model: Any, adapter: Adapter, name: str) -> Any:
    """Merges an adapter into a model's weights.

    Args:
        model: A transformers model, whose weights are changed.
        adapter: The adapter.
        name: The model's name in messages.

    Returns:
        The model, without layers of the adapter.

    Raises:
        ModelLoadError: If the model is quantized, the adapter is of a kind that cannot be merged, or does not fit.
    """
    from peft import PeftConfig, PeftModelForCausalLM, set_peft_model_state_dict

    config = PeftConfig.from_pretrained(str(adapter.folder))
    kind = getattr(config.peft_type, "value", config.peft_type)
    if getattr(model, "hf_quantizer", None) is not None:
        raise ModelLoadError(
            f"model {name}: its adapter cannot be merged into weights that come quantized", field="model"
        )
    if config.is_prompt_learning:
        raise ModelLoadError(f"model {name}: an adapter of the kind {kind} cannot be merged", field="model")
    config.inference_mode = True
    wrapped = PeftModelForCausalLM(model, config, adapter_name=_ADAPTER_NAME, autocast_adapter_dtype=False)
    result: Any = set_peft_model_state_dict(wrapped, load_file(adapter.folder / _WEIGHTS), adapter_name=_ADAPTER_NAME)
    missing = [key for key in result.missing_keys if _ADAPTER_NAME in key.split(".")]
    for keys, fault in (
        (missing, "lacks weights that it needs"),
        (result.unexpected_keys, "has weights of other layers"),
    ):
        if keys:
            raise ModelLoadError(f"model {name}: its adapter {fault}: {', '.join(sorted(keys)[:5])}", field="model")
    if not hasattr(wrapped, "merge_and_unload"):
        raise ModelLoadError(f"model {name}: an adapter of the kind {kind} cannot be merged", field="model")
    return wrapped.merge_and_unload(safe_merge=True)
