"""The fields of a model's generation configuration, what each means here, and a configuration that sets none.

`model.generate` obeys a model's `generation_config.json` in full. So do the answers here, one at a time and in a batch:
each field is honoured, or has no effect on an answer, or the model is refused by the field's name.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from transformers import GenerationConfig

__all__ = ["TREATMENTS", "Treatment", "neutral_config", "own_config_set_aside", "refused_fields"]


class Treatment(StrEnum):
    """The ways in which a field of the generation configuration is treated."""

    HONOURED = "honoured"
    """It changes answers as in `model.generate`."""
    DEFAULT = "default"
    """It holds where a request leaves the parameter of the same meaning unset."""
    ONE_AT_A_TIME = "one at a time"
    """It is honoured, but requests are answered one at a time."""
    NO_EFFECT = "no effect"
    """It changes no answer: it is about speed or memory, about other kinds of models or of results."""
    REFUSED = "refused"
    """A model that sets it cannot be loaded."""


TREATMENTS = {
    # The length of the output.
    "max_length": Treatment.DEFAULT,
    "max_new_tokens": Treatment.DEFAULT,
    "min_length": Treatment.HONOURED,
    "min_new_tokens": Treatment.HONOURED,
    "early_stopping": Treatment.NO_EFFECT,  # of beams
    "max_time": Treatment.REFUSED,
    "stop_strings": Treatment.DEFAULT,
    # The strategy.
    "do_sample": Treatment.DEFAULT,
    "num_beams": Treatment.REFUSED,
    "use_mtp": Treatment.NO_EFFECT,
    # The cache.
    "use_cache": Treatment.NO_EFFECT,
    "cache_implementation": Treatment.NO_EFFECT,
    "cache_config": Treatment.NO_EFFECT,
    "max_cache_len": Treatment.NO_EFFECT,
    # The logits.
    "temperature": Treatment.DEFAULT,
    "top_k": Treatment.DEFAULT,
    "top_p": Treatment.DEFAULT,
    "min_p": Treatment.DEFAULT,
    "top_h": Treatment.HONOURED,
    "typical_p": Treatment.HONOURED,
    "epsilon_cutoff": Treatment.HONOURED,
    "eta_cutoff": Treatment.HONOURED,
    "repetition_penalty": Treatment.DEFAULT,
    "encoder_repetition_penalty": Treatment.HONOURED,
    "length_penalty": Treatment.NO_EFFECT,  # of beams
    "no_repeat_ngram_size": Treatment.HONOURED,
    "bad_words_ids": Treatment.HONOURED,
    "renormalize_logits": Treatment.HONOURED,
    "forced_bos_token_id": Treatment.HONOURED,
    "forced_eos_token_id": Treatment.HONOURED,
    "remove_invalid_values": Treatment.HONOURED,
    "exponential_decay_length_penalty": Treatment.HONOURED,
    "suppress_tokens": Treatment.HONOURED,
    "begin_suppress_tokens": Treatment.HONOURED,
    "sequence_bias": Treatment.HONOURED,
    "token_healing": Treatment.REFUSED,
    "guidance_scale": Treatment.ONE_AT_A_TIME,
    "watermarking_config": Treatment.ONE_AT_A_TIME,
    # The result of `generate`.
    "num_return_sequences": Treatment.NO_EFFECT,
    "output_attentions": Treatment.NO_EFFECT,
    "output_hidden_states": Treatment.NO_EFFECT,
    "output_scores": Treatment.NO_EFFECT,
    "output_logits": Treatment.NO_EFFECT,
    "return_dict_in_generate": Treatment.NO_EFFECT,
    # Special tokens.
    "pad_token_id": Treatment.NO_EFFECT,
    "bos_token_id": Treatment.NO_EFFECT,  # the tokenizer has its own
    "eos_token_id": Treatment.HONOURED,
    # Models with an encoder, which are refused; of the prompt for all others.
    "encoder_no_repeat_ngram_size": Treatment.HONOURED,
    "decoder_start_token_id": Treatment.NO_EFFECT,
    # Speculation, which gives the same answers in less time.
    "is_assistant": Treatment.REFUSED,
    "num_assistant_tokens": Treatment.NO_EFFECT,
    "num_assistant_tokens_schedule": Treatment.NO_EFFECT,
    "assistant_confidence_threshold": Treatment.NO_EFFECT,
    "prompt_lookup_num_tokens": Treatment.NO_EFFECT,
    "max_matching_ngram_size": Treatment.NO_EFFECT,
    "assistant_early_exit": Treatment.NO_EFFECT,
    "assistant_lookbehind": Treatment.NO_EFFECT,
    "target_lookbehind": Treatment.NO_EFFECT,
    "assistant_ensemble_weight": Treatment.REFUSED,  # the one kind of it that gives other answers
    "speculation_type": Treatment.NO_EFFECT,
    # Speed and memory.
    "compile_config": Treatment.NO_EFFECT,
    "disable_compile": Treatment.NO_EFFECT,
    "continuous_batching_config": Treatment.NO_EFFECT,
    "low_memory": Treatment.NO_EFFECT,
    "prefill_chunk_size": Treatment.NO_EFFECT,
    # Strategies that transformers has given up.
    "penalty_alpha": Treatment.REFUSED,
    "dola_layers": Treatment.REFUSED,
    "diversity_penalty": Treatment.NO_EFFECT,  # of beams
    "num_beam_groups": Treatment.NO_EFFECT,  # of beams
    "constraints": Treatment.REFUSED,
    "force_words_ids": Treatment.REFUSED,
    # The file itself.
    "transformers_version": Treatment.NO_EFFECT,
}
"""The treatment of each field of transformers' `GenerationConfig`."""

_REFUSALS = {
    "max_time": "a time limit, which would give other answers under load; the key timeout limits the time of a request",
    "num_beams": "beam search, whose tokens are known only at the end",
    "token_healing": "the healing of a prompt's last tokens",
    "is_assistant": "an assistant model, whose answers end at the first doubtful token",
    "assistant_ensemble_weight": "answers mixed with those of an assistant model",
    "penalty_alpha": "contrastive search",
    "dola_layers": "decoding by contrasting layers",
    "constraints": "constrained beam search",
    "force_words_ids": "constrained beam search",
}
_ORDINARY: dict[str, tuple[object, ...]] = {"num_beams": (1,), "penalty_alpha": (0,)}
"""The values with which a field changes nothing, beside None and False."""


def refused_fields(config: Any) -> Iterator[tuple[str, str]]:
    """Yields the fields that a configuration sets and that are refused: the name, and the reason.

    Args:
        config: A `GenerationConfig`.
    """
    for name, reason in _REFUSALS.items():
        if _is_set(config, name):
            yield name, reason


def neutral_config(model: Any, **changes: Any) -> GenerationConfig:
    """Returns a configuration of a greedy answer to which no rule of the model's own applies.

    It has to be used where `own_config_set_aside`, since `generate` fills in what is None. Entries that transformers
    does not know, which a model with code of its own may read, are kept.

    Args:
        model: A transformers model.
        **changes: Values of fields.
    """
    config: GenerationConfig = copy.deepcopy(model.generation_config)
    settings = {
        **dict.fromkeys(TREATMENTS),
        # All that has a default of transformers' own is set, since `generate` would fill that in, too.
        **GenerationConfig._get_default_generation_params(),
        "max_length": None,
        "pad_token_id": 0,
        "top_k": 0,
        **changes,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config.update(**settings)  # type: ignore[no-untyped-call]
    return config


@contextmanager
def own_config_set_aside(model: Any) -> Iterator[None]:
    """Sets a model's own generation configuration aside for the time of a `with` block."""
    config, model.generation_config = model.generation_config, GenerationConfig()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        model.generation_config = config


def _is_set(config: Any, name: str) -> bool:
    value = getattr(config, name, None)
    return value is not None and value is not False and value not in _ORDINARY.get(name, ())
