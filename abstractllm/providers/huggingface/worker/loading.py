"""Loading a model and its tokenizer from a directory, the cache or the hub."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import torch
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging
from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

from abstractllm.errors import (
    AbstractLLMError,
    ConfigurationError,
    ModelLoadError,
    ModelNotFoundError,
    ProviderCredentialsError,
    cause_chain,
)
from abstractllm.providers.huggingface.hub.layout import folder_name
from abstractllm.providers.huggingface.hub.locks import shared_lock
from abstractllm.providers.huggingface.machine import cpu_quota
from abstractllm.providers.huggingface.protocol.messages import Load
from abstractllm.providers.huggingface.worker.model import LoadedModel

__all__ = ["ReportProgress", "load_model"]

_FLASH_PACKAGES = {"flash_attention_2": is_flash_attn_2_available, "flash_attention_3": is_flash_attn_3_available}

_locks = ExitStack()
"""Keeps the model from being deleted from the cache while this process lives."""


class ReportProgress(Protocol):
    """Called with the progress of loading."""

    def __call__(self, phase: str, fraction: float | None = None) -> None:
        """Takes the current phase, and the part of it that is done, from 0 to 1."""


def load_model(settings: Load, report: ReportProgress) -> LoadedModel:
    """Loads a model.

    Raises:
        ModelNotFoundError: If the hub and the cache have no such model or revision.
        ProviderCredentialsError: If the hub asks for a token.
        ConfigurationError: If a package is missing that the settings need.
        ModelLoadError: If anything else goes wrong.
    """
    torch.set_num_threads(settings.threads or min(torch.get_num_threads(), _usable_cpus()))
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        return _load(settings, report)
    except AbstractLLMError:
        raise
    except ImportError as error:
        raise ConfigurationError(f"model {settings.model}: a package is missing: {error}") from error
    except Exception as error:
        raise _load_error(settings, error) from error


def _load(settings: Load, report: ReportProgress) -> LoadedModel:
    source: dict[str, Any] = {"trust_remote_code": settings.trust_remote_code}
    if not settings.is_directory:
        source |= {"cache_dir": settings.cache_dir, "revision": settings.revision or "main"}
        source |= {"local_files_only": settings.local_files_only}
        _locks.enter_context(shared_lock(Path(settings.cache_dir), folder_name(settings.model)))
    report("tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(settings.model, **source)
    report("weights", 0.0)
    previous_hook = transformers_logging.set_tqdm_hook(_reporting_hook(report))
    try:
        model = AutoModelForCausalLM.from_pretrained(
            settings.model, use_safetensors=True, **source, **_precision(settings), **_placement(settings)
        )
    finally:
        transformers_logging.set_tqdm_hook(previous_hook)
    report("preparing")
    return LoadedModel(model, tokenizer, settings)


def _precision(settings: Load) -> dict[str, Any]:
    """Returns the options of `from_pretrained` about the data type and the quantization of the weights."""
    options: dict[str, Any] = {"dtype": settings.dtype}
    if settings.dtype == "auto" and _device(settings) == "cpu" and not torch.cpu._is_avx512_bf16_supported():
        options["dtype"] = torch.float32
    if settings.quantization == "none":
        return options
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigurationError(
            f"quantization: {settings.quantization} needs the package bitsandbytes: pip install bitsandbytes",
            field="quantization",
        )
    options["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_8bit=settings.quantization == "int8", load_in_4bit=settings.quantization == "int4"
    )
    return options


def _placement(settings: Load) -> dict[str, Any]:
    """Returns the options of `from_pretrained` about devices and the attention implementation."""
    options: dict[str, Any] = {}
    if name := settings.attn_implementation:
        # Where the package is missing, transformers would fetch kernels from a hub.
        if name in _FLASH_PACKAGES and not _FLASH_PACKAGES[name]():
            raise ConfigurationError(
                f"attn_implementation: {name} needs its package, and a CUDA device", field="attn_implementation"
            )
        options["attn_implementation"] = name
    devices = settings.device_map.values() if isinstance(settings.device_map, dict) else [settings.device_map]
    cuda_devices = [device for device in devices if isinstance(device, int) or str(device).startswith("cuda")]
    if cuda_devices and not torch.cuda.is_available():
        raise ConfigurationError(
            f"device_map: {cuda_devices[0]} is a CUDA device, and this machine has none", field="device_map"
        )
    if settings.device_map is not None:
        options["device_map"] = settings.device_map
    elif (device := _device(settings)) != "cpu":
        options["device_map"] = {"": device}
    return options


def _device(settings: Load) -> str:
    if isinstance(settings.device_map, str) and settings.device_map.partition(":")[0] == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda:0"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _usable_cpus() -> int:
    """Returns the number of CPUs that this process may use: those it may run on, or fewer by its quota."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return usable if quota is None else min(usable, max(1, round(quota)))


def _reporting_hook(report: ReportProgress) -> Callable[..., Any]:
    """Returns a hook for transformers that turns the progress bar of loading the weights into reports."""

    def hook(factory: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        items = arguments[0] if arguments else options.get("iterable")
        return factory(*arguments, **options) if items is None else _ReportingIterable(items, report)

    return hook


class _ReportingIterable:
    """Iterates over items and reports the progress, at most a hundred times."""

    def __init__(self, items: Any, report: ReportProgress) -> None:
        self._items = items
        self._report = report

    def __iter__(self) -> Any:
        total = max(1, len(self._items))
        percent = 0
        for index, item in enumerate(self._items):
            if (now := index * 100 // total) > percent:
                percent = now
                self._report("weights", index / total)
            yield item

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **options: None  # the rest of a progress bar: set_postfix, update, close


def _load_error(settings: Load, error: Exception) -> AbstractLLMError:
    """Returns the library's error for an exception of transformers or of the hub's library."""
    causes = list(cause_chain(error))
    text = str(error).strip().split("\n\n")[0]

    def is_caused_by(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if is_caused_by(GatedRepoError):
        return ProviderCredentialsError(f"model {settings.model}: the hub asks for a token that may read it: {text}")
    if is_caused_by(RepositoryNotFoundError, RevisionNotFoundError):
        return ModelNotFoundError(f"model {settings.model}: {text}", field="model")
    if is_caused_by(LocalEntryNotFoundError, OfflineModeIsEnabled):
        return ModelNotFoundError(
            f"model {settings.model} is not in the cache {settings.cache_dir}, and the hub is not reachable: {text}",
            field="model",
        )
    return ModelLoadError(f"model {settings.model} cannot be loaded: {type(error).__name__}: {text}", field="model")
