"""A small model under any generation configuration, and the configurations that the tests try."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from abstractllm.providers.huggingface.protocol.messages import (
    Conversation,
    Delta,
    Generate,
    Load,
    Sampling,
    Turn,
)
from abstractllm.providers.huggingface.worker import sequential
from abstractllm.providers.huggingface.worker.generation_rules import read_rules
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.preparation import tokenize
from abstractllm.providers.huggingface.worker.request import EngineRequest

PROMPTS = ["hello", "tell me about the quick brown fox", "1 12 122255543212143331"]
NEW_TOKENS = 24
VOCABULARY = 400
END = 1
"""The token `</s>` of the tiny tokenizer."""

FEW_TOKENS = {"sequence_bias": [[[token], 40.0] for token in range(20, 25)]}
"""A bias by which answers consist of five tokens, so that sequences come again."""
RULES: dict[str, dict[str, Any]] = {
    "a bias": {"sequence_bias": [[[20], 6.0], [[21], -3.0]]},
    "a bias of a sequence": {"sequence_bias": [[[20], 7.0], [[20, 21], 9.0], [[20, 21, 22], 11.0]]},
    "a bias of the end": {"sequence_bias": [[[END], 40.0]]},
    "a penalty of what is not in the prompt": {"encoder_repetition_penalty": 1.8},
    "a penalty of what is in the prompt": {"encoder_repetition_penalty": 0.4},
    "a repetition penalty": {"repetition_penalty": 1.6},
    "no token twice": {"no_repeat_ngram_size": 1},
    "no pair twice": {"no_repeat_ngram_size": 2, **FEW_TOKENS},
    "no triple twice": {"no_repeat_ngram_size": 3, **FEW_TOKENS},
    "no token of the prompt": {"encoder_no_repeat_ngram_size": 1},
    "no pair of the prompt": {"encoder_no_repeat_ngram_size": 2, **FEW_TOKENS},
    "bad words": {"bad_words_ids": [[index] for index in range(5, 400, 3)] + [[END]]},
    "bad sequences": {"bad_words_ids": [[20, 21], [21, 20], [22, 22], [23, 20, 24], [24, 21, 22]], **FEW_TOKENS},
    "a length": {"min_length": 30, "sequence_bias": [[[END], 40.0]]},
    "a length of the answer": {"min_new_tokens": 9, "sequence_bias": [[[END], 40.0]]},
    "both lengths": {"min_new_tokens": 5, "min_length": 60, "sequence_bias": [[[END], 40.0]]},
    "a forced first token": {"forced_bos_token_id": 33},
    "a forced last token": {"forced_eos_token_id": END},
    "forced last tokens": {"forced_eos_token_id": [44, 45]},
    "a decay": {"exponential_decay_length_penalty": [3, 1.5]},
    "a slow decay": {"exponential_decay_length_penalty": [0, 1.02]},
    "a steep decay": {"exponential_decay_length_penalty": [1, 1e8]},
    "suppressed tokens": {"suppress_tokens": [*range(40, 300, 2), 5000]},
    "tokens suppressed first": {"begin_suppress_tokens": list(range(4, 390))},
    "no suppressed tokens": {"suppress_tokens": [], "begin_suppress_tokens": []},
    "no invalid values": {"remove_invalid_values": True},
    "normal logits": {"renormalize_logits": True},
}
FILTERS: dict[str, dict[str, Any]] = {
    "top-h": {"top_h": 0.4},
    "typical": {"typical_p": 0.3},
    "epsilon": {"epsilon_cutoff": 0.02},
    "eta": {"eta_cutoff": 0.1},
    "all filters": {"top_h": 0.9, "typical_p": 0.8, "epsilon_cutoff": 0.001, "eta_cutoff": 0.002},
    "filters and cuts": {"typical_p": 0.9, "top_k": 30, "top_p": 0.9, "min_p": 0.02, "temperature": 1.4},
}
ALONE: dict[str, dict[str, Any]] = {
    "guidance": {"guidance_scale": 1.8},
    "watermark": {"watermarking_config": {"bias": 4.0, "seeding_scheme": "lefthash"}},
}
REFUSED: dict[str, Any] = {
    "max_time": 5.0,
    "num_beams": 4,
    "token_healing": True,
    "is_assistant": True,
    "assistant_ensemble_weight": 0.5,
    "penalty_alpha": 0.6,
    "dola_layers": "low",
    "constraints": [[5]],
    "force_words_ids": [[5]],
}


def settings(directory: Path) -> Load:
    return Load(model=str(directory), is_directory=True, cache_dir=str(directory), threads=1)


def configure(loaded: LoadedModel, fields: dict[str, Any]) -> None:
    """Gives a model another generation configuration, as a file in its directory does."""
    config = GenerationConfig.from_dict(json.loads(json.dumps(fields)))
    config.update(eos_token_id=sorted(loaded.ends), pad_token_id=END)
    loaded.model.generation_config = config
    loaded.rules = read_rules(config, loaded.vocabulary_size, loaded.ends)


def expected_answer(loaded: LoadedModel, prompt: str, **options: Any) -> list[int]:
    """Returns what `model.generate` answers by the model's generation configuration, and by options of ours."""
    ids = torch.tensor([loaded.prompt_builder.encode(Conversation((Turn("user", prompt),)))])
    options = {"max_new_tokens": NEW_TOKENS, **options}
    answer = loaded.model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, ids.shape[1] :].tolist()
    return [token for token in answer if token != END or token in loaded.ends]


def text_of(loaded: LoadedModel, tokens: list[int]) -> str:
    return loaded.token_decoder.decode(tokens)


def answer_alone(loaded: LoadedModel, prompt: str, **sampling: Any) -> tuple[str, Any]:
    pieces: list[str] = []
    conversation = Conversation((Turn("user", prompt),))
    request = EngineRequest(
        Generate(1, conversation, Sampling(**sampling)),
        prompt=tuple(loaded.prompt_builder.encode(conversation)),
        max_tokens=NEW_TOKENS,
    )

    def take(message: object) -> None:
        if isinstance(message, Delta):
            pieces.append(message.text)

    done = sequential.generate(loaded, request, take)
    return "".join(pieces), done


def prepare(loaded: LoadedModel, **sampling: Any) -> EngineRequest:
    request = EngineRequest(Generate(1, Conversation((Turn("user", "hello"),)), Sampling(**sampling)))
    tokenize(loaded, request)
    return request
