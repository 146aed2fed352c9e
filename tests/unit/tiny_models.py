"""Tiny checkpoints with random weights and tokenizers of their own, of several architectures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

WINDOW = 128

CORPUS = [
    "The quick brown fox jumps over the lazy dog. What is the capital of France? Paris, of course.",
    "one two three four five six seven eight nine ten; hello world, this is a test of small words",
    "schöne Grüße, ça va, привет мир, שלום עולם, 你好世界, 🙂 emoji and more text for the merges",
] * 4

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]


def byte_level_tokenizer() -> Tokenizer:
    """Byte-level BPE, as GPT-2, Llama 3 and Qwen have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def sentencepiece_tokenizer() -> Tokenizer:
    """BPE with a prefixed space and byte tokens, as Llama 2 and Gemma have it."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=[*SPECIAL, "<unk>"], limit_alphabet=60, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    # Byte tokens are ordinary entries of the vocabulary, which a trainer cannot be told.
    import json

    structure = json.loads(tokenizer.to_str())
    vocabulary = structure["model"]["vocab"]
    for token in bytes_:
        vocabulary.setdefault(token, len(vocabulary))
    return Tokenizer.from_str(json.dumps(structure))


def decoded(tokenizer: Tokenizer, ids: Sequence[int], context: Sequence[int] = ()) -> str:
    """Returns the text that tokens add behind others, without special tokens.

    It is that of the tokenizer's own decoder, but for byte tokens that of sentencepiece: whole characters count, and
    each other byte becomes U+FFFD. The decoder of tokenizers replaces the whole run of byte tokens around such a byte.
    """

    def decode(ids: Sequence[int]) -> str:
        if tokenizer.token_to_id("<0x00>") is None:
            return str(tokenizer.decode(list(ids), skip_special_tokens=True))
        special = {id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        tokens = [tokenizer.id_to_token(id) for id in ids if id not in special]
        return _sentencepiece_text([token for token in tokens if token is not None])

    begin = decode(context)
    text = decode([*context, *ids])
    assert text.startswith(begin)
    return text[len(begin) :] if begin else decode(ids)


def _sentencepiece_text(tokens: Sequence[str]) -> str:
    text = ""
    for is_bytes, run in groupby(tokens, lambda token: token.startswith("<0x")):
        if not is_bytes:
            text += "".join(run).replace("▁", " ")
            continue
        rest = bytes(int(token[3:5], 16) for token in run)
        while rest:
            length = next((length for length in range(1, 5) if _is_utf8(rest[:length])), 0)
            text += rest[:length].decode() or "\ufffd"
            rest = rest[length or 1 :]
    return text.removeprefix(" ")


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def build(directory: Path, architecture: str, *, chat: bool = True, seed: int = 0, **changes: Any) -> Path:
    """Writes a checkpoint.

    Args:
        directory: Where to; made if absent.
        architecture: `llama`, `qwen3`, `gemma` or `gpt2`.
        chat: Whether the tokenizer has a chat template.
        seed: Of the weights.
        **changes: Of the model's configuration.
    """
    import torch
    import transformers

    is_sentencepiece = architecture == "gemma"
    backend = sentencepiece_tokenizer() if is_sentencepiece else byte_level_tokenizer()
    if not chat:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
        )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": WINDOW,
        "initializer_range": 0.4,  # wide, so that greedy texts vary
    }
    if architecture == "gpt2":
        sizes = {
            "vocab_size": len(tokenizer),
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 2,
            "n_positions": WINDOW,
            "initializer_range": 0.4,
        }
    kinds = {"llama": "Llama", "qwen3": "Qwen3", "gemma": "Gemma", "gpt2": "GPT2"}
    configuration = getattr(transformers, f"{kinds[architecture]}Config")(
        **{
            **sizes,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.eos_token_id,
            "tie_word_embeddings": False,
            **changes,
        }
    )
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(configuration)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
