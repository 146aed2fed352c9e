"""A model that writes given tokens: a GPT-2 with hand-made weights that looks at the position alone."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tokenizers import processors

from tests.unit.tiny_models import byte_level_tokenizer, sentencepiece_tokenizer

_KINDS = {"byte_level": byte_level_tokenizer, "sentencepiece": sentencepiece_tokenizer}


@functools.cache
def _backend(kind: str) -> Any:
    return _KINDS[kind]()


def scripted_tokenizer(
    kind: str = "byte_level",
    special: Sequence[str] = (),
    added: Sequence[str] = (),
    begin: bool = True,
    end: bool = False,
    end_token: str = "</s>",
) -> Any:
    """Returns a tokenizer.

    Args:
        kind: `byte_level`, as GPT-2, Llama 3 and Qwen have it, or `sentencepiece`, as Llama 2 and Gemma have it.
        special: Further special tokens beside `<s>`, `</s>`, `<|im_start|>`, `<|im_end|>`.
        added: Further added tokens that are not special.
        begin: Whether a plain prompt begins with `<s>`.
        end: Whether a plain prompt ends with `</s>`.
        end_token: The token that ends an answer.
    """
    import transformers

    backend = copy.deepcopy(_backend(kind))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>", *special],
    )
    if added:
        tokenizer.add_tokens(list(added))
    if end_token != "</s>":
        tokenizer.eos_token = end_token
    if begin or end:
        single = ("<s> " if begin else "") + "$A" + (" </s>" if end else "")
        tokens = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "</s>") if token in single]
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=tokens)
    return tokenizer


def write_checkpoint(
    directory: Path,
    tokenizer: Any,
    *,
    window: int = 512,
    generation_config: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    remove: Sequence[str] = (),
    files: Mapping[str, Any] | None = None,
) -> None:
    """Writes a checkpoint whose answers `let_write` decides.

    Args:
        directory: Where to.
        tokenizer: Its tokenizer.
        window: The tokens of prompt and answer together.
        generation_config: Values of the model's `generation_config.json`.
        config: Values that replace those in `config.json`.
        remove: Patterns of the names of weights that are left out.
        files: Further files by name, as text or as JSON; null removes a file.
    """
    import torch
    import transformers
    from safetensors.torch import load_file, save_file

    sizes = {"n_positions": window, "n_embd": window, "n_inner": 8, "n_layer": 1, "n_head": 4}
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model_config = transformers.GPT2Config(vocab_size=len(tokenizer), tie_word_embeddings=False, **sizes, **ids)
    model = transformers.GPT2LMHeadModel(model_config)
    transformer = model.transformer
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        for norm in (transformer.ln_f, transformer.h[0].ln_1, transformer.h[0].ln_2):
            norm.weight.fill_(1.0)
        transformer.wpe.weight.copy_(torch.eye(window))
    for name, value in (generation_config or {}).items():
        setattr(model.generation_config, name, value)
    tokenizer.save_pretrained(directory)
    model.save_pretrained(directory)
    if remove:
        weights = load_file(directory / "model.safetensors")
        kept = {name: value for name, value in weights.items() if not any(fnmatch(name, one) for one in remove)}
        assert len(kept) < len(weights), f"no weight is named like {remove}"
        save_file(kept, directory / "model.safetensors", {"format": "pt"})
    if config:
        path = directory / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | dict(config)))
    for name, content in (files or {}).items():
        if content is None:
            (directory / name).unlink()
        else:
            (directory / name).write_text(content if isinstance(content, str) else json.dumps(content))


def let_write(loaded: Any, tokenizer: Any, prompt_tokens: int, script: str | Sequence[Any]) -> None:
    """Sets the weights of a loaded model so that it answers a prompt of this length with a script, and then ends.

    Args:
        loaded: A `LoadedModel` of a checkpoint that `write_checkpoint` wrote.
        tokenizer: Its tokenizer.
        prompt_tokens: The length of the prompt.
        script: The text, in which special tokens are written as they are called; or a list of such texts and of
            tokens by name (`{token: "<0x0A>"}`) or number (`{id: 7}`), each of which may be repeated (`times: 60`).
    """
    import torch

    tokens = _tokens(tokenizer, [script] if isinstance(script, str) else script)
    head = loaded.model.lm_head.weight
    assert prompt_tokens + len(tokens) <= head.shape[1], "the case's window is too small"
    with torch.no_grad():
        head.zero_()
        for place, token in enumerate([*tokens, tokenizer.eos_token_id], prompt_tokens - 1):
            if place < head.shape[1]:
                head[token, place] = 2.0


def _tokens(tokenizer: Any, script: Sequence[Any]) -> list[int]:
    tokens: list[int] = []
    for item in script:
        if isinstance(item, str):
            tokens += tokenizer(item, add_special_tokens=False)["input_ids"]
            continue
        token = item["id"] if "id" in item else tokenizer.get_vocab()[item["token"]]
        tokens += [token] * item.get("times", 1)
    return tokens
