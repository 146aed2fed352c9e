"""The kind of a model: only causal language models are served, others are refused by what they are."""

from __future__ import annotations

import re
from typing import Any

import torch
import transformers
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from abstractllm.errors import ModelLoadError

__all__ = ["check_architecture", "check_causality"]

_AUTO_CLASS = "AutoModelForCausalLM"
_HEAD = re.compile(r".+?For(?P<head>[A-Z]\w*)")
_GENERATING_HEADS = ("CausalLM", "ConditionalGeneration", "ImageTextToText", "Vision2Seq")
_KINDS = {
    "SequenceClassification": "a classifier of texts",
    "TokenClassification": "a classifier of tokens",
    "QuestionAnswering": "a model that marks answers in a text",
    "MultipleChoice": "a model that chooses among texts",
    "MaskedLM": "a masked language model",
    "PreTraining": "a model in pre-training",
    "NextSentencePrediction": "a classifier of pairs of sentences",
    "RewardModel": "a reward model",
    "ProcessRewardModel": "a reward model",
}
_ONLY = "only causal language models are served"
_FROM_ALL_SIDES = ("xlnet",)
"""Models that see all tokens before the one that they predict, in both directions, and generate that way."""

_SAME_TOKENS, _OTHER_TOKENS = 2, 6
"""The tokens of a probe that two texts have in common, and those after them that differ."""
_LARGEST_CHANGE = 0.1
"""The largest change of logits that rounding explains, as a share of their spread; a model that sees the tokens after a
place changes by as much as the spread."""


def check_architecture(config: Any, model: str) -> None:
    """Checks, before weights are read, that a configuration is of a causal language model.

    Args:
        config: The configuration of transformers.
        model: The model's name in messages.

    Raises:
        ModelLoadError: If it is of an encoder, an encoder-decoder, a classifier or another head, if transformers has no
            causal language model of this type, or if it does not know the way in which the weights are quantized.
    """
    names = [name for name in getattr(config, "architectures", None) or [] if isinstance(name, str)]
    named = f" ({names[0]})" if names else ""
    remote = (getattr(config, "auto_map", None) or {}).get(_AUTO_CLASS)
    is_known = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    own_names = _class_names(config) if is_known else set()
    if isinstance(remote, str):
        own_names.add(remote.rpartition(".")[2])
    kind = ""
    if getattr(config, "is_encoder_decoder", False):
        kind = f"an encoder-decoder{named}"
    elif names and not own_names.intersection(names) and (head := _HEAD.fullmatch(names[0])):
        if not head["head"].startswith(_GENERATING_HEADS):
            kind = f"{_KINDS.get(head['head'], 'a model with another head')}{named}"
    elif is_known and not remote and _is_encoder(config):
        kind = f"an encoder{named or f' ({config.model_type})'}"
    if not kind and not is_known and not remote:
        kind = f"a model of the type {config.model_type}{named}, of which transformers {transformers.__version__} "
        kind += "has no causal language model"
    if kind:
        raise ModelLoadError(f"model {model} is {kind}; {_ONLY}", field="model")
    _check_quantization(config, model)


def check_causality(model: Any, name: str) -> None:
    """Checks that a loaded model predicts numbers, and without the tokens after a place, by two texts that begin alike.

    Args:
        model: A transformers model.
        name: The model's name in messages.

    Raises:
        ModelLoadError: If it looks at the tokens after a place, as encoders do, or predicts what is no number.
    """
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if vocabulary < 2 * _SAME_TOKENS + 2 * _OTHER_TOKENS:
        return
    same = list(range(1, 1 + _SAME_TOKENS))
    begin = 1 + _SAME_TOKENS
    texts = [[*same, *range(begin + index * _OTHER_TOKENS, begin + (index + 1) * _OTHER_TOKENS)] for index in (0, 1)]
    device = model.get_input_embeddings().weight.device
    tokens = torch.tensor(texts, device="cpu" if device.type == "meta" else device)
    try:
        with torch.no_grad():
            logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits
    except Exception:  # some take other arguments; that a model can generate is checked when the batch loop starts
        return
    logits = logits[:, :_SAME_TOKENS].float()
    if logits.isnan().any():
        weights = [(key, weight) for key, weight in model.named_parameters() if weight.device.type != "meta"]
        damaged = [key for key, weight in weights if not weight.isfinite().all()]
        cause = f"its weights are not finite: {', '.join(damaged[:3])}" if damaged else f"in {model.dtype} it overflows"
        raise ModelLoadError(f"model {name}: what it predicts is not a number ({cause})", field="model")
    if model.config.model_type in _FROM_ALL_SIDES:
        return
    if (logits[0] - logits[1]).abs().max() > _LARGEST_CHANGE * logits.std(dim=-1).max():
        raise ModelLoadError(
            f"model {name} is not causal: what it predicts at a place changes with the tokens after it; {_ONLY}",
            field="model",
        )


def _class_names(config: Any) -> set[str]:
    """Returns the names of the classes that transformers may choose for a configuration."""
    classes: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return {kind.__name__ for kind in (classes if isinstance(classes, (list, tuple)) else [classes])}


def _is_encoder(config: Any) -> bool:
    """Returns True if models of this configuration see all tokens unless it says that they are decoders."""
    return type(config) in MODEL_FOR_MASKED_LM_MAPPING and not (
        getattr(config, "is_decoder", False) or getattr(config, "causal", False)
    )


def _check_quantization(config: Any, model: str) -> None:
    """Checks that the way in which a checkpoint is quantized is known.

    Raises:
        ModelLoadError: If not: transformers would take the packed numbers for weights.
    """
    for owner in (config, config.get_text_config(decoder=True)):
        quantization = getattr(owner, "quantization_config", None)
        if quantization is None:
            continue
        facts = quantization if isinstance(quantization, dict) else quantization.to_dict()
        method = getattr(facts.get("quant_method"), "value", facts.get("quant_method"))
        if facts.get("load_in_8bit") or facts.get("load_in_4bit") or method in AUTO_QUANTIZATION_CONFIG_MAPPING:
            continue
        known = ", ".join(sorted(str(getattr(name, "value", name)) for name in AUTO_QUANTIZATION_CONFIG_MAPPING))
        raise ModelLoadError(
            f"model {model}: its weights are quantized by {method!r}, which transformers {transformers.__version__} "
            f"does not know (quantization_config of config.json); it knows {known}",
            field="model",
        )
