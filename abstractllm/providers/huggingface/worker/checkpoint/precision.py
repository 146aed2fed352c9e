"""The devices and the precision that weights are loaded to."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from abstractllm.errors import ConfigurationError
from abstractllm.providers.huggingface.protocol.messages import Load

__all__ = ["check_devices", "first_device", "halve_on_gpu", "precision"]

_STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")
"""Values of `device_map` by which accelerate chooses the devices."""
_NO_DEVICES = ("cpu", "disk")
"""Places of weights that are none of an accelerator."""
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""The names of safetensors."""


def check_devices(settings: Load) -> None:
    """Checks that the devices of `device_map` are there.

    Raises:
        ConfigurationError: If one is not; the message names it, and those that are.
    """
    for device in _devices(settings):
        if device in _STRATEGIES or device in _NO_DEVICES:
            continue
        is_number = isinstance(device, int)
        name = f"cuda:{device}" if is_number else str(device)
        if not name.startswith("cuda"):
            _check_other_device(name)
            continue
        if not torch.cuda.is_available():
            raise ConfigurationError(
                f"device_map: {device} is a CUDA device, and this machine has none", field="device_map"
            )
        index, count = name.partition(":")[2], torch.cuda.device_count()
        if index and not (index.isdecimal() and int(index) < count):
            there = "only cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
            raise ConfigurationError(
                f"device_map: there is no {name}; this machine has {there}",
                field="device_map",
                limit=count,
                requested=name,
            )


def first_device(settings: Load) -> str:
    """Returns the device of the weights, or the first one; `cuda:0` where accelerate spreads them over GPUs."""
    devices = [device for device in _devices(settings) if device not in _STRATEGIES]
    if devices:
        accelerators = [device for device in devices if device not in _NO_DEVICES]
        first = accelerators[0] if accelerators else "cpu"
        if first == "cuda":  # the current one, which is the first
            return "cuda:0"
        return f"cuda:{first}" if isinstance(first, int) else str(first)
    if torch.cuda.is_available():
        return "cuda:0"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def precision(settings: Load, config: Any, files: Sequence[Path]) -> tuple[dict[str, Any], str]:
    """Returns the options of `from_pretrained` about the data type and the quantization of the weights.

    Args:
        settings: The settings.
        config: The model's configuration.
        files: The files of the weights; none if they are not there yet.

    Returns:
        The options, and a remark where the data type is another than the checkpoint's and was not asked for.

    Raises:
        ConfigurationError: If bitsandbytes is not installed and needed.
    """
    device, note = first_device(settings), ""
    stored = _stored_dtype(config, files)
    options: dict[str, Any] = {"dtype": settings.dtype}
    if settings.dtype == "auto" and device == "cpu" and not torch.cpu._is_avx512_bf16_supported():
        options["dtype"] = torch.float32
    elif settings.dtype == "auto" and stored is torch.float32 and _halves(device):
        options["dtype"], note = torch.bfloat16, _HALVED
    if settings.quantization == "none":
        return options, note
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigurationError(
            f"quantization: {settings.quantization} needs the package bitsandbytes: pip install bitsandbytes",
            field="quantization",
        )
    chosen = options["dtype"]
    computed = stored if chosen == "auto" else getattr(torch, chosen) if isinstance(chosen, str) else chosen
    options["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_8bit=settings.quantization == "int8",
        load_in_4bit=settings.quantization == "int4",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=computed,
        bnb_4bit_use_double_quant=settings.double_quantization,
    )
    return options, note


def halve_on_gpu(model: Any, settings: Load) -> str:
    """Brings float32 weights on a GPU to bfloat16 under `dtype: auto`, where nothing said before that they are float32.

    Returns:
        The remark on it; empty if nothing was to do.
    """
    is_whole = len(set((getattr(model, "hf_device_map", None) or {}).values())) < 2
    if settings.dtype != "auto" or model.dtype is not torch.float32 or not is_whole:
        return ""
    if getattr(model, "hf_quantizer", None) is not None or not _halves(str(model.device)):
        return ""
    model.to(torch.bfloat16)
    return _HALVED


_HALVED = "the checkpoint's float32 weights are used in bfloat16; dtype: float32 keeps them"


def _halves(device: str) -> bool:
    """Returns True on a GPU that computes with bfloat16 itself: float32 takes twice the memory there, and is slower."""
    return device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)


def _devices(settings: Load) -> list[int | str]:
    if settings.device_map is None:
        return []
    return list(settings.device_map.values()) if isinstance(settings.device_map, dict) else [settings.device_map]


def _check_other_device(name: str) -> None:
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise ConfigurationError(
            f"device_map: {name!r} is no device, nor one of {', '.join(_STRATEGIES)}", field="device_map"
        ) from error
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigurationError(f"device_map: {name} is not there on this machine", field="device_map")


def _stored_dtype(config: Any, files: Sequence[Path]) -> torch.dtype | None:
    """Returns the data type of a checkpoint's weights: what its configuration says, else that of its first one."""
    for owner in (config, config.get_text_config(decoder=True)):
        if isinstance(dtype := getattr(owner, "dtype", None), torch.dtype):
            return dtype
    for path in files[:1]:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__" and tensor["dtype"] in _FLOATS:
                return _FLOATS[tensor["dtype"]]
    return None
