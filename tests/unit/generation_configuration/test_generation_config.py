"""The fields of a generation configuration: which are honoured, are defaults, have no effect or are refused."""

import json
import re
import secrets
from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig

from abstractllm.errors import ContextLengthExceededError, ModelLoadError
from abstractllm.providers.huggingface.protocol.messages import (
    Conversation,
    Delta,
    Generate,
    Sampling,
    Turn,
)
from abstractllm.providers.huggingface.worker import sequential
from abstractllm.providers.huggingface.worker.batching.sampling_state import new_sampling_state
from abstractllm.providers.huggingface.worker.batching.start import start
from abstractllm.providers.huggingface.worker.generation_config import TREATMENTS, Treatment
from abstractllm.providers.huggingface.worker.generation_rules import read_rules
from abstractllm.providers.huggingface.worker.loading import load_model
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.output import OutputProcessor
from abstractllm.providers.huggingface.worker.request import EngineRequest
from tests.unit.configured_models import (
    ALONE,
    FILTERS,
    PROMPTS,
    REFUSED,
    RULES,
    answer_alone,
    configure,
    expected_answer,
    prepare,
    settings,
    text_of,
)


def test_each_field_of_transformers_configuration_has_a_treatment() -> None:
    names = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    assert names == set(TREATMENTS)


def test_the_page_tells_the_treatment_of_each_field(repository: Path) -> None:
    page = (repository / "docs/providers/huggingface.md").read_text("utf-8")
    table = page.partition("## The model's generation configuration")[2].partition("\n## ")[0]
    named = re.findall(r"^\| (.*?) \| (.*?) \|", table, re.MULTILINE)
    treatments = {name: treatment for names, treatment in named for name in re.findall(r"`(\w+)`", names)}
    assert {name: str(treatment) for name, treatment in TREATMENTS.items()} == {
        name: treatment.partition(":")[0] for name, treatment in treatments.items()
    }


def test_every_rule_is_tried() -> None:
    tried = {name for fields in [*RULES.values(), *FILTERS.values(), *ALONE.values(), REFUSED] for name in fields}
    by_name = {name for name, treatment in TREATMENTS.items() if treatment in (Treatment.HONOURED, "one at a time")}
    assert by_name - tried == {"eos_token_id"}
    assert {name for name, treatment in TREATMENTS.items() if treatment is Treatment.REFUSED} == set(REFUSED)


def checkpoint(tmp_path: Path, directory: Path, **fields: Any) -> Path:
    """Returns a copy of a checkpoint with further fields in its generation configuration."""
    copy = tmp_path / secrets.token_hex(4)
    copy.mkdir()
    for file in directory.iterdir():
        (copy / file.name).symlink_to(file)
    path = copy / "generation_config.json"
    content = json.loads(path.read_text()) | fields
    path.unlink()
    path.write_text(json.dumps(content))
    return copy


@pytest.mark.parametrize("name", REFUSED)
def test_a_field_that_cannot_be_honoured_is_refused_by_name(tmp_path: Path, directory: Path, name: str) -> None:
    with pytest.raises(ModelLoadError, match=f"generation_config: {name} = "):
        load_model(settings(checkpoint(tmp_path, directory, **{name: REFUSED[name]})), lambda *_, **__: None)


@pytest.mark.parametrize(
    "fields",
    [
        {"sequence_bias": [[[4000], 1.0]]},
        {"sequence_bias": [[[5], 1]]},
        {"bad_words_ids": [5]},
        {"bad_words_ids": [[4000]]},
        {"forced_bos_token_id": 4000},
        {"forced_eos_token_id": [4000]},
        {"exponential_decay_length_penalty": [3]},
        {"repetition_penalty": 0.0},
        {"encoder_repetition_penalty": -1.0},
        {"no_repeat_ngram_size": "three"},
        {"top_h": 3.0},
        {"suppress_tokens": ["a"]},
        {"watermarking_config": {"greenlist_ratio": 4.0}},
    ],
    ids=str,
)
def test_a_value_that_transformers_does_not_take_is_refused_when_the_model_loads(
    tmp_path: Path, directory: Path, fields: dict[str, Any]
) -> None:
    with pytest.raises(ModelLoadError, match="|".join(fields)):
        load_model(settings(checkpoint(tmp_path, directory, **fields)), lambda *_, **__: None)


@pytest.mark.parametrize("name", ALONE)
def test_what_needs_more_than_logits_is_answered_one_at_a_time(tmp_path: Path, directory: Path, name: str) -> None:
    loaded = load_model(settings(checkpoint(tmp_path, directory, **ALONE[name])), lambda *_, **__: None)
    engine = start(loaded, settings(directory), send=lambda _: None, end=lambda _: None, crash=lambda: None)
    assert engine is None
    assert loaded.description.slots == 1
    (field,) = ALONE[name]
    assert loaded.description.note.endswith(f"the model's generation configuration sets {field}")
    expected = expected_answer(loaded, PROMPTS[1])
    text, _ = answer_alone(loaded, PROMPTS[1], top_logprobs=1)
    assert text == text_of(loaded, expected)


def test_a_model_with_a_generate_function_of_its_own_is_asked_one_request_at_a_time(
    directory: Path,
) -> None:
    loaded = load_model(settings(directory), lambda *_, **__: None)
    loaded.model.generate = loaded.model.generate
    engine = start(loaded, settings(directory), send=lambda _: None, end=lambda _: None, crash=lambda: None)
    assert engine is None
    assert loaded.description.note.endswith("the model comes with a generate function of its own")


def test_log_probabilities_under_guidance_are_of_the_models_own_logits(loaded: LoadedModel) -> None:
    def first(**fields: Any) -> Any:
        configure(loaded, fields)
        messages: list[Any] = []
        conversation = Conversation((Turn("user", "hello"),))
        request = EngineRequest(
            Generate(1, conversation, Sampling(top_logprobs=4)),
            prompt=tuple(loaded.prompt_builder.encode(conversation)),
            max_tokens=1,
        )
        sequential.generate(loaded, request, messages.append)
        return next(message.logprobs for message in messages if isinstance(message, Delta))[0].top

    assert [(top.token_id, pytest.approx(top.logprob)) for top in first(guidance_scale=3.0)] == [
        (top.token_id, top.logprob) for top in first()
    ]


NO_EFFECT: dict[str, Any] = {
    "early_stopping": True,
    "length_penalty": 2.0,
    "use_mtp": True,
    "use_cache": False,
    "cache_implementation": "static",
    "max_cache_len": 64,
    "prompt_lookup_num_tokens": 3,
    "max_matching_ngram_size": 2,
    "assistant_early_exit": 1,
    "num_assistant_tokens": 4,
    "num_return_sequences": 3,
    "output_scores": True,
    "output_logits": True,
    "return_dict_in_generate": True,
    "prefill_chunk_size": 2,
    "low_memory": True,
    "diversity_penalty": 0.5,
    "num_beam_groups": 2,
    "bos_token_id": 7,
    "decoder_start_token_id": 7,
    "some_key_of_the_models_own": [1],
}


@pytest.mark.parametrize("name", NO_EFFECT)
def test_what_has_no_effect_has_none(loaded: LoadedModel, name: str) -> None:
    configure(loaded, {})
    expected = answer_alone(loaded, "hello", seed=3, temperature=1.0)
    config = loaded.model.generation_config
    setattr(config, name, NO_EFFECT[name])
    loaded.rules = read_rules(config, loaded.vocabulary_size, loaded.ends)
    assert not loaded.rules.active
    text, done = answer_alone(loaded, "hello", seed=3, temperature=1.0)
    assert (text, done.output_tokens) == (expected[0], expected[1].output_tokens)
    assert loaded.model.generation_config is config


def test_a_configuration_written_out_in_full_has_no_effect(loaded: LoadedModel) -> None:
    """The defaults of older versions of transformers, as some checkpoints hold them."""
    configure(loaded, {})
    expected = answer_alone(loaded, "hello")[0]
    full = {**GenerationConfig._get_default_generation_params(), "max_length": None, "top_h": None, "max_time": None}
    full |= {"penalty_alpha": 0.0, "token_healing": False, "is_assistant": False, "guidance_scale": 1.0, "min_p": None}
    full |= {"constraints": None, "force_words_ids": None, "prefix": None, "is_encoder_decoder": False}
    configure(loaded, full)
    assert not loaded.rules.active
    assert not loaded.rules.not_in_a_batch
    assert answer_alone(loaded, "hello")[0] == expected


def test_the_models_length_holds_where_the_request_names_none(loaded: LoadedModel) -> None:
    tokens = len(prepare(loaded).prompt)
    assert prepare(loaded).max_tokens == 512 - tokens
    for fields, limit in (
        ({"max_new_tokens": 7}, 7),
        ({"max_new_tokens": 7000}, 512 - tokens),
        ({"max_length": 30}, 30 - tokens),
        ({"max_length": 3000}, 512 - tokens),
        ({"max_new_tokens": 7, "max_length": 30}, 7),
    ):
        configure(loaded, fields)
        assert prepare(loaded).max_tokens == limit
        assert prepare(loaded, max_tokens=100).max_tokens == 100
    configure(loaded, {"max_length": tokens})
    with pytest.raises(ContextLengthExceededError, match=rf"max_length \({tokens}\) of the model's generation config"):
        prepare(loaded)


def test_the_models_stop_strings_hold_where_the_request_names_none(loaded: LoadedModel) -> None:
    configure(loaded, {})
    text = answer_alone(loaded, "hello")[0]
    configure(loaded, {"stop_strings": [text[3:5]]})
    request = prepare(loaded)
    assert request.message.sampling.stop == (text[3:5],)
    assert prepare(loaded, stop=("x",)).message.sampling.stop == ("x",)
    pieces: list[str] = []
    output = OutputProcessor(loaded, request, lambda delta: pieces.append(delta.text))
    for token in expected_answer(loaded, "hello", stop_strings=None):
        if output.take(token):
            break
    done = output.done()
    assert ("".join(pieces), done.finish_reason, done.stop_sequence) == (text[:3], "stop_sequence", text[3:5])
    configure(loaded, {"stop_strings": "ab"})
    assert prepare(loaded).message.sampling.stop == ("ab",)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"do_sample": True, "temperature": 2, "top_k": -1, "top_p": 1.5, "repetition_penalty": 2}, (2.0, 0, 1.0, 2.0)),
        ({"do_sample": False, "temperature": 0.0, "top_k": 50}, (0.0, 50, 1.0, 1.0)),
    ],
)
def test_numbers_of_a_careless_configuration_are_understood(
    loaded: LoadedModel, fields: dict[str, Any], expected: tuple[float, ...]
) -> None:
    configure(loaded, fields)
    state = new_sampling_state(prepare(loaded), loaded.model.generation_config, None)
    filled = state.settings
    assert (filled.temperature, filled.top_k, filled.top_p, filled.repetition_penalty) == expected
    assert answer_alone(loaded, "hello", seed=1)[1].output_tokens > 0
