"""A model's generation configuration: an answer in a batch, and one alone, is what `model.generate` answers by it."""

import itertools
import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList

from abstractllm.errors import AbstractLLMError, ContextLengthExceededError, ModelLoadError
from abstractllm.providers.huggingface.protocol.messages import (
    Conversation,
    Delta,
    Format,
    Generate,
    Load,
    Sampling,
    Turn,
)
from abstractllm.providers.huggingface.worker import sequential
from abstractllm.providers.huggingface.worker.batching.logits_rules import LogitsRules, RequestRules
from abstractllm.providers.huggingface.worker.batching.sampler import sample
from abstractllm.providers.huggingface.worker.batching.sampling_state import SamplingState, new_sampling_state
from abstractllm.providers.huggingface.worker.batching.start import start
from abstractllm.providers.huggingface.worker.generation_config import TREATMENTS, Treatment
from abstractllm.providers.huggingface.worker.generation_rules import read_rules
from abstractllm.providers.huggingface.worker.loading import load_model
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.output import OutputProcessor
from abstractllm.providers.huggingface.worker.preparation import tokenize
from abstractllm.providers.huggingface.worker.request import EngineRequest
from abstractllm.providers.huggingface.worker.sampling_settings import SamplingSettings
from tests.unit.test_batching import Harness
from tests.unit.test_sampler import chi_square
from tests.unit.tiny_models import build

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


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "llama", "llama", max_position_embeddings=512, seed=2)


@pytest.fixture(scope="module")
def model(directory: Path) -> LoadedModel:
    return load_model(settings(directory), lambda *_, **__: None)


@pytest.fixture
def loaded(model: LoadedModel) -> Iterator[LoadedModel]:
    """The model, whose generation configuration may be changed."""
    config, rules = model.model.generation_config, model.rules
    yield model
    model.model.generation_config, model.rules = config, rules


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


def test_each_field_of_transformers_configuration_has_a_treatment() -> None:
    names = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    assert names == set(TREATMENTS)


def test_the_page_tells_the_treatment_of_each_field() -> None:
    page = Path("docs/providers/huggingface.md").read_text()
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


@pytest.mark.parametrize("name", [*RULES, "all together"])
def test_a_rule_holds_alone_and_in_a_batch_as_in_generate(loaded: LoadedModel, name: str) -> None:
    fields = RULES[name] if name in RULES else together("min_length", "suppressed tokens", "a bias of a sequence")
    is_bias = name.startswith("a bias")
    configure(loaded, {"sequence_bias": fields["sequence_bias"]} if "sequence_bias" in fields and not is_bias else {})
    plain = [text_of(loaded, expected_answer(loaded, prompt)) for prompt in PROMPTS]
    configure(loaded, fields)
    expected = [expected_answer(loaded, prompt) for prompt in PROMPTS]
    texts = [text_of(loaded, tokens) for tokens in expected]
    if name not in ("no invalid values", "normal logits", "no suppressed tokens", "a forced first token"):
        assert texts != plain or name in ("a forced last token", "a slow decay")
    alone = [answer_alone(loaded, prompt) for prompt in PROMPTS]
    assert [(text, done.output_tokens) for text, done in alone] == [
        (text, len(tokens)) for text, tokens in zip(texts, expected, strict=True)
    ]
    harness = Harness(loaded, max_batch_size=16)
    try:
        requests = [harness.submit(prompt, max_tokens=NEW_TOKENS) for prompt in PROMPTS * 2]
        answers = harness.answer(*requests)
    finally:
        harness.engine.stop()
    assert [(text, count) for text, _, count in answers] == 2 * [
        (text, len(tokens)) for text, tokens in zip(texts, expected, strict=True)
    ]
    assert [reason for _, reason, _ in answers] == 2 * [done.finish_reason for _, done in alone]
    if name == "a forced last token":
        assert {(reason, count) for _, reason, count in answers} == {("max_tokens", NEW_TOKENS)}


def together(*names: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"no_repeat_ngram_size": 3, "encoder_repetition_penalty": 1.1, "repetition_penalty": 1.2}
    fields |= {"min_length": 40, "bad_words_ids": [[9], [60, 61]], "exponential_decay_length_penalty": [5, 1.1]}
    fields |= {"begin_suppress_tokens": [40, 41, 42], "remove_invalid_values": True, "forced_eos_token_id": END}
    return fields | {"suppress_tokens": list(range(90, 200, 2)), "sequence_bias": [[[20], 3.0], [[20, 21], 9.0]]}


def test_rules_hold_beside_what_a_caller_asks(loaded: LoadedModel) -> None:
    configure(loaded, together())
    wanted: list[dict[str, Any]] = [
        {"repetition_penalty": 1.7},
        {"logit_bias": {20: 4.0, 30: 9.0}},
        {"presence_penalty": 1.0, "frequency_penalty": 0.5},
        {"temperature": 0.8, "top_k": 12, "seed": 4},
        {"top_logprobs": 3},
    ]
    assert answer_alone(loaded, PROMPTS[1], repetition_penalty=1.7)[0] == text_of(
        loaded, expected_answer(loaded, PROMPTS[1], repetition_penalty=1.7)
    )
    greedy = [sampling for sampling in wanted if "temperature" not in sampling]
    alone = [answer_alone(loaded, prompt, **sampling)[0] for prompt in PROMPTS for sampling in greedy]
    harness = Harness(loaded, max_batch_size=16)
    try:
        wishes = [(prompt, sampling) for prompt in PROMPTS for sampling in wanted]
        requests = [harness.submit(prompt, max_tokens=NEW_TOKENS, **sampling) for prompt, sampling in wishes]
        answers = harness.answer(*requests)
        again = [harness.answer(harness.submit(prompt, max_tokens=NEW_TOKENS, **wish))[0] for prompt, wish in wishes]
    finally:
        harness.engine.stop()
    assert answers == again
    assert [text for (text, _, _), (_, wish) in zip(answers, wishes, strict=True) if wish in greedy] == alone


@pytest.mark.parametrize("name", [*RULES, *FILTERS, *ALONE])
def test_sampled_answers_alone_are_those_of_generate(loaded: LoadedModel, name: str) -> None:
    configure(loaded, {"do_sample": True, "top_k": 0, **(RULES | FILTERS | ALONE)[name]})
    torch.manual_seed(5)
    expected = expected_answer(loaded, PROMPTS[1])
    text, done = answer_alone(loaded, PROMPTS[1], seed=5)
    assert (text, done.output_tokens) == (text_of(loaded, expected), len(expected))


def transformers_scores(
    loaded: LoadedModel, prompt: list[int], answer: list[int], logits: torch.Tensor, max_tokens: int
) -> torch.Tensor:
    """Returns what transformers' own processors make of logits, in the order of `generate`."""
    config = GenerationConfig.from_dict(loaded.model.generation_config.to_dict())
    config.update(max_length=len(prompt) + max_tokens)
    if config.min_new_tokens is not None:
        config.update(min_length=config.min_new_tokens + len(prompt))
    config._eos_token_tensor = torch.tensor(sorted(loaded.ends))
    processors = loaded.model._get_logits_processor(
        generation_config=config,
        input_ids_seq_length=len(prompt),
        encoder_input_ids=torch.tensor([prompt]),
        logits_processor=LogitsProcessorList(),
        device="cpu",
        model_kwargs={},
    )
    return processors(torch.tensor([prompt + answer]), logits.clone().unsqueeze(0))[0]


@pytest.mark.parametrize("name", [*RULES, "all together"])
def test_logits_are_changed_as_by_transformers_at_any_place(loaded: LoadedModel, name: str) -> None:
    """Requests of many lengths in one step, with few tokens, so that sequences come again."""
    fields = RULES[name] if name in RULES else together()
    configure(loaded, fields | {"repetition_penalty": 1.0})
    rules = LogitsRules(loaded.rules, VOCABULARY, torch.device("cpu"))
    generator = torch.Generator().manual_seed(7)
    requests, expected, rows = [], [], []
    for prompt_tokens, answer_tokens in itertools.product((1, 2, 5, 40), (0, 1, 2, 5, 8, 9, 30)):
        tokens = torch.randint(19, 24, (prompt_tokens + answer_tokens,), generator=generator).tolist()
        prompt, answer = tokens[:prompt_tokens], tokens[prompt_tokens:]
        logits = torch.randn(VOCABULARY, generator=generator)
        logits[50:53] = -torch.inf
        if name == "no invalid values":
            logits[300], logits[301] = torch.inf, torch.nan
        request = RequestRules(rules, prompt, 10, has_format=False)
        for token in answer:
            request.record(token)
        requests.append(request)
        rows.append(logits)
        expected.append(transformers_scores(loaded, prompt, answer, logits, 10))
    changed = torch.stack(rows)
    rules.before_penalties(changed, requests)
    rules.after_penalties(changed, requests)
    wanted = torch.stack(expected).log_softmax(-1) if name == "normal logits" else torch.stack(expected)
    if name == "normal logits":
        changed = changed.log_softmax(-1)
    if "decay" in name or name == "all together":
        # An end that is certain has a large number here, and infinity there.
        changed, wanted = changed.clamp(max=1e20), wanted.clamp(max=1e20)
    torch.testing.assert_close(changed, wanted, equal_nan=True)


@pytest.mark.parametrize("name", FILTERS)
def test_sampled_tokens_of_a_batch_follow_the_distribution_of_transformers(loaded: LoadedModel, name: str) -> None:
    configure(loaded, {"do_sample": True, "top_k": 0, **FILTERS[name]})
    rules = LogitsRules(loaded.rules, VOCABULARY, torch.device("cpu"))
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(3)) * 2
    probabilities = transformers_scores(loaded, [5, 6], [], logits, 10).softmax(-1)
    counts = torch.zeros(VOCABULARY, dtype=torch.long)
    for begin in range(0, 8000, 4000):
        message = Generate(1, Conversation(()), Sampling())
        states = []
        for seed in range(begin, begin + 4000):
            request = EngineRequest(message, prompt=(5, 6), max_tokens=9)
            states.append(new_sampling_state(request, loaded.model.generation_config, rules))
            states[-1].seed = seed
        tokens = sample(logits.repeat(4000, 1), states)
        counts += torch.bincount(torch.tensor(tokens), minlength=VOCABULARY)
    assert not counts[probabilities == 0].any()
    assert chi_square(counts, probabilities) < 6


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_filter_tells_logits_that_are_not_finite(loaded: LoadedModel, name: str, value: float) -> None:
    configure(loaded, {"do_sample": True, "top_k": 0, **FILTERS[name]})
    rules = LogitsRules(loaded.rules, VOCABULARY, torch.device("cpu"))

    def new_states() -> list[SamplingState]:
        request = EngineRequest(Generate(1, Conversation(()), Sampling(seed=4)), prompt=(5, 6), max_tokens=9)
        return [new_sampling_state(request, loaded.model.generation_config, rules) for _ in range(3)]

    logits = torch.randn((3, VOCABULARY), generator=torch.Generator().manual_seed(3))
    expected = sample(logits.clone(), new_states())
    logits[1] = value
    states = new_states()
    tokens = sample(logits, states)
    assert (tokens[0], tokens[2]) == (expected[0], expected[2])
    assert (states[0].error, states[2].error) == (None, None)
    assert "the model's logits are not finite" in str(states[1].error)


def test_greedy_requests_and_those_without_rules_are_left_alone_by_filters(loaded: LoadedModel) -> None:
    configure(loaded, {"do_sample": True, "top_k": 0, "typical_p": 0.2})
    rules = LogitsRules(loaded.rules, VOCABULARY, torch.device("cpu"))
    logits = torch.randn((2, VOCABULARY), generator=torch.Generator().manual_seed(3))
    request = EngineRequest(Generate(1, Conversation(()), Sampling(temperature=0.0)), prompt=(5,), max_tokens=9)
    states = [
        new_sampling_state(request, loaded.model.generation_config, rules),
        SamplingState(SamplingSettings(temperature=0.0), 1),
    ]
    assert sample(logits.clone(), states) == logits.argmax(dim=-1).tolist()


def test_a_format_is_not_broken_by_a_forced_token(loaded: LoadedModel) -> None:
    configure(loaded, {"forced_eos_token_id": 44, "forced_bos_token_id": 45})
    conversation, format = Conversation((Turn("user", "hello"),)), Format("regex", "[0-9]{3}")

    def new_request(id: int) -> EngineRequest:
        return EngineRequest(
            Generate(id, conversation, Sampling(), format=format),
            prompt=tuple(loaded.prompt_builder.encode(conversation)),
            max_tokens=2,
            matcher=loaded.grammars.compile(format),
        )

    deltas: list[Any] = []
    sequential.generate(loaded, new_request(1), deltas.append)
    text = "".join(delta.text for delta in deltas if isinstance(delta, Delta))
    assert re.fullmatch("[0-9]{1,3}", text)
    harness = Harness(loaded, max_batch_size=4)
    try:
        harness.engine.submit(new_request(1))
        harness.wait_until(lambda: 1 in harness.done)
        assert harness.texts[1] == text
    finally:
        harness.engine.stop()


def test_a_format_that_the_rules_exclude_is_refused_by_its_field(loaded: LoadedModel) -> None:
    letters = [
        token for token in range(loaded.vocabulary_size) if loaded.token_decoder.decode([token]).strip("zy") == ""
    ]
    configure(loaded, {"suppress_tokens": letters})
    conversation, format = Conversation((Turn("user", "hello"),)), Format("regex", "[yz]+")

    def new_request() -> EngineRequest:
        return EngineRequest(
            Generate(1, conversation, Sampling(), format=format),
            prompt=tuple(loaded.prompt_builder.encode(conversation)),
            max_tokens=5,
            matcher=loaded.grammars.compile(format),
        )

    with pytest.raises(AbstractLLMError) as caught:
        sequential.generate(loaded, new_request(), lambda _: None)
    assert (caught.value.reason, caught.value.field) == ("INVALID_REQUEST", new_request().matcher.field)  # type: ignore[union-attr]
    assert "suppress_tokens" in caught.value.message
    harness = Harness(loaded, max_batch_size=4)
    try:
        harness.engine.submit(new_request())
        harness.wait_until(lambda: 1 in harness.failed)
        assert harness.failed[1].message == caught.value.message  # type: ignore[union-attr]
    finally:
        harness.engine.stop()


def test_rules_that_exclude_every_token_are_the_models_fault(loaded: LoadedModel) -> None:
    configure(loaded, {"suppress_tokens": list(range(loaded.vocabulary_size))})
    with pytest.raises(
        AbstractLLMError, match=r"generation configuration \(suppress_tokens\) excludes every next token"
    ):
        answer_alone(loaded, "hello")
    harness = Harness(loaded, max_batch_size=4)
    try:
        harness.submit("hello")
        harness.wait_until(lambda: 1 in harness.failed)
        assert "suppress_tokens" in harness.failed[1].message  # type: ignore[union-attr]
    finally:
        harness.engine.stop()


def test_invalid_values_are_removed_where_the_model_says_so(loaded: LoadedModel) -> None:
    configure(loaded, {"remove_invalid_values": True})
    rules = LogitsRules(loaded.rules, VOCABULARY, torch.device("cpu"))
    request = EngineRequest(
        Generate(1, Conversation(()), Sampling(top_logprobs=2, temperature=0.0)), prompt=(5, 6), max_tokens=9
    )
    state = new_sampling_state(request, loaded.model.generation_config, rules)
    logits = torch.full((1, VOCABULARY), -1.0)
    logits[0, 7], logits[0, 8] = torch.nan, -torch.inf
    assert sample(logits, [state]) == [7]
    assert state.error is None
    assert state.logprobs is not None
    assert (state.logprobs[1][0], state.logprobs[0] == state.logprobs[0]) == (7, True)


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
    with pytest.raises(ModelLoadError, match=r"generation_config|watermarking_config"):
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


def test_rules_hold_for_a_request_that_gave_way(loaded: LoadedModel) -> None:
    configure(loaded, together())
    expected = [text_of(loaded, expected_answer(loaded, prompt)) for prompt in PROMPTS]
    harness = Harness(loaded, max_batch_size=16)

    def refuse(module: Any, arguments: Any, options: dict[str, Any]) -> None:
        if len(options["cu_seq_lens_q"]) > 2 and int(options["position_ids"].max()) > 25:
            raise MemoryError

    hook = loaded.model.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        answers = harness.answer(*[harness.submit(prompt, max_tokens=NEW_TOKENS) for prompt in PROMPTS])
        assert harness.engine.counters.evictions
    finally:
        hook.remove()
        harness.engine.stop()
    assert [text for text, _, _ in answers] == expected


def prepare(loaded: LoadedModel, **sampling: Any) -> EngineRequest:
    request = EngineRequest(Generate(1, Conversation((Turn("user", "hello"),)), Sampling(**sampling)))
    tokenize(loaded, request)
    return request


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
