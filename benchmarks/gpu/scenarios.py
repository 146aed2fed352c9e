"""The shapes of the models, and the runs with each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["GREEDY", "SHAPES", "VARIANTS", "Scenario", "Shape", "Variant", "scenarios"]

GREEDY: dict[str, Any] = {"temperature": 0.0}
_QWEN: dict[str, Any] = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05}
"""The defaults of Qwen 2.5's `generation_config.json`."""


@dataclass(frozen=True)
class Shape:
    """A model with random weights."""

    config: str
    """The name of the configuration's class in transformers."""
    options: dict[str, Any]
    """Its arguments."""


SHAPES = {
    "llama-8b": Shape(
        "LlamaConfig",
        {
            "vocab_size": 128_256,
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 8192,
        },
    ),
    "llama-1b": Shape(
        "LlamaConfig",
        {
            "vocab_size": 128_256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
    ),
    "gemma-2-2b": Shape(
        "Gemma2Config",
        {
            "vocab_size": 256_000,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "max_position_embeddings": 8192,
            "sliding_window": 4096,
        },
    ),
    "tiny": Shape(
        "LlamaConfig",
        {
            "vocab_size": 8192,
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "max_position_embeddings": 8192,
        },
    ),
}
"""By name; `tiny` tries the benchmark itself on a CPU."""


@dataclass(frozen=True)
class Variant:
    """The engine without some of what makes it fast, to measure what that saves."""

    name: str
    keys: dict[str, Any] = field(default_factory=dict)
    """Keys of the configuration."""
    attention: str = ""
    """The attention, if only one is tried."""


_SLOWER: dict[str, Any] = {"cuda_graphs": False, "fused_kernels": False, "overlap_steps": False}
VARIANTS = {
    "default": Variant("default"),
    "no graphs": Variant("no graphs", {"cuda_graphs": False}),
    "no fused kernels": Variant("no fused kernels", {"fused_kernels": False}),
    "no overlap": Variant("no overlap", {"overlap_steps": False}),
    "plain": Variant("plain", _SLOWER, attention="abstractllm_paged"),
}
"""By name; `plain` has none of it, and attends by PyTorch's own operations."""


@dataclass(frozen=True)
class Scenario:
    """Requests that are answered at the same time."""

    requests: int
    prompt: int
    """Tokens of each prompt."""
    new: int
    """Tokens of each answer."""
    sampling: dict[str, Any] = field(default_factory=lambda: GREEDY)
    name: str = "greedy"
    """The kind of sampling, in words."""
    profiled: bool = False
    """True if some of its steps are looked at one by one."""


def scenarios(shape: str, requests: Sequence[int], prompt: int, new: int) -> list[Scenario]:
    """Returns the runs with a model: all numbers of requests, then long prompts and sampling at a middle number."""
    runs = [Scenario(count, prompt, new, profiled=count == 64) for count in requests]
    if shape in ("gemma-2-2b", "llama-1b"):
        return runs
    middle = 64 if 64 in requests else max(requests)
    runs += [Scenario(middle, length, new) for length in (1024, 4096) if length > prompt]
    runs.append(Scenario(middle, prompt, new, _QWEN, "sampled as Qwen 2.5 is by default", profiled=True))
    runs.append(Scenario(middle, prompt, new, {**GREEDY, "top_logprobs": 5}, "greedy, 5 logprobs"))
    return runs
