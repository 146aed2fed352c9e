"""Loading a model and its tokenizer."""

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
)
from abstractllm.providers.huggingface.hub.layout import folder_name
from abstractllm.providers.huggingface.hub.locks import using
from abstractllm.providers.huggingface.protocol.messages import Load, Loaded
from abstractllm.providers.huggingface.worker.prompt.prompt_builder import PromptBuilder
from abstractllm.providers.huggingface.worker.structured.grammar import Grammars
from abstractllm.providers.huggingface.worker.token_decoder import TokenDecoder

__all__ = ["LoadedModel", "load_model"]

_WINDOW_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx", "max_sequence_length")
_FLASH_PACKAGES = {"flash_attention_2": is_flash_attn_2_available, "flash_attention_3": is_flash_attn_3_available}
_DEFAULT_WINDOW = 4096
"""For a model that names none, such as a state-space model or one with ALiBi positions."""

_in_use = ExitStack()
"""Keeps the model from being deleted from the cache, as long as this process lives."""


class Report(Protocol):
    """Is told where loading is."""

    def __call__(self, phase: str, fraction: float | None = None) -> None: ...


class LoadedModel:
    """A model that is ready to generate.

    Args:
        model: A transformers causal language model.
        tokenizer: Its tokenizer.
        settings: How it was loaded.
    """

    def __init__(self, model: Any, tokenizer: Any, settings: Load) -> None:
        self.model = model
        self.vocabulary = TokenDecoder(tokenizer)
        self.vocabulary_size: int = model.get_output_embeddings().weight.shape[0]
        """Logits at each position."""
        self.prompt_builder = PromptBuilder(tokenizer, model.get_input_embeddings().weight.shape[0])
        self.ends = _end_tokens(model, tokenizer)
        """Tokens that end an answer."""
        special = self.prompt_builder.template.special_markers
        self.grammars = Grammars(tokenizer, self.vocabulary, self.vocabulary_size, self.ends, special)
        window = _context_window(model.config, tokenizer)
        embeddings = model.get_input_embeddings().weight.device
        self.device = torch.device("cpu") if embeddings.type == "meta" else embeddings
        """Where prompts go; weights on the disk are nowhere ("meta"), and their prompts on the CPU."""
        self.description = Loaded(
            device=str(self.device),
            memory_bytes=model.get_memory_footprint(),
            dtype=str(model.dtype).removeprefix("torch."),
            quantization=_quantization(model, settings),
            context_window=window,
            max_characters=self.vocabulary.most_characters(window),
            system_prompt=self.prompt_builder.takes_system_prompt(),
            formats=not self.grammars.unavailable,
            tools=self.prompt_builder.template.call_format is not None,
            effort=self.prompt_builder.template.takes_effort,
        )

    def recover(self, error: Exception) -> None:
        """Makes the model usable after a failed request; ends the process if the device is not."""
        if isinstance(error, torch.OutOfMemoryError):
            torch.cuda.empty_cache()
        elif isinstance(error, torch.AcceleratorError):
            raise error


def load_model(settings: Load, report: Report) -> LoadedModel:
    """Loads a model.

    Raises:
        ModelNotFoundError: If the hub and the cache have no such model or revision.
        ProviderCredentialsError: If the hub asks for a token.
        ConfigurationError: If a package is missing that the settings need.
        ModelLoadError: For everything else.
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
        raise _explained(settings, error) from error


def _load(settings: Load, report: Report) -> LoadedModel:
    source: dict[str, Any] = {"trust_remote_code": settings.trust_remote_code}
    if not settings.is_directory:
        source |= {"cache_dir": settings.cache_dir, "revision": settings.revision or "main"}
        source |= {"local_files_only": settings.local_files_only}
        _in_use.enter_context(using(Path(settings.cache_dir), folder_name(settings.model)))
    report("tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(settings.model, **source)
    report("weights", 0.0)
    previous = transformers_logging.set_tqdm_hook(_reporting(report))
    try:
        model = AutoModelForCausalLM.from_pretrained(
            settings.model, use_safetensors=True, **source, **_precision(settings), **_placement(settings)
        )
    finally:
        transformers_logging.set_tqdm_hook(previous)
    report("preparing")
    return LoadedModel(model, tokenizer, settings)


def _precision(settings: Load) -> dict[str, Any]:
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
    options: dict[str, Any] = {}
    if name := settings.attn_implementation:
        # transformers would ask a hub for kernels in the place of a package that is missing.
        if name in _FLASH_PACKAGES and not _FLASH_PACKAGES[name]():
            raise ConfigurationError(
                f"attn_implementation: {name} needs its package, and a CUDA device", field="attn_implementation"
            )
        options["attn_implementation"] = name
    asked = settings.device_map if isinstance(settings.device_map, dict) else {"": settings.device_map}
    missing = [device for device in asked.values() if isinstance(device, int) or str(device).startswith("cuda")]
    if missing and not torch.cuda.is_available():
        raise ConfigurationError(
            f"device_map: {missing[0]} is a CUDA device, and this machine has none", field="device_map"
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
    """The CPUs that this process may use: those it may run on, or less by its control group's quota."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):  # cgroup v2, v1
        try:
            text = " ".join(Path("/sys/fs/cgroup", file).read_text("ascii") for file in files)
            quota, period = map(int, text.split())
        except (OSError, ValueError):  # no control group of this version, or one without a quota ("max")
            continue
        if quota > 0:
            usable = min(usable, max(1, round(quota / period)))
    return usable


def _reporting(report: Report) -> Callable[..., Any]:
    """A hook that turns the progress bar of the weights' loading into reports."""

    def hook(factory: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        items = arguments[0] if arguments else options.get("iterable")
        return factory(*arguments, **options) if items is None else _Reported(items, report)

    return hook


class _Reported:
    """Iterates and reports, at most a hundred times."""

    def __init__(self, items: Any, report: Report) -> None:
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


def _explained(settings: Load, error: Exception) -> AbstractLLMError:
    """What an exception of transformers or of the hub means."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
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


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The end tokens of the model's generation configuration and the tokenizer's own."""
    named = model.generation_config.eos_token_id
    ends = named if isinstance(named, list) else [named]
    return frozenset(id for id in (*ends, tokenizer.eos_token_id) if id is not None)


def _context_window(config: Any, tokenizer: Any) -> int:
    text_config = config.get_text_config(decoder=True)
    for name in _WINDOW_NAMES:
        if isinstance(window := getattr(text_config, name, None), int) and window > 0:
            return window
    # transformers gives 1e30 where the tokenizer names no length.
    return int(tokenizer.model_max_length) if tokenizer.model_max_length < 1e9 else _DEFAULT_WINDOW


def _quantization(model: Any, settings: Load) -> str:
    """`int8` or `int4`, or the method of a checkpoint that comes quantized in another way.

    Raises:
        ConfigurationError: If the checkpoint comes quantized otherwise than it is asked for.
    """
    found = getattr(model.config, "quantization_config", None)
    if found is None:
        return ""
    facts = found if isinstance(found, dict) else found.to_dict()
    method = str(getattr(facts.get("quant_method", ""), "value", facts.get("quant_method", "")))
    if method == "bitsandbytes":
        method = "int8" if facts.get("load_in_8bit") else "int4"
    if settings.quantization not in ("none", method):
        raise ConfigurationError(
            f"quantization: {settings.quantization} is asked for, but the checkpoint comes in {method}, "
            "which is taken as it is",
            field="quantization",
        )
    return method
