"""The context window, of models whose positions are scaled above all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from abstractllm.errors import ConfigurationError, ContextLengthExceededError
from abstractllm.providers.huggingface import HuggingFaceProvider
from abstractllm.providers.huggingface.config import HuggingFaceConfig
from abstractllm.providers.huggingface.protocol.messages import Conversation, Delta, Generate, Load, Sampling, Turn
from abstractllm.providers.huggingface.worker.batching.start import start
from abstractllm.providers.huggingface.worker.checkpoint.positions import context_window
from abstractllm.providers.huggingface.worker.loading import load_model
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.request import EngineRequest
from abstractllm.providers.huggingface.worker.sequential import generate
from tests.cases.local.in_process_engine import engines_in_process
from tests.unit.architectures import tokenizer
from tests.unit.tiny_models import build

SIZES = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "pad_token_id": 0,
}
LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}


def model_of(kind: str, window: int, **changes: Any) -> Any:
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, "max_position_embeddings": window, **changes})
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    ("window", "rope", "expected"),
    [
        (128, None, 128),
        (128, {"rope_type": "default"}, 128),
        (128, {"rope_type": "linear", "factor": 4.0}, 512),
        (128, {"type": "linear", "factor": 4.0}, 512),  # as it was written until 2024
        (128, {"rope_type": "linear", "factor": 1.0}, 128),
        (128, {"rope_type": "dynamic", "factor": 2.0}, 256),
        (128, {"rope_type": "dynamic", "factor": 1.0, "alpha": 1000.0}, 128),  # HunYuan
        (128, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}, 512),
        (128, {"rope_type": "yarn", "factor": 4.0}, 512),
        # Qwen 3: 8,192 of the 40,960 positions are kept for the answer, and 131,072 are documented with YaRN.
        (40960, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, 131072),
        # Qwen 2.5
        (32768, {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, 131072),
        # GPT-OSS, DeepSeek-V3: already scaled
        (131072, {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096}, 131072),
        (163840, {"rope_type": "yarn", "factor": 40, "original_max_position_embeddings": 4096}, 163840),
        # Llama 3.1, and 3.2, whose factor is larger than what it was trained for
        (131072, {**LLAMA3, "factor": 8.0, "original_max_position_embeddings": 8192}, 131072),
        (131072, {**LLAMA3, "factor": 32.0, "original_max_position_embeddings": 8192}, 131072),
        (8192, {**LLAMA3, "factor": 8.0, "original_max_position_embeddings": 8192}, 65536),
        # Phi-3, already scaled, and MiniCPM4, not scaled
        (131072, {**LONG, "original_max_position_embeddings": 4096}, 131072),
        (32768, {**LONG, "original_max_position_embeddings": 32768}, 32768),
        (4096, {**LONG, "factor": 32.0, "original_max_position_embeddings": 4096}, 131072),
        (512, {"rope_type": "linear", "factor": 4.0, "original_max_position_embeddings": 128}, 512),
    ],
    ids=str,
)
def test_scaled_positions_count(window: int, rope: dict[str, Any] | None, expected: int) -> None:
    parameters = {"rope_theta": 10000.0, **rope} if rope else None
    model = model_of("Llama", window, rope_parameters=parameters)
    assert context_window(model, tokenizer()) == expected


def test_the_scaled_length_may_be_named_beside_the_other() -> None:
    """As by Vicuna 16k, whose configuration has both, and by a model that was scaled and names it twice."""
    rope = {"rope_type": "linear", "factor": 4.0}
    assert context_window(model_of("Llama", 4096, rope_scaling=rope, max_sequence_length=16384), tokenizer()) == 16384
    assert context_window(model_of("Llama", 16384, rope_scaling=rope, max_sequence_length=16384), tokenizer()) == 16384


def test_a_scaling_of_some_kinds_of_layers_is_in_the_named_length() -> None:
    rope = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    }
    layers = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 64}
    assert context_window(model_of("Gemma3Text", 1024, rope_parameters=rope, **layers), tokenizer()) == 1024
    rope["full_attention"] = {
        "rope_type": "yarn", "factor": 8.0, "rope_theta": 1e6, "original_max_position_embeddings": 128
    }  # fmt: skip
    assert context_window(model_of("Gemma3Text", 1024, rope_parameters=rope, **layers), tokenizer()) == 1024


@pytest.mark.parametrize(
    "rope", [{"rope_type": "yarn", "factor": 4.0}, {"rope_type": "dynamic", "factor": 4.0}], ids=["yarn", "dynamic"]
)
def test_a_prompt_beyond_the_unscaled_length_is_answered_as_the_model_does(
    tmp_path: Path, rope: dict[str, Any]
) -> None:
    build(tmp_path, "llama", rope_parameters={"rope_theta": 10000.0, **rope})
    text = "hello world " * 60
    chosen = AutoTokenizer.from_pretrained(tmp_path)
    prompt = chosen.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
    )
    assert 128 < len(prompt) < 480
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokens = model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)[0][len(prompt) :]
    with engines_in_process(), HuggingFaceProvider({"model": str(tmp_path), "dtype": "float32", "threads": 1}) as llm:
        assert llm.generate(text, max_tokens=8, temperature=0) == chosen.decode(tokens, skip_special_tokens=True)
        assert llm.get_capabilities().context_window == 512


def test_a_long_text_does_not_change_the_positions_of_the_next_one(tmp_path: Path) -> None:
    """With dynamic scaling transformers keeps those of the longest text, while the next one is longer than unscaled."""
    build(tmp_path, "llama", rope_parameters={"rope_theta": 10000.0, "rope_type": "dynamic", "factor": 4.0})

    def answers(*lengths: int) -> list[list[int]]:
        loaded = load(tmp_path, dtype="float32")
        sampling = Sampling(temperature=0.0, top_logprobs=0, logit_bias=dict.fromkeys(loaded.ends, -100.0))
        texts = []
        for length in lengths:
            message = Generate(1, Conversation((Turn("user", "hello"),)), sampling)
            request = EngineRequest(message, prompt=tuple(5 + place % 300 for place in range(length)), max_tokens=12)
            deltas: list[Any] = []
            generate(loaded, request, deltas.append)
            texts.append([item.token_id for delta in deltas if isinstance(delta, Delta) for item in delta.logprobs])
        return texts

    alone = answers(160) + answers(400) + answers(20)
    assert all(len(tokens) == 12 for tokens in alone)
    assert answers(400, 160, 20, 400, 160) == [alone[1], alone[0], alone[2], alone[1], alone[0]]


@pytest.mark.parametrize(
    ("rope", "longest_alone"),
    [
        ({"rope_type": "dynamic", "factor": 4.0}, 128),
        ({**LONG, "factor": 4.0, "original_max_position_embeddings": 128}, 128),
    ],
    ids=str,
)
def test_where_a_long_text_changes_the_positions_of_its_neighbours_there_is_no_batch(
    tmp_path: Path, rope: dict[str, Any], longest_alone: int
) -> None:
    build(tmp_path, "llama", rope_parameters={"rope_theta": 10000.0, **rope})
    for window, is_batched in ((None, False), (longest_alone, True)):
        config = {"model": str(tmp_path), "context_window": window}
        settings = HuggingFaceConfig.parse(config).load_settings()
        loaded = load(tmp_path, context_window=window)
        engine = start(loaded, settings, send=lambda _: None, end=lambda _: None, crash=lambda: None)
        assert (engine is not None) == is_batched
        assert ("the longest text" in loaded.description.note) != is_batched
        if engine is not None:
            engine.stop()


def load(directory: Path, **config: Any) -> LoadedModel:
    settings = HuggingFaceConfig.parse({"model": str(directory), "threads": 1, **config}).load_settings()
    return load_model(settings, lambda phase, fraction=None: None)


def test_the_configured_window_is_what_is_told_and_kept(tmp_path: Path) -> None:
    build(tmp_path, "llama")
    with engines_in_process(), HuggingFaceProvider({"model": str(tmp_path), "context_window": 64, "threads": 1}) as llm:
        assert llm.generate("hello", max_tokens=4) is not None
        assert llm.get_capabilities().context_window == 64
        with pytest.raises(ContextLengthExceededError, match="the context window of 64") as caught:
            llm.generate("hello", max_tokens=64)
        assert caught.value.requested == 64


def test_rotary_positions_may_be_used_beyond_what_the_configuration_names() -> None:
    assert context_window(model_of("Llama", 128), tokenizer(), 4096) == 4096


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("GPT2", {"n_positions": 128, "n_embd": 32, "n_head": 2, "n_layer": 2}),
        ("OPT", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
        ("GPTJ", {"n_positions": 128, "n_embd": 32, "n_head": 2, "n_layer": 2, "rotary_dim": 8}),
        ("BioGpt", {}),
    ],
)
def test_positions_that_a_model_does_not_have_cannot_be_configured(kind: str, changes: dict[str, Any]) -> None:
    model = model_of(kind, 128, **changes)
    assert context_window(model, tokenizer()) == 128
    assert context_window(model, tokenizer(), 100) == 100
    with pytest.raises(ConfigurationError, match=r"context_window: 129 .* this model has 128 positions") as caught:
        context_window(model, tokenizer(), 129)
    assert (caught.value.field, caught.value.limit, caught.value.requested) == ("context_window", 128, 129)


def test_a_model_without_positions_takes_any_window() -> None:
    model = model_of("Mamba", 128, state_size=4, max_position_embeddings=None)
    assert context_window(model, tokenizer()) == 4096
    assert context_window(model, tokenizer(), 1_000_000) == 1_000_000


@pytest.mark.parametrize("wrong", [0, 1, -5, 10**9, "many"])
def test_a_window_that_makes_no_sense_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HuggingFaceConfig.parse({"context_window": wrong})
    assert caught.value.field == "context_window"


def test_the_window_is_part_of_what_an_engine_is() -> None:
    """So that a change of it loads the model anew."""
    assert isinstance(HuggingFaceConfig.parse({"context_window": 64}).load_settings(), Load)
    one, two = (HuggingFaceConfig.parse({"context_window": window}).load_settings() for window in (64, 65))
    assert one != two
