"""Compiling formats: the refusals, with field and limit, and that nothing hostile gets through."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from abstractllm.errors import InvalidRequestError, OverloadedError, UnsupportedFeatureError
from abstractllm.providers.huggingface.protocol.messages import Format
from abstractllm.providers.huggingface.worker.structured.grammars import Grammars
from abstractllm.providers.huggingface.worker.structured.sandbox import Sandbox, Trial
from abstractllm.providers.huggingface.worker.token_decoder import TokenDecoder
from tests.unit.tiny_models import build

SCHEMA, REGEX, GRAMMAR = (
    "response_format.json_schema.schema_json",
    "response_format.regex",
    "response_format.grammar",
)
HANG = 60
OBJECT, ARRAY, CLOSED = {"type": "object"}, {"type": "array"}, {"additionalProperties": False}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    directory: Path = build(tmp_path_factory.mktemp("models") / "llama", "llama")
    return AutoTokenizer.from_pretrained(directory)


@pytest.fixture(scope="module")
def grammars(tokenizer: Any) -> Grammars:
    return Grammars(tokenizer, TokenDecoder(tokenizer), len(tokenizer), [1, 3], markers=[2])


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def optional(count: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{index}": {"type": "null"} for index in range(count)}}


def schema(schema: dict[str, Any]) -> Format:
    return Format("json_schema", json.dumps(schema))


def refusal(grammars: Grammars, format: Format) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as raised:
        grammars.compile(format)
    return raised.value


@pytest.mark.parametrize(
    ("fits", "beyond", "limit"),
    [
        (schema(nested(61)), schema(nested(62)), "128 levels of nesting"),
        (schema(optional(400)), schema(optional(600)), "2000 alternatives at a place"),
        (
            schema({"type": "integer", "multipleOf": 997}),
            schema({"type": "integer", "multipleOf": 999_983}),
            "3 seconds",
        ),
        (Format("regex", "a{1000}"), Format("regex", "a{1000000000}"), "lexer"),
        (
            Format("grammar", 'start: "ab"{100}'),
            Format("grammar", 'start: x{1000}\nx: ("a" "b"){1000}'),
            "50000 parser",
        ),
    ],
    ids=["nesting", "optional properties", "multipleOf", "repetition", "items"],
)
def test_a_format_beyond_a_limit_is_refused_with_it(
    grammars: Grammars, fits: Format, beyond: Format, limit: str
) -> None:
    assert grammars.compile(fits).allowed_tokens()
    error = refusal(grammars, beyond)
    assert error.field in (SCHEMA, REGEX, GRAMMAR)
    assert limit in str(error.limit)
    assert "too complex" in error.message


def test_what_would_compile_for_ever_is_ended_and_the_next_one_compiled(grammars: Grammars) -> None:
    began = time.monotonic()
    endless = "start: X\nX: " + " & ".join(f"/(.*a.{{{count}}}.*)/" for count in range(1, 40))
    assert refusal(grammars, Format("grammar", endless)).limit == "3 seconds of processor time"
    assert grammars.compile(Format("json_object")).allowed_tokens()
    assert time.monotonic() - began < HANG


def test_rules_that_overflow_the_stack_end_no_engine(grammars: Grammars) -> None:
    chain = "start: a\na:" + "".join(f"r{index:x}\nr{index:x}:" for index in range(60_000)) + '"z"'
    assert refusal(grammars, Format("grammar", chain)).field == GRAMMAR
    assert grammars.compile(Format("regex", "still here")).allowed_tokens()


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("not", {}),
        ("if", {}),
        ("uniqueItems", True),
        ("contains", {}),
        ("dependentRequired", {"a": ["b"]}),
        ("dependentSchemas", {"a": {"required": ["b"]}}),
        ("dependencies", {"a": ["b"]}),
        ("propertyNames", {"maxLength": 3}),
        ("unevaluatedProperties", False),
        ("unevaluatedItems", False),
        ("$dynamicRef", "#node"),
    ],
)
def test_a_keyword_that_is_not_supported_is_named_with_its_place(grammars: Grammars, keyword: str, value: Any) -> None:
    # What a schema says of its own compilation does not make it lenient.
    part = {keyword: value, "then": {"maximum": 3}} if keyword == "if" else {keyword: value}
    lenient = {"x-guidance": {"lenient": True}, "properties": {"a/b": part | {"x-guidance": {"lenient": True}}}}
    for definition, place in ((part, f"#/{keyword}"), (lenient, f"#/properties/a~1b/{keyword}")):
        error = refusal(grammars, schema(definition))
        assert f"{SCHEMA}: {place}: " in error.message
        assert f"the keyword {keyword}" in error.message
        assert (error.field, error.limit) == (SCHEMA, None)


def test_white_space_is_bounded_whatever_the_schema_says(grammars: Grammars) -> None:
    matcher = grammars.compile(schema({"type": "object", "x-guidance": {"whitespace_flexible": True}}))
    for token in grammars.tokenizer.tokenize_str('{"a": 1'):
        matcher.accept(token)
    text = {grammars.tokenizer.decode_str([token]) for token in matcher.allowed_tokens()}
    assert not any(piece.isspace() for piece in text)


def test_an_expression_with_a_slash_or_a_line_break_stays_one(grammars: Grammars) -> None:
    for pattern in ("a/b", "a\\/b", 'a\n"b" | /c/', "(?i)AB", "[/]"):
        assert grammars.compile(Format("regex", pattern)).allowed_tokens()
    assert refusal(grammars, Format("regex", "a(?=b)")).field == REGEX


def test_special_tokens_are_refused_to_callers_and_given_to_tool_calls(grammars: Grammars) -> None:
    for grammar in ("start: <|im_start|>", "start: <[2]>", "start: <[0]>"):
        assert "no further token" in refusal(grammars, Format("grammar", grammar)).message
    assert grammars.compile(Format("grammar", "start: <|im_start|>"), "tools").allowed_tokens() == [2]
    with pytest.raises(InvalidRequestError, match="tools"):
        grammars.compile(Format("grammar", "start: <[0]>"), "tools")


def test_a_compiled_format_is_kept_and_a_matcher_is_not_shared(grammars: Grammars, monkeypatch: Any) -> None:
    first = grammars.compile(Format("regex", "[ab]c"))
    monkeypatch.setattr(grammars._sandbox, "compile", lambda *_, **__: pytest.fail("compiled again"))
    second = grammars.compile(Format("regex", "[ab]c"))
    first.accept(first.allowed_tokens()[0])
    assert first.allowed_tokens() != second.allowed_tokens()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.0},
        {"top_k": 3},
        {"top_k": 3000},
        {"top_p": 0.5},
        {"top_p": 0.999},
        {"min_p": 0.5},
        {"logit_bias": -100.0},
    ],
    ids=str,
)
def test_nothing_forbidden_is_sampled_from_a_large_vocabulary(tokenizer: Any, settings: dict[str, Any]) -> None:
    import torch

    from abstractllm.providers.huggingface.worker.batching.sampler import sample
    from tests.unit.test_sampler import state

    size = 40_000
    wide = Grammars(tokenizer, TokenDecoder(tokenizer), size, [1, 3])
    few = wide.compile(Format("regex", "[abc]"))
    bias = dict.fromkeys(few.allowed_tokens(), settings.get("logit_bias", 0.0))
    changes = {key: value for key, value in settings.items() if key != "logit_bias"} | (
        {"logit_bias": bias} if "logit_bias" in settings else {}
    )
    free = state(seed=5, **changes)
    for spread in (1.0, 30.0):
        states = [state(seed=seed, matcher=wide.compile(Format("regex", "[abc]")), **changes) for seed in range(16)]
        logits = torch.randn(17, size, generator=torch.Generator().manual_seed(3)) * spread
        tokens = sample(logits.clone(), [*states, free])
        assert set(tokens[:-1]) <= set(few.allowed_tokens())
        again = dataclasses.replace(free, sampled=free.sampled - 1)
        assert tokens[-1] == sample(logits[-1:].clone(), [again])[0]


@pytest.mark.parametrize("size", [404, 416, 417, 448])
def test_padded_embeddings_are_never_sampled_whatever_their_number(tokenizer: Any, size: int) -> None:
    import torch

    from abstractllm.providers.huggingface.worker.structured.matcher import forbid

    grammars = Grammars(tokenizer, TokenDecoder(tokenizer), size, [1, 3])
    matchers = [grammars.compile(Format("regex", "(?s:.)*")) for _ in range(3)]
    logits = torch.zeros(5, size)
    forbid(logits, matchers, [0, 2, 4])
    allowed = (logits > -1).nonzero()
    assert allowed[allowed[:, 0] == 0][:, 1].tolist() == matchers[0].allowed_tokens()
    assert max(matchers[0].allowed_tokens()) < len(tokenizer)
    assert (logits[[1, 3]] == 0).all()


def test_a_tokenizer_that_is_not_fast_is_said_to_be_unfit(tokenizer: Any) -> None:
    class Slow:
        added_tokens_decoder = tokenizer.added_tokens_decoder

        def __len__(self) -> int:
            return len(tokenizer)

    grammars = Grammars(Slow(), TokenDecoder(tokenizer), 400, [1])
    assert "fast" in grammars.unavailable
    with pytest.raises(UnsupportedFeatureError, match="fast") as raised:
        grammars.compile(Format("json_object"))
    assert raised.value.field == "response_format.json_object"


@pytest.mark.parametrize(
    ("definition", "place"),
    [
        ({"properties": {"a": {"items": {"type": "string", "pattern": "(?=a)b"}}}}, "#/properties/a/items/pattern"),
        ({"$defs": {"x": {"items": {"pattern": "["}}}, "anyOf": [{"$ref": "#/$defs/x"}]}, "#/$defs/x/items/pattern"),
        ({"items": {"type": "object", "oneOf": [{"minProperties": 1}, {"maxProperties": 3}]}}, "#/items/oneOf"),
        ({"properties": {"a": {"type": "integer", "minimum": 3, "maximum": 2}}, "required": ["a"]} | OBJECT, "#"),
        ({"items": {"allOf": [{"type": "string"}, {"type": "null"}]}, "minItems": 1} | ARRAY, "#"),
    ],
)
def test_a_fault_that_the_compiler_finds_is_named_with_its_place(
    grammars: Grammars, definition: dict[str, Any], place: str
) -> None:
    error = refusal(grammars, schema(definition))
    assert error.message.startswith(f"{SCHEMA}: {place}: ")
    assert (error.field, error.limit) == (SCHEMA, None)


@pytest.mark.parametrize("words", ["too big", "many items", "many states", "items; max is", "to compile", "TooComplex"])
def test_the_words_of_a_schema_make_no_fault_a_limit(grammars: Grammars, words: str) -> None:
    for definition in ({"properties": {words: {"pattern": f"(?={words})"}}}, {"required": [words]} | OBJECT | CLOSED):
        error = refusal(grammars, schema(definition))
        assert error.limit is None
        assert "too complex" not in error.message
    assert refusal(grammars, Format("grammar", f'start: missing "{words}"')).limit is None


@pytest.mark.parametrize(
    ("status", "limit"),
    [
        (-signal.SIGXCPU, "3 seconds of processor time"),
        (-signal.SIGABRT, "1024 MiB of memory"),
        (-signal.SIGSEGV, "32 MiB of stack"),
        (3, "1024 MiB of memory"),
    ],
)
def test_a_limit_of_the_process_is_told_by_the_status_with_which_it_ended(
    monkeypatch: pytest.MonkeyPatch, status: int, limit: str
) -> None:
    ends = f"os.kill(os.getpid(), {-status})" if status < 0 else f"os._exit({status})"
    trial = ended(monkeypatch, f"import os, sys; sys.stdin.readline(); sys.stdin.readline(); {ends}")
    assert trial.limit == limit
    assert limit in trial.error


def test_a_process_that_is_killed_blames_no_format(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="-9"):
        ended(monkeypatch, "import os, sys; sys.stdin.readline(); sys.stdin.readline(); os.kill(os.getpid(), 9)")


def test_a_machine_that_is_too_busy_blames_no_format_and_keeps_no_refusal(
    grammars: Grammars, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_busy(*_: Any, **__: Any) -> Trial:
        raise TimeoutError("no processor time")

    with monkeypatch.context() as patched:
        patched.setattr(grammars._sandbox, "compile", be_busy)
        with pytest.raises(OverloadedError, match="no processor time"):
            grammars.compile(Format("regex", "busy"))
    assert grammars.compile(Format("regex", "busy")).allowed_tokens()


def ended(monkeypatch: pytest.MonkeyPatch, program: str) -> Trial:
    """The trial of a format by a process of another program."""
    sandbox = Sandbox(300, {})

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin
        process.stdin.write(b"vocabulary\n")
        return process

    monkeypatch.setattr(sandbox, "_start", start)
    return sandbox.compile("regex", "a")


def test_a_refused_format_is_not_tried_again(grammars: Grammars, monkeypatch: pytest.MonkeyPatch) -> None:
    for format in (
        Format("regex", "a(?=c)"),
        schema({"maximum": 2**60}),
        schema({"type": "array", "items": {"pattern": "["}}),
    ):
        first = refusal(grammars, format)
        with monkeypatch.context() as patched:
            patched.setattr(grammars, "_compile", lambda *_: pytest.fail("compiled again"))
            again = refusal(grammars, format)
        assert (again.message, again.field, again.limit) == (first.message, first.field, first.limit)
        assert again is not first


@pytest.mark.parametrize(
    "schema", ['{"const": 9007199254740993}', '{"items": {"maximum": 1e400}}', '{"uniqueItems": true}']
)
def test_schemas_inside_a_grammar_are_checked_too(grammars: Grammars, schema: str) -> None:
    text = f'start: "/%json {{" /%json "/ %json {schema} // %json {{"not": {{}}}}'
    error = refusal(grammars, Format("grammar", text))
    assert error.field == GRAMMAR
    assert error.message.startswith(f"{GRAMMAR}: #/")


def test_schemas_inside_a_grammar_keep_their_options(grammars: Grammars) -> None:
    options = '{"lenient": true, "item_separator": ";"}'
    inner = f'{{"type": "array", "uniqueItems": true, "items": {{"const": 5}}, "x-guidance": {options}}}'
    matcher = grammars.compile(Format("grammar", f'start: "a" %json {inner} "<"\n'))
    for token in grammars.tokenizer.tokenize_str("a[5;5]<"):
        matcher.accept(token)
    assert matcher.is_complete


@pytest.mark.parametrize(
    "format",
    [
        Format("regex", "<tool>ab"),
        Format("regex", "x<\\|im_start\\|>"),
        Format("grammar", 'start: "<tool>" /[a-z]{2}/'),
        schema({"const": "<tool>"}),
        schema({"const": {"<|im_end|>": None}}),
    ],
    ids=lambda format: format.text[:30],
)
def test_the_text_of_a_token_that_stands_for_none_can_be_written(tmp_path: Path, format: Format) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(build(tmp_path, "llama"))
    tokenizer.add_tokens(["<tool>"])  # as Qwen's <tool_call>: added, not special
    grammars = Grammars(tokenizer, TokenDecoder(tokenizer), len(tokenizer), [1, 3])
    matcher = grammars.compile(format)
    for _ in range(100):
        if matcher.is_complete:
            break
        matcher.accept(matcher.allowed_tokens()[-1])
    assert matcher.is_complete
