"""Tiny models with random weights, one of each architecture that a local LLM is tried with."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

WINDOW = 256
SLIDING = 24
"""Of models with a sliding window: prompts of the tests are longer."""

_COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": WINDOW,
    "initializer_range": 0.3,  # wide, so that greedy texts vary
    "tie_word_embeddings": False,
}
_HEADS = {"head_dim": 8}
_EXPERTS = {"moe_intermediate_size": 32, "num_experts_per_tok": 2, "norm_topk_prob": True}


@dataclass(frozen=True, eq=False)
class Architecture:
    """One kind of model.

    Attributes:
        name: As people know it.
        kind: The prefix of its configuration class in transformers.
        sizes: Of the configuration, beside the common ones.
        common: Whether the configuration takes the common names.
        reason_alone: A part of the LLM's `state_reason` that says why it is not batched; empty if it is.
    """

    name: str
    kind: str
    sizes: dict[str, Any] = field(default_factory=dict)
    common: bool = True
    reason_alone: str = ""


ARCHITECTURES = [
    Architecture("Llama", "Llama", _HEADS),
    Architecture("Qwen2", "Qwen2"),
    Architecture("Qwen3", "Qwen3", _HEADS),
    Architecture("Qwen3-MoE", "Qwen3Moe", {**_HEADS, **_EXPERTS, "num_experts": 4}),
    Architecture("Mistral", "Mistral", {**_HEADS, "sliding_window": SLIDING}),
    Architecture("Mixtral", "Mixtral", {**_HEADS, "num_local_experts": 4, "num_experts_per_tok": 2}),
    Architecture("Gemma 2", "Gemma2", {**_HEADS, "sliding_window": SLIDING, "query_pre_attn_scalar": 8}),
    Architecture(
        "Gemma 3",
        "Gemma3Text",
        {
            **_HEADS,
            "sliding_window": SLIDING,
            "query_pre_attn_scalar": 8,
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
    ),
    Architecture("Gemma", "Gemma", _HEADS),
    Architecture("Phi-2", "Phi"),
    Architecture("Phi-3", "Phi3", {"pad_token_id": 0}),
    Architecture("OLMo 2", "Olmo2"),
    Architecture("Granite", "Granite"),
    Architecture("GLM-4", "Glm", {**_HEADS, "pad_token_id": 0}),
    Architecture("OLMoE", "Olmoe", {"num_experts": 4, "num_experts_per_tok": 2}),
    Architecture("Cohere", "Cohere"),
    Architecture("StarCoder 2", "Starcoder2"),
    Architecture("SmolLM 3", "SmolLM3", {"pad_token_id": 0}),
    Architecture(
        "GPT-OSS",
        "GptOss",
        {
            **_HEADS,
            "sliding_window": SLIDING,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
    Architecture("Lfm2", "Lfm2", {"layer_types": ["conv", "full_attention"]}, reason_alone="Invalid layer type: conv"),
    Architecture(
        "GPT-2",
        "GPT2",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": WINDOW, "initializer_range": 0.3},
        common=False,
    ),
    Architecture(
        "GPT-NeoX",
        "GPTNeoX",
        {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": WINDOW,
            "initializer_range": 0.3,
        },
        common=False,
    ),
    Architecture(
        "GPT-J",
        "GPTJ",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": WINDOW, "rotary_dim": 4, "initializer_range": 0.3},
        common=False,
        reason_alone="differs in a batch",
    ),
    Architecture(
        "GPT-Neo",
        "GPTNeo",
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": SLIDING,
            "max_position_embeddings": WINDOW,
            "initializer_range": 0.3,
        },
        common=False,
        reason_alone="differs in a batch",
    ),
    Architecture(
        "OPT",
        "OPT",
        {
            "hidden_size": 32,
            "ffn_dim": 64,
            "word_embed_proj_dim": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": WINDOW,
            "init_std": 0.3,
        },
        common=False,
    ),
    Architecture(
        "Bloom",
        "Bloom",
        {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3},
        common=False,
        reason_alone="differs in a batch",
    ),
    Architecture(
        "Falcon",
        "Falcon",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": WINDOW,
            "initializer_range": 0.3,
        },
        common=False,
        reason_alone="the batch loop broke",
    ),
    Architecture(
        "MPT",
        "Mpt",
        {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": WINDOW, "initializer_range": 0.3},
        common=False,
        reason_alone="differs in a batch",
    ),
    Architecture(
        "DeepSeek-V3",
        "DeepseekV3",
        {
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": 32,
            "first_k_dense_replace": 1,
        },
        reason_alone="the batch loop broke",
    ),
    Architecture(
        "Mamba",
        "Mamba",
        {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "initializer_range": 0.3},
        common=False,
        reason_alone="num_key_value_heads or num_attention_heads could not be found",
    ),
    Architecture(
        "Mamba 2",
        "Mamba2",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "state_size": 4,
            "num_heads": 8,
            "head_dim": 8,
            "n_groups": 1,
            "chunk_size": 16,
        },
        common=False,
        reason_alone="num_key_value_heads or num_attention_heads could not be found",
    ),
    Architecture(
        "Qwen3-Next",
        "Qwen3Next",
        {
            **_HEADS,
            **_EXPERTS,
            "num_experts": 4,
            "shared_expert_intermediate_size": 32,
            "layer_types": ["linear_attention", "full_attention"],
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
        reason_alone="Invalid layer type: linear_attention",
    ),
    Architecture(
        "Llama 4",
        "Llama4Text",
        {
            **_HEADS,
            "num_local_experts": 2,
            "intermediate_size_mlp": 64,
            "attention_chunk_size": SLIDING,
            "layer_types": ["chunked_attention", "full_attention"],
        },
        reason_alone="Invalid layer type: chunked_attention",
    ),
    Architecture(
        "RWKV",
        "Rwkv",
        {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "context_length": WINDOW},
        common=False,
        reason_alone="num_key_value_heads or num_attention_heads could not be found",
    ),
]


@cache
def tokenizer() -> Any:
    """A byte-level tokenizer that all share."""
    import transformers

    from tests.unit.tiny_models import byte_level_tokenizer

    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_level_tokenizer(), bos_token="<s>", eos_token="</s>"
    )


def model_of(architecture: Architecture, **changes: Any) -> Any:
    """A model in float32 with random weights, always the same ones."""
    import torch
    import transformers

    sizes = {**(_COMMON if architecture.common else {}), **architecture.sizes, **changes}
    configuration = getattr(transformers, f"{architecture.kind}Config")(
        vocab_size=len(tokenizer()), bos_token_id=0, eos_token_id=1, **sizes
    )
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(configuration, dtype=torch.float32).eval()


def packed_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, query_starts: torch.Tensor, key_starts: torch.Tensor,
    longest_query: int, longest_key: int, *, scale: float, window_size: tuple[int, int], enable_gqa: bool = True,
) -> torch.Tensor:  # fmt: skip
    """Computes, token by token, the documented result of PyTorch's kernel, which exists on a GPU alone."""
    import torch

    assert enable_gqa
    is_causal = window_size[1] == 0
    assert is_causal or window_size == (-1, -1)
    output = torch.zeros_like(query)
    for sequence in range(len(query_starts) - 1):
        first, last = query_starts[sequence : sequence + 2].tolist()
        begin, end = key_starts[sequence : sequence + 2].tolist()
        assert last - first <= longest_query
        assert end - begin <= longest_key
        for token in range(first, last):
            place = end - (last - token)
            left = begin if window_size[0] < 0 else max(begin, place - window_size[0])
            right = place + 1 if is_causal else end
            for head in range(query.shape[1]):
                key_head = head * key.shape[1] // query.shape[1]
                scores = key[left:right, key_head] @ query[token, head] * scale
                output[token, head] = scores.softmax(dim=0) @ value[left:right, key_head]
    return output
