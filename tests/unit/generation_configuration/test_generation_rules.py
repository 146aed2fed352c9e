"""A model's generation configuration: an answer in a batch, and one alone, is what `model.generate` answers by it."""

import itertools
import math
import re
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList

from abstractllm.errors import AbstractLLMError
from abstractllm.providers.huggingface.protocol.messages import (
    Conversation,
    Delta,
    Format,
    Generate,
    Sampling,
    Turn,
)
from abstractllm.providers.huggingface.worker import sequential
from abstractllm.providers.huggingface.worker.batching.logits_rules import LogitsRules, RequestRules
from abstractllm.providers.huggingface.worker.batching.sampler import sample
from abstractllm.providers.huggingface.worker.batching.sampling_state import SamplingState, new_sampling_state
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.request import EngineRequest
from abstractllm.providers.huggingface.worker.sampling_settings import SamplingSettings
from tests.unit.configured_models import (
    ALONE,
    END,
    FILTERS,
    NEW_TOKENS,
    PROMPTS,
    RULES,
    VOCABULARY,
    answer_alone,
    configure,
    expected_answer,
    text_of,
)
from tests.unit.test_batching import Harness
from tests.unit.test_sampler import chi_square


@pytest.fixture(scope="module")
def plain_texts() -> dict[str, list[str]]:
    """The answers without rules, by the bias beside which the rules are tried."""
    return {}


@pytest.mark.parametrize("name", [*RULES, "all together"])
def test_a_rule_holds_alone_and_in_a_batch_as_in_generate(
    loaded: LoadedModel, name: str, plain_texts: dict[str, list[str]]
) -> None:
    fields = RULES[name] if name in RULES else together("min_length", "suppressed tokens", "a bias of a sequence")
    is_bias = name.startswith("a bias")
    bias = {"sequence_bias": fields["sequence_bias"]} if "sequence_bias" in fields and not is_bias else {}
    if str(bias) not in plain_texts:
        configure(loaded, bias)
        plain_texts[str(bias)] = [text_of(loaded, expected_answer(loaded, prompt)) for prompt in PROMPTS]
    plain = plain_texts[str(bias)]
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
    assert state.logprobs[1][0] == 7
    assert not math.isnan(state.logprobs[0])


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
