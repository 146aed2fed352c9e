"""Liger's kernels in the place of a model's own norms, rotary positions and activations.

PyTorch computes each of these by several small kernels, which a decode step launches for every layer. Liger
(https://github.com/linkedin/Liger-Kernel) has one Triton kernel for each, and knows the architectures of
transformers. It changes modules and functions in place; what it has changed can be put back here.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch

__all__ = ["FusedKernels"]

_PACKAGE = "liger-kernel"
_MODULE = "liger_kernel"
_OPTIONS = {"cross_entropy": False, "fused_linear_cross_entropy": False}
"""Losses, which nothing computes; the second one would replace the model's forward pass."""
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""Names of their number in a configuration."""
_CODE = "transformers.models."
"""The package of the architectures that Liger knows; code that comes with a model is another."""


class FusedKernels:
    """Puts Liger's kernels into a model, and takes them out again.

    Args:
        model: A transformers model.
        wanted: Whether they are configured.
    """

    def __init__(self, model: Any, *, wanted: bool) -> None:
        self._model = model
        self._saved: list[tuple[Any, dict[str, Any]]] = []
        """What holds the functions that Liger replaces, each with its attributes."""
        self.left_out = _left_out(model) if wanted else "switched off"
        """The reason why they are not used; empty if they are."""

    def apply(self) -> None:
        """Puts the kernels in.

        Raises:
            Exception: Any error of Liger; `undo` takes out what is there already.
        """
        owners = {*self._model.modules(), *_code_of(self._model)}
        self._saved = [(owner, dict(vars(owner))) for owner in owners]
        options = {**_OPTIONS, "swiglu": not _has_experts(self._model)}
        import_module(f"{_MODULE}.transformers.monkey_patch")._apply_liger_kernel_to_instance(self._model, **options)

    def undo(self) -> None:
        """Gives the model its own operations back."""
        for owner, saved in self._saved:
            current = vars(owner)
            for name in [name for name in current if name not in saved]:
                _remove(owner, name)
            for name, value in saved.items():
                if current.get(name) is not value:
                    _put(owner, name, value)
        self._saved = []

    def __str__(self) -> str:
        """Says whether the kernels are used, and why not."""
        if self.left_out:
            return f"no fused kernels: {self.left_out}"
        return f"fused kernels of {_PACKAGE} {version(_PACKAGE)}"


def _left_out(model: Any) -> str:
    """Returns the reason why the kernels cannot be used; empty if they can."""
    if model.device.type != "cuda":
        return f"not on {model.device.type}"
    if model.dtype not in (torch.float16, torch.bfloat16):
        return f"not in {str(model.dtype).removeprefix('torch.')}"
    if not find_spec(_MODULE):
        return f"{_PACKAGE} is not installed"
    kind = model.config.model_type
    known = import_module(f"{_MODULE}.transformers.monkey_patch").MODEL_TYPE_TO_APPLY_LIGER_FN
    if not type(model).__module__.startswith(_CODE) or kind not in known:
        return f"{_PACKAGE} has none for {kind}"
    return ""


def _has_experts(model: Any) -> bool:
    """Tells whether a model is a mixture of experts: whether a graph can hold Liger's experts is not known."""
    config = model.config.get_text_config(decoder=True)
    return any(getattr(config, name, None) for name in _EXPERTS)


def _code_of(model: Any) -> set[Any]:
    """Returns the Python modules of an architecture and the classes in use, whose functions Liger may replace."""
    classes = {kind for module in model.modules() for kind in type(module).__mro__ if kind.__module__.startswith(_CODE)}
    return {*classes, *(sys.modules[kind.__module__] for kind in classes)}


def _put(owner: Any, name: str, value: Any) -> None:
    # A torch module takes no function as an attribute where it had a submodule of that name.
    if isinstance(owner, torch.nn.Module):
        vars(owner)[name] = value
    else:
        setattr(owner, name, value)


def _remove(owner: Any, name: str) -> None:
    if isinstance(owner, torch.nn.Module):
        del vars(owner)[name]
    else:
        delattr(owner, name)
