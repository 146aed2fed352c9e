"""Answers held to a format, by the batch loop and one at a time: valid, and nobody else's text changes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from abstractllm.providers.huggingface.protocol.messages import (
    Conversation,
    Delta,
    Done,
    Format,
    Generate,
    Load,
    Sampling,
    Turn,
)
from abstractllm.providers.huggingface.worker.batching.scheduling import BatchRequest
from abstractllm.providers.huggingface.worker.loading import load_model
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.request import EngineRequest
from abstractllm.providers.huggingface.worker.sequential import generate
from tests.unit.test_batching import MIXED, Harness
from tests.unit.tiny_models import build
from tests.waiting import wait_until

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 4},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b", None]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
SCHEMA = Format("json_schema", json.dumps(PERSON))
SAMPLED = [settings | {"seed": 100 + index} for index, settings in enumerate(MIXED) if settings.get("temperature")]


def is_person(text: str) -> bool:
    import jsonschema

    jsonschema.validate(json.loads(text), PERSON)
    return True


class HeldHarness(Harness):
    """A batch loop whose requests may have a format."""

    def new_request(
        self, prompt: str, format: Format | None = None, max_tokens: int = 100, **sampling: Any
    ) -> EngineRequest:
        request = new_request(self.loaded, prompt, format, max_tokens, id=1000 + self._next, **sampling)
        self._next += 1
        return request

    def held(self, prompt: str, format: Format | None = None, max_tokens: int = 100, **sampling: Any) -> EngineRequest:
        request = self.new_request(prompt, format, max_tokens, **sampling)
        self.engine.submit(request)
        return request

    def one(self, *arguments: Any, **sampling: Any) -> tuple[str, str, int]:
        return self.answer(self.held(*arguments, **sampling))[0]


def new_request(
    loaded: LoadedModel, prompt: str, format: Format | None, max_tokens: int = 100, id: int = 1, **sampling: Any
) -> EngineRequest:
    conversation = Conversation((Turn("user", prompt),))
    message = Generate(id, conversation, Sampling(max_tokens=max_tokens, **sampling), format=format)
    request = EngineRequest(message, prompt=tuple(loaded.prompt_builder.encode(conversation)), max_tokens=max_tokens)
    if format is not None:
        request.matcher = loaded.grammars.compile(format)
    return request


def alone(loaded: LoadedModel, format: Format, max_tokens: int = 100, **sampling: Any) -> tuple[str, Done]:
    """The answer through `model.generate`."""
    pieces: list[str] = []

    def send(message: object) -> None:
        if isinstance(message, Delta):
            pieces.append(message.text)

    done = generate(loaded, new_request(loaded, "hello", format, max_tokens, **sampling), send)
    return "".join(pieces), done


def load(directory: Path) -> LoadedModel:
    return load_model(
        Load(model=str(directory), is_directory=True, cache_dir=str(directory), threads=1), lambda *_, **__: None
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # More logits than tokens, as in models whose embeddings are padded.
    path = tmp_path_factory.mktemp("models") / "llama"
    return build(path, "llama", max_position_embeddings=512, vocab_size=450)


@pytest.fixture(scope="module")
def loaded(directory: Path) -> LoadedModel:
    return load(directory)


@pytest.fixture(scope="module")
def lone(directory: Path) -> LoadedModel:
    """The same model, with its own attention: for answers one at a time."""
    return load(directory)


@pytest.fixture
def harness(loaded: LoadedModel) -> Iterator[HeldHarness]:
    attention = loaded.model.config._attn_implementation
    harness = HeldHarness(loaded)
    yield harness
    harness.engine.stop()
    loaded.model.set_attn_implementation(attention)


def test_answers_with_a_schema_are_valid_with_every_sampling_parameter(harness: HeldHarness) -> None:
    requests = [
        harness.held(f"person {index}", SCHEMA, **{**settings, "seed": index, "stop": ()})
        for index in range(40)
        for settings in [MIXED[index % len(MIXED)]]
    ]
    answers = harness.answer(*requests)
    assert all(is_person(text) for text, reason, _ in answers if reason == "stop")
    assert sum(reason == "stop" for _, reason, _ in answers) > 30
    assert {reason for _, reason, _ in answers} <= {"stop", "max_tokens"}


def test_held_requests_beside_free_ones_are_valid_and_change_nobody(harness: HeldHarness) -> None:
    wishes = [(f"number {index}", MIXED[index % len(MIXED)]) for index in range(32)]
    free_alone = [harness.one(prompt, None, 24, **sampling) for prompt, sampling in wishes]
    held_alone = [
        harness.one(prompt, SCHEMA, **SAMPLED[index % len(SAMPLED)]) for index, (prompt, _) in enumerate(wishes)
    ]
    held, free = [], []
    for index, (prompt, sampling) in enumerate(wishes):
        held.append(harness.held(prompt, SCHEMA, **SAMPLED[index % len(SAMPLED)]))
        free.append(harness.held(prompt, None, 24, **sampling))
    assert harness.answer(*free) == free_alone
    assert harness.answer(*held) == held_alone
    assert all(is_person(text) for text, reason, _ in held_alone if reason == "stop")
    assert sum(reason == "stop" for _, reason, _ in held_alone) > 20


def test_evictions_change_no_held_answer(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    evicted: list[str] = []

    def evict(request: BatchRequest) -> BatchRequest:
        evicted.append(request.request_id)
        return real(request)

    real = BatchRequest.create_equivalent_initial_request
    monkeypatch.setattr(BatchRequest, "create_equivalent_initial_request", evict)
    attention = loaded.model.config._attn_implementation
    long = Format("regex", r"([a-z]{1,5} [0-9]{2}, ){20}end")
    wishes = [(f"tell {index} me", SAMPLED[index % len(SAMPLED)] | {"stop": ()}) for index in range(8)]
    roomy = HeldHarness(loaded)
    wanted = roomy.answer(*[roomy.held(prompt, long, 400, **sampling) for prompt, sampling in wishes])
    roomy.engine.stop()
    page = 2 * 16 * loaded.model.config.num_key_value_heads * loaded.model.config.head_dim * 4
    narrow = HeldHarness(loaded, max_batch_size=8, cache_bytes=page * loaded.model.config.num_hidden_layers * 36)
    try:
        evicted_answers = narrow.answer(*[narrow.held(prompt, long, 400, **sampling) for prompt, sampling in wishes])
        assert evicted_answers == wanted
        assert len(evicted) > 3
        assert all(re.fullmatch(long.text, text) for text, reason, _ in evicted_answers)
        wait_until(narrow.is_empty)
    finally:
        narrow.engine.stop()
        loaded.model.set_attn_implementation(attention)


@pytest.mark.parametrize(
    ("format", "pattern"),
    [
        (Format("regex", r"[A-F][0-9]{3}(-[a-z]+)?!"), r"[A-F][0-9]{3}(-[a-z]+)?!"),
        (Format("regex", " a/b\n[é🙂]{2}"), " a/b\n[é🙂]{2}"),
        (Format("grammar", 'start: "<" (WORD ",")+ ">"\nWORD: /[a-z]{1,4}/'), "<([a-z]{1,4},)+>"),
        (Format("grammar", 'root ::= "yes" | ("no" " "? [0-9]+ ".")'), "yes|no ?[0-9]+[.]"),
    ],
    ids=["regex", "regex with a leading space", "lark", "gbnf"],
)
def test_answers_match_their_expression_or_grammar(
    harness: HeldHarness, lone: LoadedModel, format: Format, pattern: str
) -> None:
    answers = harness.answer(*[harness.held("hello", format, 60, temperature=1.5, seed=seed) for seed in range(20)])
    finished = [text for text, reason, _ in answers if reason == "stop"]
    assert len(finished) > 1
    assert all(re.fullmatch(pattern, text) for text in finished)
    text, done = alone(lone, format, temperature=0.0)
    assert (text, done.finish_reason, done.output_tokens) == harness.one("hello", format, temperature=0.0)


def test_an_answer_ends_with_the_token_that_completes_it(harness: HeldHarness, lone: LoadedModel) -> None:
    for format, wanted in [(Format("regex", "[0-9]{3}"), 3), (Format("json_schema", '{"enum": [7]}'), 1)]:
        text, reason, tokens = harness.one("hello", format, max_tokens=wanted, temperature=0.0)
        assert (reason, tokens, len(text)) == ("stop", wanted, wanted)
        assert alone(lone, format, max_tokens=wanted, temperature=0.0)[1].finish_reason == "stop"
    # What may go on ends with an end token, which is one more.
    text, reason, tokens = harness.one("hello", Format("regex", "a{0,60}"), temperature=5.0, seed=3)
    assert (reason, tokens) == ("stop", len(text) + 1)


def test_either_end_token_may_end_an_answer_and_no_other_special_one(loaded: LoadedModel) -> None:
    assert len(loaded.ends) == 2
    matcher = loaded.grammars.compile(Format("regex", "(?s:.)*"))
    allowed = set(matcher.allowed_tokens())
    assert loaded.ends <= allowed
    texts = {id for id in range(loaded.vocabulary_size) if loaded.token_decoder.is_text(id)}
    assert allowed <= texts | loaded.ends
    assert loaded.vocabulary_size == 450 > max(texts) + 1


def test_max_tokens_and_stop_sequences_end_a_held_answer_too(harness: HeldHarness) -> None:
    text, reason, tokens = harness.one("hello", SCHEMA, max_tokens=3, temperature=0.0)
    assert (reason, tokens) == ("max_tokens", 3)
    assert text.startswith("{")
    text, reason, _ = harness.one("hello", SCHEMA, temperature=0.0, stop=('"age"',))
    assert reason == "stop_sequence"
    assert text.startswith('{"name"')
    assert '"age"' not in text


def test_no_bias_allows_what_the_format_forbids(harness: HeldHarness, loaded: LoadedModel) -> None:
    text = "abc"
    allowed = loaded.grammars.compile(Format("regex", "[abc]{6}")).allowed_tokens()
    other = next(id for id in range(loaded.vocabulary_size) if loaded.token_decoder.is_text(id) and id not in allowed)
    for settings in (
        {"temperature": 0.0},
        {"temperature": 1.0, "seed": 1},
        {"top_k": 300},
        {"top_p": 0.99},
        {"min_p": 0.5},
    ):
        bias = dict.fromkeys(allowed, -100.0) | {other: 100.0, 449: 100.0, 2: 100.0}
        answer, reason, _ = harness.one("hello", Format("regex", "[abc]{6}"), logit_bias=bias, **settings)
        assert reason == "stop"
        assert len(answer) == 6
        assert set(answer) <= set(text)


def test_log_probabilities_are_those_of_the_raw_logits(harness: HeldHarness) -> None:
    request = harness.held("hello", Format("regex", "[0-9]{2}"), temperature=0.0, top_logprobs=2)
    sent: list[Delta] = []
    real, harness.engine._send = harness.engine._send, lambda batch: (sent.extend(batch.messages), real(batch))
    harness.answer(request)
    request = harness.held("hello", Format("regex", "[0-9]{2}"), temperature=0.0, top_logprobs=2)
    harness.answer(request)
    logprobs = [logprob for message in sent if isinstance(message, Delta) for logprob in message.logprobs]
    assert len(logprobs) >= 2
    # The likeliest tokens of a random model are no digits, and the sampled ones are less likely.
    assert any(not token.token_bytes.isdigit() for logprob in logprobs for token in logprob.top)
    assert all(logprob.token_bytes.isdigit() and logprob.logprob <= logprob.top[0].logprob for logprob in logprobs)


def test_whatever_is_streamed_joins_to_the_whole_answer(harness: HeldHarness) -> None:
    for seed in range(8):
        request = harness.new_request("hello", SCHEMA, temperature=1.0, seed=seed)
        whole = new_request(harness.loaded, "hello", SCHEMA, id=5000 + seed, temperature=1.0, seed=seed)
        whole.message = type(whole.message)(
            whole.message.id, whole.message.conversation, whole.message.sampling, whole=True, format=SCHEMA
        )
        harness.engine.submit(request)
        harness.engine.submit(whole)
        pieces, once = harness.answer(request, whole)
        assert pieces == once


def test_a_format_that_turns_out_too_complex_fails_alone(harness: HeldHarness) -> None:
    wanted = harness.one("hello", None, 40, temperature=0.0)
    # Fails some tokens after its beginning: 3,000 optional properties are too many to keep track of.
    properties = {f"p{index}": {"type": "integer"} for index in range(3000)}
    late = {
        "type": "object",
        "properties": {"first": {"enum": ["some words before"]}} | properties,
        "required": ["first"],
    }
    bad = harness.held("hello", Format("json_schema", json.dumps(late)), temperature=0.0)
    good = harness.held("hello", None, 40, temperature=0.0)
    held = harness.held("hello", SCHEMA, temperature=0.0)
    assert harness.answer(good) == [wanted]
    harness.wait_until(lambda: bad.message.id in harness.failed)
    assert harness.failed[bad.message.id].reason == "INVALID_REQUEST"
    assert harness.failed[bad.message.id].field == "response_format.json_schema.schema_json"
    assert "2000" in str(harness.failed[bad.message.id].limit)
    assert harness.answer(held)[0][1] == "stop"
    wait_until(harness.is_empty)


@pytest.mark.parametrize("architecture", ["gemma", "gpt2"])
def test_other_tokenizers_and_architectures_hold_too(architecture: str, tmp_path: Path) -> None:
    loaded = load(build(tmp_path / architecture, architecture, max_position_embeddings=256))
    for format, pattern in [(Format("regex", " [a-z]{3}é[0-9]"), " [a-z]{3}é[0-9]"), (Format("json_object"), None)]:
        for seed in range(5):
            text, done = alone(loaded, format, temperature=1.0, seed=seed)
            if done.finish_reason == "stop":
                assert re.fullmatch(pattern, text) if pattern else isinstance(json.loads(text), dict)
    assert done.output_tokens > 0
