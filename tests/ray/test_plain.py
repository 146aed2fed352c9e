"""Values that cross to a replica and back are as they were: every event, request and error, with all its fields."""

from __future__ import annotations

import dataclasses
import json
import pickle
from typing import Any

import pytest

from abstractllm import errors
from abstractllm.call_record import CallRecord, UpstreamCall
from abstractllm.errors import AbstractLLMError, ErrorReason, InternalError, ModelNotFoundError
from abstractllm.parameters import GenerationParameters
from abstractllm.providers.ray.load_failures import error_in, load_failure
from abstractllm.providers.ray.plain import (
    decode,
    encode,
    error_of,
    facts_of_record,
    note_record,
    plain_error,
    plain_values,
)
from abstractllm.requests import GenerationRequest
from abstractllm.types import (
    Attempt,
    CachedModel,
    Capabilities,
    ChatMessage,
    Finished,
    FinishReason,
    GrammarFormat,
    Image,
    JsonObjectFormat,
    JsonSchemaFormat,
    LlmState,
    LoadProgress,
    ParametersPolicy,
    PullProgress,
    Reasoning,
    ReasoningDelta,
    RegexFormat,
    Role,
    Started,
    Text,
    TextDelta,
    Timing,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolChoiceMode,
    ToolResult,
    TopLogprob,
    Usage,
)

MESSAGES = (
    ChatMessage(Role.SYSTEM, (Text("Be brief.", b"\x00state"),)),
    ChatMessage(Role.USER, (Text("Look: \ud800 \u2028 é"), Image(b"\x89PNG\x00", "image/png"))),
    ChatMessage(Role.ASSISTANT, (Reasoning("hm", b"signed"), ToolCall("1", "f", '{"a": 1}'))),
    ChatMessage(Role.TOOL, (ToolResult("1", "42", is_error=True),)),
)
LOGPROBS = (TokenLogprob(7, "é", b"\xc3\xa9", -0.5, (TopLogprob(8, "e", b"e", -1.5),)),)
VALUES = [
    Started("id", "llm", "provider", "model", ("parameters.seed",)),
    TextDelta("Paris", LOGPROBS),
    TextDelta(""),
    ReasoningDelta("thinking"),
    ToolCallDelta(1, "c1", "f", '{"a":'),
    Finished(
        FinishReason.TOOL_CALLS,
        "stop",
        Usage(1, 2, None, 4),
        (Attempt("llm", "p", "m", "OVERLOADED", "full", 0.5),),
        Timing(0.1, 0.2, 0.3),
        MESSAGES[2],
    ),
    Capabilities(tools=True, parameters=("seed", "stop"), context_window=2048, device="cpu"),
    CachedModel("org/model", ("abc",), 12, None, 3.5, ("local",), True),
    PullProgress("", 1, None, 2, None, False),
    LoadProgress(LlmState.LOADING, "weights", 0.5),
    GenerationRequest(prompt="hi"),
    GenerationRequest(
        messages=MESSAGES,
        system_prompt="",
        parameters=GenerationParameters(temperature=0.5, stop=("a", "b"), logit_bias={3: -100.0}, top_logprobs=0),
        response_format=JsonSchemaFormat('{"type": "object"}', "name", strict=True),
        tools=(Tool("f", "does", '{"type": "object"}'),),
        tool_choice=ToolChoice(ToolChoiceMode.REQUIRED),
        provider_options={"script": [{"text": "x"}, {"tool_call": {"name": "f", "~": "x"}}], "n": 1, "b": True},
        request_id="r1",
        labels={"team": "a"},
        parameters_policy=ParametersPolicy.DROP_UNSUPPORTED,
        timeout=2.5,
        whole=True,
        caller="inference:backend",
        retry=False,
    ),
    GenerationRequest(prompt="x", response_format=RegexFormat("a+")),
    GenerationRequest(prompt="x", response_format=GrammarFormat("start: a"), tool_choice=ToolChoice(name="f")),
    GenerationRequest(prompt="x", response_format=JsonObjectFormat()),
]
PLAIN = (dict, list, str, int, float, bool, bytes, type(None))


def kinds(data: Any) -> set[type]:
    """The types of all values within plain data."""
    parts = [*data.keys(), *data.values()] if isinstance(data, dict) else data if isinstance(data, list) else []
    return {type(data)}.union(*map(kinds, parts))


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    data = encode(value)
    assert kinds(data) <= set(PLAIN)
    back = decode(pickle.loads(pickle.dumps(data)))
    assert type(back) is type(value)
    assert back == value


def test_fields_that_a_process_does_not_know_are_left_out() -> None:
    data = encode(TextDelta("x"))
    data["fields"]["of_tomorrow"] = 1
    assert decode(data) == TextDelta("x")
    with pytest.raises(ValueError, match="no value of this version"):
        decode({"~": "os.system", "fields": {}})


def test_what_is_none_of_the_library_s_values_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot be sent"):
        encode(GenerationRequest(prompt="x", provider_options={"file": open}))


ERROR_CLASSES = sorted(
    {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, AbstractLLMError) and kind is not AbstractLLMError
    },
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", ERROR_CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_comes_back_with_all_that_it_tells(kind: type[AbstractLLMError]) -> None:
    error = kind(
        "words",
        retry_after=1.5,
        provider="p",
        llm="l",
        model="m",
        upstream_status=429,
        request_id="r",
        field="parameters.seed",
        limit=["a", 2],
        requested=3,
        output_tokens=4,
        partial_text="so far",
    )
    error.is_billed, error.is_turned_away = True, True
    error.attempts = (Attempt("l", "p", "m", "TIMEOUT", "late", 1.0),)
    data = plain_error(error, "Traceback: here")
    assert kinds(data) <= set(PLAIN)
    back = error_of(pickle.loads(pickle.dumps(data)))
    assert type(back) is kind
    assert vars(back) == vars(error)
    assert back.args == error.args
    assert (str(back.__cause__) == "\nTraceback: here") is (kind is InternalError)


def test_an_error_of_tomorrow_is_an_internal_one() -> None:
    data = plain_error(ModelNotFoundError("gone"))
    back = error_of(data | {"class": "NewError", "reason": "NEW"})
    assert type(back) is InternalError
    assert back.reason is ErrorReason.INTERNAL


def test_a_limit_of_any_kind_is_told_in_words() -> None:
    error = ModelNotFoundError("gone", limit=GenerationParameters(seed=1), requested={"a": 1})
    back = error_of(plain_error(error))
    assert "seed=1" in str(back.limit)
    assert back.requested == "{'a': 1}"


def test_ray_s_text_carries_the_error_of_a_start_that_failed() -> None:
    error = plain_error(ModelNotFoundError("model 'x' is not here", model="x", field="model"))
    text = f"The deployment failed: RuntimeError: {load_failure(error)}\n  at some place"
    back = error_in(text)
    assert isinstance(back, ModelNotFoundError)
    assert (back.message, back.model, back.field) == ("model 'x' is not here", "x", "model")
    assert error_in("nothing of the kind") is None
    assert error_in(text.replace(">", "")[:-30]) is None


def test_secrets_go_in_the_clear_and_unset_keys_do_not_go() -> None:
    from abstractllm.providers.openai import OpenAIConfig

    config = OpenAIConfig.parse({"api_key": "sk-secret", "temperature": 0.5, "stop": ["a"]})
    values = plain_values(config, frozenset(OpenAIConfig.model_fields))
    assert values == {"api_key": "sk-secret", "parameters": {"temperature": 0.5, "stop": ["a"]}}
    json.dumps(values)
    assert OpenAIConfig.parse(values) == config


def test_the_record_of_a_replica_becomes_part_of_the_server_s() -> None:
    remote = CallRecord(provider="openai", model="m", queued=0.5, prefill=0.1, input_tokens=3, arrived_at=1000.0)
    remote.first_token_at = 1000.75
    remote.upstream.append(
        UpstreamCall("l", "openai", "m", "host", 443, began_at=1000.25, ended_at=1001.0, usage=Usage(3, 4))
    )
    record = CallRecord(provider="ray", arrived_at=5.0, arrived_at_ns=10**18)
    note_record(record, pickle.loads(pickle.dumps(facts_of_record(remote))), 6.0)
    assert (record.provider, record.model, record.queued, record.prefill, record.input_tokens) == (
        "openai",
        "m",
        0.5,
        0.1,
        3,
    )
    assert record.first_token_at == 6.75
    (call,) = record.upstream
    assert (call.began_at, call.ended_at, call.first_event_at, call.usage) == (6.25, 7.0, None, Usage(3, 4))
    assert call.began_at_ns == 10**18 + 1_250_000_000
    assert dataclasses.asdict(call)["address"] == "host"
