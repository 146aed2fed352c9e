"""The model that is measured."""

from __future__ import annotations

from pathlib import Path

from benchmarks.serving.workload import VOCABULARY

__all__ = ["build_model"]


def build_model(folder: Path) -> None:
    """Writes a Llama of four layers and hidden size 256 with random weights, and a tokenizer of one token a word.

    On a CPU core its step takes about as long as a large model's on a GPU. It has no end token: answers are as long as
    they may be.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    words = {f"w{index}": index for index in range(VOCABULARY)}
    backend = Tokenizer(models.WordLevel(words, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=2048).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
