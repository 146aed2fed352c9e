"""The configuration of a local LLM."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from abstractllm._core.admission.config import AdmissionConfig
from abstractllm.config import Bytes, Seconds
from abstractllm.enums import Quantization
from abstractllm.errors import ConfigurationError
from abstractllm.providers.huggingface.engine.settings import EngineLimits, EngineSettings
from abstractllm.providers.huggingface.protocol.messages import Load
from abstractllm.providers.huggingface.protocol.watchdog import Patience

__all__ = ["DEFAULT_CACHE_DIR", "DEMO_MODEL", "HuggingFaceConfig", "without_replace"]

DEFAULT_CACHE_DIR = "~/.cache/abstractllm/models"
DEMO_MODEL = "demo"
"""The name of the model that comes with the package."""

_FLAGS = {"load_in_8bit": Quantization.INT8, "load_in_4bit": Quantization.INT4}
_OFFLINE = ("1", "ON", "YES", "TRUE")


class HuggingFaceConfig(AdmissionConfig):
    """The configuration of a local LLM: its keys beside those of every LLM.

    `load_in_8bit` and `load_in_4bit` are read as `quantization` `int8` and `int4`.
    """

    model: Annotated[str, Field(min_length=1, max_length=1024)] = DEMO_MODEL
    """`demo`, a directory, or the id of a model on the hub, such as `Qwen/Qwen3-0.6B`."""
    models: tuple[Annotated[str, Field(min_length=1, max_length=1024)], ...] = ()
    """Further models that a request may name; each is loaded in another engine, with the same settings."""
    cache_dir: Annotated[str, Field(min_length=1)] = DEFAULT_CACHE_DIR
    revision: Annotated[str, Field(min_length=1)] | None = None
    """A branch, tag or commit on the hub."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """`auto` is the checkpoint's; float32 on a CPU without bfloat16 arithmetic, bfloat16 for float32 on a GPU."""
    quantization: Quantization = Quantization.NONE
    double_quantization: bool = False
    """Quantize the scales of `int4`, too: 0.4 bits fewer for each weight."""
    context_window: Annotated[int, Field(ge=2, le=100_000_000)] | None = None
    """Tokens of prompt and answer together, at most; what the model's configuration says, if absent."""
    device_map: str | dict[str, int | str] | None = None
    """`auto`, a device such as `cuda:1`, or a map from modules to devices; the first GPU, else the CPU, if absent."""
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3"] | None = None
    """The model's attention, for requests that are answered one at a time; in a batch, flash attention alone counts."""
    cuda_graphs: bool | None = None
    """CUDA graphs of decode steps: where unset, for the models that allow it; True refuses others; False for none."""
    fused_kernels: bool = True
    """Kernels of liger-kernel in a batch: on a GPU in half precision, where it is installed and knows the model."""
    overlap_steps: bool = True
    """Begin the next step of a batch while the tokens of the one before are being taken: on a GPU."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""
    local_files_only: bool = Field(default_factory=lambda: os.environ.get("HF_HUB_OFFLINE", "").upper() in _OFFLINE)
    """Never ask the hub; the environment's HF_HUB_OFFLINE is the default."""
    keep_alive: Seconds | None = None
    """Seconds without a request after which the model is unloaded; never, if absent."""
    heartbeat_timeout: Annotated[Seconds, Field(ge=1, le=86_400)] = 30.0
    """Seconds that the engine process may give no sign of life, four times as many while it loads the model; then it is
    ended, its requests end with ENGINE_CRASHED, and it is started again."""
    step_timeout: Annotated[Seconds, Field(ge=1, le=86_400)] = 600.0
    """Seconds that one step of an engine that gives signs of life may take: the next token of all its requests, a
    prompt's tokens, a format's compilation; then it is ended likewise."""
    load_timeout: Annotated[Seconds, Field(ge=1, le=86_400)] = 1800.0
    """Seconds that loading may take without any progress; then the process is ended, and loading has failed."""
    max_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Requests that are answered at a time: 64 on a CPU, 256 on a GPU, if absent; 1 answers them one after another."""
    kv_cache_bytes: Annotated[Bytes, Field(ge=1 << 20)] | None = None
    """Memory for the keys and values of all running requests: 512 MiB on a CPU, 40 % of what is free on a GPU."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    """The share of the GPU's memory, all of it, that weights, keys and values, graphs and steps may take together;
    what is left of it is for keys and values, unless kv_cache_bytes sizes them."""
    prefix_sharing: bool = True
    """Use the keys and values that an earlier request with the same beginning left in the cache; the time until an
    answer begins then tells whether there was such a request."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """CPU threads of the engine; as many as the CPUs it may use, if absent."""

    @model_validator(mode="before")
    @classmethod
    def _fold_flags(cls, values: dict[str, Any]) -> dict[str, Any]:
        values = dict(values)
        flags = {name: values.pop(name) for name in _FLAGS if name in values}
        for name, flag in flags.items():
            if not isinstance(flag, bool):
                raise ValueError(f"{name} must be true or false")
            if flag:
                if flags.keys() == _FLAGS.keys() and all(flags.values()):
                    raise ValueError("load_in_8bit and load_in_4bit exclude each other")
                values["quantization"] = _FLAGS[name]
            elif values.get("quantization") == _FLAGS[name]:
                values["quantization"] = Quantization.NONE
        return values

    @model_validator(mode="after")
    def _check_double_quantization(self) -> HuggingFaceConfig:
        if self.double_quantization and self.quantization is not Quantization.INT4:
            raise ValueError("double_quantization needs quantization: int4")
        return self

    @classmethod
    def known_keys(cls) -> list[str]:
        """Returns every key that a configuration of this kind may hold."""
        return sorted({*super().known_keys(), *_FLAGS})

    def load_settings(self, model: str = "") -> Load:
        """Returns what an engine needs to load a model; equal settings mean the same engine.

        Args:
            model: One of `models`; `model` if empty.
        """
        model, is_directory, dtype, threads = model or self.model, True, self.dtype, self.threads
        home = os.environ.get("HOME")
        if model == DEMO_MODEL:
            model = str(Path(__file__).with_name("demo_model"))
            # So small a model is faster without bfloat16 and without a second thread.
            dtype, threads = "float32" if dtype == "auto" else dtype, threads or 1
        elif model.startswith(("~", ".", os.sep)) or os.path.isdir(model):  # noqa: PTH112 - for every request, as below
            model = os.path.realpath(_expanded(model, home))
        else:
            is_directory = False
        return Load(
            model=model,
            is_directory=is_directory,
            cache_dir=_expanded(self.cache_dir, home),
            revision=self.revision,
            dtype=dtype,
            quantization=self.quantization.value,
            double_quantization=self.double_quantization,
            context_window=self.context_window,
            device_map=self.device_map,
            attn_implementation=self.attn_implementation,
            cuda_graphs=self.cuda_graphs,
            fused_kernels=self.fused_kernels,
            overlap_steps=self.overlap_steps,
            trust_remote_code=self.trust_remote_code,
            local_files_only=self.local_files_only,
            threads=threads,
            max_batch_size=self.max_batch_size,
            kv_cache_bytes=self.kv_cache_bytes,
            gpu_memory_utilization=self.gpu_memory_utilization,
            prefix_sharing=self.prefix_sharing,
        )

    def engine_settings(self, model: str = "") -> EngineSettings:
        """Returns the settings of a model's engine.

        Args:
            model: One of `models`; `model` if empty.
        """
        patience = Patience(self.heartbeat_timeout, self.step_timeout, self.load_timeout)
        limits = EngineLimits(self.admission_limits, self.keep_alive, patience)
        return EngineSettings(model or self.model, self.load_settings(model), limits)


@lru_cache(maxsize=256)
def _expanded(path: str, home: str | None) -> str:
    """Returns a path with the home folder in the place of its `~`; kept, since each request's model is looked up."""
    return str(Path(path).expanduser())


def without_replace(changes: Mapping[Any, Any]) -> tuple[dict[str, Any], bool]:
    """Takes `replace`, which belongs to one change and is not kept, out of a change's provider options.

    Returns:
        The other changes, and the value of `replace`.

    Raises:
        ConfigurationError: If it is neither true nor false.
    """
    others = {str(key): value for key, value in changes.items()}
    options = others.get("provider_options")
    if not isinstance(options, Mapping) or "replace" not in options:
        return others, False
    if not isinstance(options["replace"], bool):
        raise ConfigurationError(
            f"provider_options.replace: must be true or false, got {options['replace']!r:.80}",
            field="provider_options.replace",
        )
    if other_options := {key: value for key, value in options.items() if key != "replace"}:
        others["provider_options"] = other_options
    else:  # without other options the stored ones are not to change
        del others["provider_options"]
    return others, options["replace"]
