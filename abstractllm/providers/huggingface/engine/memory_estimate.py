"""An estimate of the memory that a model will take, as far as its files tell before it is loaded."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from abstractllm.providers.huggingface.hub.layout import folder_name, snapshot_folder
from abstractllm.providers.huggingface.machine import has_bfloat16, has_nvidia_gpu
from abstractllm.providers.huggingface.protocol.messages import CPU_CACHE_BYTES, Load

__all__ = ["expected_bytes"]

_ITEM_BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0}
_QUANTIZED_BYTES = {"int8": 1.0, "int4": 0.5}
_FLOATS = {"F64": 8.0, "F32": 4.0, "F16": 2.0, "BF16": 2.0}
"""The names of safetensors: https://huggingface.co/docs/safetensors."""
_UNQUANTIZED = ("embed", "lm_head", "wte", "wpe", "norm")
"""Parts of the names of tensors that bitsandbytes leaves as they are."""
_LONGEST_HEADER = 100_000_000
"""The limit of the format."""


def expected_bytes(settings: Load) -> int:
    """Returns the bytes of a model's weights, in the precision that they will have, and of its keys and values.

    Files that are not there, such as those of a model that is yet to be downloaded, count as nothing. So does, on a
    GPU, a cache whose size is not configured: it will be a share of what is free.
    """
    item = _item_bytes(settings)
    weights = sum(_tensor_bytes(name, tensor, item, settings.quantization) for name, tensor in _tensors(settings))
    if settings.max_batch_size == 1:
        return math.ceil(weights)
    return math.ceil(weights) + (settings.kv_cache_bytes or (CPU_CACHE_BYTES if _is_on_cpu(settings) else 0))


def _tensor_bytes(name: str, tensor: dict[str, Any], item: float | None, quantization: str) -> float:
    """Returns the bytes that one tensor will take; `item` are the bytes of a number, None for those of the file."""
    begin, end = tensor["data_offsets"]
    if tensor["dtype"] not in _FLOATS:  # a checkpoint that comes quantized stays as it is
        return float(end - begin)
    is_matrix = len(tensor["shape"]) == 2 and not any(part in name for part in _UNQUANTIZED)
    if quantization in _QUANTIZED_BYTES and is_matrix:
        item = _QUANTIZED_BYTES[quantization]
    return float(math.prod(tensor["shape"]) * (item or _FLOATS[tensor["dtype"]]))


def _tensors(settings: Load) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the names and descriptions of a model's tensors, from the headers of its files."""
    for path in _weight_files(settings):
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(length)) if length <= _LONGEST_HEADER else {}
            yield from ((name, tensor) for name, tensor in header.items() if name != "__metadata__")
        except (OSError, ValueError):  # loading it will say what is wrong
            continue


def _weight_files(settings: Load) -> list[Path]:
    folder = Path(settings.model)
    if not settings.is_directory:
        model_folder = Path(settings.cache_dir, folder_name(settings.model))
        folder = snapshot_folder(model_folder, settings.revision or "main")
    if not (folder / "config.json").is_file() and (base := _base_of_adapter(folder)):
        folder = Path(base)
        if not folder.is_dir():
            folder = snapshot_folder(Path(settings.cache_dir, folder_name(base)), "main")
    if (whole := folder / "model.safetensors").is_file():
        return [whole]
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_bytes())
        return sorted({folder / name for name in index["weight_map"].values()})
    except (OSError, ValueError, KeyError):
        return sorted(folder.glob("*.safetensors"))


def _base_of_adapter(folder: Path) -> str:
    """Returns the model that an adapter in a folder is merged into; empty if there is no adapter."""
    try:
        return str(json.loads((folder / "adapter_config.json").read_bytes())["base_model_name_or_path"] or "")
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _item_bytes(settings: Load) -> float | None:
    if settings.dtype != "auto":
        return _ITEM_BYTES[settings.dtype]
    if _is_on_cpu(settings):
        return None if has_bfloat16() else 4.0
    # On a GPU the engine takes float32 in bfloat16; on macOS it takes what the checkpoint has.
    return None if sys.platform == "darwin" else 2.0


def _is_on_cpu(settings: Load) -> bool:
    """Returns True if the engine will choose the CPU; torch, which would know, is not imported in this process."""
    if isinstance(settings.device_map, dict):
        return all(str(device) in ("cpu", "disk") for device in settings.device_map.values())
    if isinstance(settings.device_map, str) and settings.device_map.partition(":")[0] == "cpu":
        return True
    return sys.platform != "darwin" and not has_nvidia_gpu()
