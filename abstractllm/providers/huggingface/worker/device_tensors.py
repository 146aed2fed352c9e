"""Arrays of the host as tensors on the device of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["index_tensor", "is_on_cpu", "to_device"]


def is_on_cpu(tensor: torch.Tensor) -> bool:
    """Tells whether a tensor is computed by the CPU, where an operation may take long, but its launch takes no time."""
    return tensor.device.type == "cpu"


def to_device(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """Returns an array as a tensor on a device.

    To a GPU it is copied from pinned memory, and nothing waits for that; on a CPU the tensor is the array.
    """
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def index_tensor(indexes: Sequence[int], device: torch.device) -> torch.Tensor:
    """Returns indexes as a tensor on a device, `[indexes]`, int64; see `to_device`."""
    return to_device(np.array(indexes, dtype=np.int64), device)
