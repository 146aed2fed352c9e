"""Loading a model and its tokenizer from a directory, the cache or the hub."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import msgspec
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file
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
from abstractllm.providers.huggingface.worker.checkpoint.adapters import (
    CONFIG_NAME,
    WITHOUT_ADAPTERS,
    Adapter,
    merge_adapter,
    read_adapter,
)
from abstractllm.providers.huggingface.worker.checkpoint.architecture import check_architecture, check_causality
from abstractllm.providers.huggingface.worker.checkpoint.files import (
    check_files,
    checkpoint_folder,
    file_names,
    is_embedding_model,
    weight_files,
)
from abstractllm.providers.huggingface.worker.checkpoint.load_report import check_load_report, naming_conversion_errors
from abstractllm.providers.huggingface.worker.checkpoint.precision import (
    check_devices,
    first_device,
    halve_on_gpu,
    precision,
)
from abstractllm.providers.huggingface.worker.model import LoadedModel

__all__ = ["ReportProgress", "load_model"]

_FLASH_PACKAGES = {"flash_attention_2": is_flash_attn_2_available, "flash_attention_3": is_flash_attn_3_available}

_TOKENIZER_CONFIG = "tokenizer_config.json"
_TOKENIZER_ENDINGS = (
    "tokenizer.json",
    ".model",
    "vocab.json",
    "vocab.txt",
    ".tiktoken",
    "tekken.json",
    ".vocab",
    ".py",
)
"""Endings of the files that a tokenizer is made of."""

_locks = ExitStack()
"""Keeps the model from being deleted from the cache while this process lives."""


class ReportProgress(Protocol):
    """Called with the progress of loading."""

    def __call__(self, phase: str, fraction: float | None = None) -> None:
        """Takes the current phase, and the part of it that is done, from 0 to 1."""


def load_model(settings: Load, report: ReportProgress) -> LoadedModel:
    """Loads a model.

    Raises:
        ModelNotFoundError: If the hub and the cache have no such model or revision, or a file is missing.
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
    check_devices(settings)
    _lock_in_cache(settings)
    report("tokenizer")
    if settings.is_directory or settings.local_files_only:
        folder = checkpoint_folder(settings)
        adapter = read_adapter(folder, settings.model, settings.quantization)
    else:
        folder, adapter = _adapter_of_the_hub(settings)
    if adapter is None or (folder / "config.json").is_file():
        return _load_model(settings, report, settings, adapter)
    if not adapter.base:
        raise ModelLoadError(
            f"model {settings.model} is an adapter that does not name the model that it belongs to "
            "(base_model_name_or_path): merge it first",
            field="model",
        )
    base = msgspec.structs.replace(
        settings,
        model=adapter.base,
        revision=adapter.base_revision,
        is_directory=Path(adapter.base).is_dir(),
    )
    _lock_in_cache(base)
    try:
        return _load_model(base, report, settings, adapter)
    except OSError as error:
        failure = _load_error(base, error)
        failure.message = f"model {settings.model} is an adapter, and its model cannot be loaded: {failure.message}"
        raise failure from error
    except ModelNotFoundError as error:
        error.message = f"model {settings.model} is an adapter, and its model cannot be loaded: {error.message}"
        raise


def _load_model(settings: Load, report: ReportProgress, named: Load, adapter: Adapter | None) -> LoadedModel:
    """Loads a model, and merges an adapter into it.

    Args:
        settings: The settings of the model.
        report: Called with the progress.
        named: The settings as configured: of the adapter, if that is what they name.
        adapter: The adapter, if there is one.
    """
    source = _source(settings)
    folder = checkpoint_folder(settings)
    files: list[Path] = []
    if settings.is_directory:
        check_files(folder, settings.model)
        files = weight_files(folder, settings.model)
    elif settings.local_files_only and folder.is_dir():
        if missing := _missing_from_cache(settings):
            raise ModelNotFoundError(
                f"model {settings.model} is not whole in the cache {settings.cache_dir}, and local_files_only, or "
                f"HF_HUB_OFFLINE, forbids to download it: {missing}",
                field="model",
            )
        files = weight_files(folder, settings.model)
    config = AutoConfig.from_pretrained(settings.model, **source)
    check_architecture(config, settings.model)
    if is_embedding_model(folder):
        raise ModelLoadError(
            f"model {settings.model} is an embedding model (modules.json has a pooling layer); "
            "only causal language models are served",
            field="model",
        )
    tokenizer = _load_tokenizer(settings, named if adapter and (adapter.folder / _TOKENIZER_CONFIG).is_file() else None)
    report("weights", 0.0)
    options, note = precision(settings, config, files)
    options |= _placement(settings)
    # transformers looks for adapters itself if peft is installed, and asks the hub even where it must not.
    options["adapter_kwargs"] = {**WITHOUT_ADAPTERS, "local_files_only": True, "cache_dir": settings.cache_dir}
    previous_hook = transformers_logging.set_tqdm_hook(_reporting_hook(report))
    try:
        with naming_conversion_errors(settings.model):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                settings.model,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # the report says which, the error would not
                output_loading_info=True,
                **source,
                **options,
            )
    finally:
        transformers_logging.set_tqdm_hook(previous_hook)
    model, load_report = loaded
    check_load_report(model, load_report, files or weight_files(folder, settings.model), settings.model)
    if adapter is not None:
        model = merge_adapter(model, adapter, named.model)
    check_causality(model, settings.model)
    report("preparing")
    return LoadedModel(model, tokenizer, settings, note or halve_on_gpu(model, settings))


def _source(settings: Load) -> dict[str, Any]:
    """Returns the options of `from_pretrained` about where a model comes from."""
    source: dict[str, Any] = {"trust_remote_code": settings.trust_remote_code}
    if not settings.is_directory:
        source |= {"cache_dir": settings.cache_dir, "revision": settings.revision or "main"}
        source |= {"local_files_only": settings.local_files_only}
    return source


def _lock_in_cache(settings: Load) -> None:
    """Keeps a model of the hub from being deleted from the cache."""
    if not settings.is_directory:
        _locks.enter_context(shared_lock(Path(settings.cache_dir), folder_name(settings.model)))


def _adapter_of_the_hub(settings: Load) -> tuple[Path, Adapter | None]:
    """Fetches a repository's adapter, if it has one.

    Returns:
        The folder of the repository's files, and the adapter.
    """
    folder = checkpoint_folder(settings)
    if folder.is_dir() and not _missing_from_cache(settings):
        return folder, read_adapter(folder, settings.model, settings.quantization)
    options: dict[str, Any] = {"cache_dir": settings.cache_dir, "revision": settings.revision or "main"}
    options["_raise_exceptions_for_missing_entries"] = False
    cached_file(settings.model, "config.json", **options)  # first, since a hub that cannot be reached is asked for long
    options["_raise_exceptions_for_connection_errors"] = False
    path = cached_file(settings.model, CONFIG_NAME, **options)
    if path is None:
        return checkpoint_folder(settings), None
    for name in ("adapter_model.safetensors", _TOKENIZER_CONFIG):
        cached_file(settings.model, name, **options)
    folder = Path(path).parent
    return folder, read_adapter(folder, settings.model, settings.quantization)


def _load_tokenizer(settings: Load, of_adapter: Load | None) -> Any:
    """Loads the tokenizer of a model, or that of its adapter, which may have another chat template.

    Raises:
        ModelLoadError: If there is none; the message names the files that are missing.
    """
    owner = of_adapter or settings
    try:
        return AutoTokenizer.from_pretrained(owner.model, **_source(owner))
    except (OSError, ValueError, ImportError) as error:
        names = file_names(checkpoint_folder(owner))
        is_local = owner.is_directory or owner.local_files_only
        if not is_local or any(Path(name).name.endswith(_TOKENIZER_ENDINGS) for name in names):
            raise
        raise ModelLoadError(
            f"model {owner.model}: there is no tokenizer: neither tokenizer.json nor tokenizer.model, vocab.json, "
            f"vocab.txt or another vocabulary is in {checkpoint_folder(owner)}",
            field="model",
        ) from error


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
    device = first_device(settings)
    if device.startswith("cuda"):
        # The memory that transformers' continuous batching reads, and its streams, are those of the current device.
        torch.cuda.set_device(device)
    if settings.device_map is not None:
        options["device_map"] = settings.device_map
    elif device != "cpu":
        options["device_map"] = {"": device}
    return options


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
    if is_caused_by(HFValidationError):
        return ModelNotFoundError(
            f"model {settings.model}: there is no such directory, and this cannot be a name on the hub: {text}",
            field="model",
        )
    missing = "" if settings.is_directory else _missing_from_cache(settings)
    if is_caused_by(LocalEntryNotFoundError, OfflineModeIsEnabled):
        return ModelNotFoundError(
            f"model {settings.model} is not {'whole ' if missing else ''}in the cache {settings.cache_dir}, and the "
            f"hub must not be asked, or is not reachable: {missing or text}",
            field="model",
        )
    # Errors of transformers' own have no number: it found the repository, but not the file.
    if missing and isinstance(error, OSError) and error.errno is None:
        return ModelNotFoundError(missing, field="model")
    return ModelLoadError(f"model {settings.model} cannot be loaded: {type(error).__name__}: {text}", field="model")


def _missing_from_cache(settings: Load) -> str:
    """Returns the reason why a model of the hub is not whole in the cache; empty if it is, or none of it is there."""
    folder = checkpoint_folder(settings)
    if not folder.is_dir():
        return ""
    try:
        check_files(folder, settings.model)
    except AbstractLLMError as failure:
        return failure.message
    return ""
