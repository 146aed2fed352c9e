"""The models that are measured: random weights, and a tokenizer of one token a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.serving.workload import VOCABULARY

__all__ = ["LLAMA", "build_model", "word_tokenizer"]

LLAMA: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
}
"""A Llama whose step takes about as long on a CPU core as a large model's on a GPU."""


def build_model(folder: Path, options: dict[str, Any] = LLAMA, device: str = "cpu") -> None:
    """Writes a Llama with random weights, in bfloat16 for a GPU.

    It has no end token: answers are as long as they may be.

    Args:
        folder: Where to.
        options: The arguments of its `LlamaConfig`.
        device: `cpu` or `cuda`, where the weights are made.
    """
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    word_tokenizer(options["vocab_size"], options["max_position_embeddings"]).save_pretrained(folder)
    config = LlamaConfig(**options, bos_token_id=None, eos_token_id=None, pad_token_id=None)
    with torch.device(device):
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder)


def word_tokenizer(vocabulary: int, window: int) -> Any:
    """Returns a tokenizer whose tokens are the words w0, w1, w2 and so on.

    Args:
        vocabulary: The number of words.
        window: The most tokens of a text.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{index}": index for index in range(vocabulary)}
    backend = Tokenizer(models.WordLevel(words, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=window)
