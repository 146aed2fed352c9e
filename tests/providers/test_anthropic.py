"""The anthropic provider through the real SDK over real sockets: what is asked, and what becomes of the answer."""

import asyncio
import base64
import subprocess
import sys
from typing import get_args

import pytest

from abstractllm import (
    ChatMessage,
    ConfigurationError,
    FinishReason,
    Image,
    InvalidRequestError,
    JsonObjectFormat,
    JsonSchemaFormat,
    LlmState,
    ProviderCredentialsError,
    Reasoning,
    ReasoningDelta,
    Role,
    Text,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolChoiceMode,
    ToolResult,
    UnsupportedFeatureError,
    UnsupportedParameterError,
    Usage,
    create_llm,
)
from abstractllm.providers.anthropic.models import _MODELS, DEFAULT_MODEL, model_facts
from abstractllm_client import AsyncRemoteLLM
from tests.providers.anthropic_server import (
    answer,
    asking,
    block,
    event,
    says,
    start,
    stop,
    text,
    thinking,
    tool_use,
)
from tests.server.support import serving as serving_grpc

WEATHER = Tool("weather", "Tells the weather", '{"properties": {"city": {"type": "string"}}}')
PIXEL = b"\x89PNG\r\n\x1a\n not really"
USER = ChatMessage(Role.USER, (Text("Hi"),))


@pytest.fixture(autouse=True)
def _no_variables(request, monkeypatch):
    """Hides the SDK's variables of this machine, except from the tests that need them."""
    if not request.node.get_closest_marker("real_key"):
        for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
            monkeypatch.delenv(name, raising=False)


async def request_body(prompt="Hi", config=None, **options):
    """The body that a request becomes on the wire."""
    async with asking(says(answer("ok")), **(config or {})) as (llm, server):
        await llm.complete_async(prompt, **options)
        return server.requests[-1].json


async def answered(*events):
    """The answer that the events of a stream become."""
    async with asking(says(events)) as (llm, _):
        return await llm.complete_async("Hi")


async def test_a_prompt_becomes_a_streamed_request_and_the_answer_is_the_stream_folded():
    async with asking(says(answer("Hel", "lo ", "wörld"))) as (llm, server):
        completion = await llm.complete_async("Say hello", "Be brief")
        events = [event async for event in llm.stream_async("Say hello")]
        assert server.connections == 1
    request = server.requests[0]
    assert request.json == {
        "model": "claude-sonnet-5-5",
        "max_tokens": 128_000,
        "system": [{"type": "text", "text": "Be brief"}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Say hello"}]}],
        "stream": True,
    }
    assert request.headers["authorization"] == "Bearer sk-1"
    assert request.headers["anthropic-version"] == "2026-10-21"
    assert (completion.text, completion.finish_reason) == ("Hello wörld", FinishReason.STOP)
    assert completion.usage == Usage(input_tokens=12, output_tokens=7)
    assert (completion.provider, completion.model, completion.timing.queued is not None) == (
        "anthropic",
        "claude-sonnet-5-5",
        True,
    )
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Hel", "lo ", "wörld"]


async def test_what_the_request_sets_is_sent_by_its_name_on_the_wire():
    schema = '{"type": "object", "properties": {"n": {"type": "integer"}}}'
    body = await request_body(
        max_tokens=9,
        stop=["END", "."],
        reasoning_effort="low",
        response_format=JsonSchemaFormat(schema, name="number"),
        provider_options={"service_tier": "standard_only", "metadata": {"user_id": "u1"}},
    )
    assert (body["max_tokens"], body["stop_sequences"]) == (9, ["END", "."])
    assert body["output_config"] == {
        "effort": "low",
        "format": {
            "type": "json_schema",
            "schema": {"type": "object", "properties": {"n": {"type": "integer"}}},
        },
    }
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert (body["service_tier"], body["metadata"]) == ("standard_only", {"user_id": "u1"})


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
async def test_sampling_parameters_are_refused_by_name_dropped_on_request_or_sent_to_the_older_version(name):
    value = 1 if name == "top_k" else 0.5
    async with asking(says(answer("ok"))) as (llm, server):
        with pytest.raises(UnsupportedParameterError) as caught:
            await llm.complete_async("Hi", **{name: value})
        assert caught.value.field == f"parameters.{name}"
        assert server.requests == []
        completion = await llm.complete_async("Hi", **{name: value}, parameters_policy="drop_unsupported")
        assert completion.dropped_parameters == (f"parameters.{name}",)
        assert name not in server.requests[-1].json
        llm.set_config({"sampling_parameters": True})
        await llm.complete_async("Hi", **{name: value})
        assert server.requests[-1].json[name] == value
        assert server.requests[-1].headers["anthropic-version"] == "2023-06-01"
        await llm.complete_async("Hi")
        assert server.requests[-1].headers["anthropic-version"] == "2026-10-21"
        with pytest.raises(InvalidRequestError, match=r"parameters.temperature: must be at most 1, got 1\.5"):
            await llm.complete_async("Hi", temperature=1.5)


async def test_a_reasoning_effort_becomes_effort_and_thinking_as_the_model_takes_it():
    assert (await request_body(reasoning_effort="xhigh"))["output_config"] == {"effort": "xhigh"}
    assert (await request_body(reasoning_effort="none"))["thinking"] == {"type": "between_tools"}
    body = await request_body(reasoning_effort="none", config={"model": "claude-opus-4-8"})
    assert body["thinking"] == {"type": "disabled"}
    assert "output_config" not in body
    body = await request_body(reasoning_effort="high", config={"model": "claude-opus-4-5"})
    assert body["output_config"] == {"effort": "high"}
    assert "thinking" not in body
    provider_options = {"thinking": {"type": "enabled", "budget_tokens": 2048}, "effort": "max"}
    body = await request_body(provider_options=provider_options, config={"model": "claude-haiku-4-5"})
    assert (body["thinking"], body["output_config"]) == (provider_options["thinking"], {"effort": "max"})


@pytest.mark.parametrize(
    ("model", "effort", "limit"),
    [
        ("claude-sonnet-5-5", "minimal", "none, low, medium, high, xhigh"),
        ("claude-opus-5-5", "none", "low, medium, high, xhigh"),
        ("claude-opus-4-6", "xhigh", "none, low, medium, high"),
        ("claude-haiku-4-5", "low", "max_tokens, stop"),
    ],
)
async def test_a_reasoning_effort_that_the_model_does_not_take_is_refused_by_name(model, effort, limit):
    with pytest.raises(UnsupportedParameterError) as caught:
        await request_body(reasoning_effort=effort, config={"model": model})
    assert (caught.value.field, caught.value.limit) == ("parameters.reasoning_effort", limit)


async def test_a_conversation_with_images_tools_and_results_keeps_its_order_and_merges_turns():
    body = await request_body(
        [
            ChatMessage(Role.SYSTEM, (Text("Be brief"),)),
            ChatMessage(Role.USER, (Text("What is this?"), Image(PIXEL, "image/png"))),
            ChatMessage(
                Role.ASSISTANT, (Text("Let me see"), ToolCall("1", "look", '{"at": "it"}'), ToolCall("2", "f", "{}"))
            ),
            ChatMessage(Role.TOOL, (ToolResult("1", "a cat"),)),
            ChatMessage(Role.TOOL, (ToolResult("2", "boom", is_error=True),)),
            ChatMessage(Role.USER, (Text(""), Text("And now?"))),
            ChatMessage(Role.SYSTEM, (Text("Now be long"),)),
            USER,
        ],
        tools=[WEATHER],
        tool_choice=ToolChoice(ToolChoiceMode.REQUIRED),
    )
    assert body["system"] == [{"type": "text", "text": "Be brief"}]
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PIXEL).decode()}
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, {"type": "image", "source": source}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me see"},
                {"type": "tool_use", "id": "1", "name": "look", "input": {"at": "it"}},
                {"type": "tool_use", "id": "2", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "1", "content": "a cat"},
                {"type": "tool_result", "tool_use_id": "2", "content": "boom", "is_error": True},
                {"type": "text", "text": "And now?"},
            ],
        },
        {"role": "system", "content": [{"type": "text", "text": "Now be long"}]},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    ]
    assert body["tools"] == [
        {
            "name": "weather",
            "description": "Tells the weather",
            "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
        }
    ]
    assert body["tool_choice"] == {"type": "any"}


@pytest.mark.parametrize(
    ("choice", "wire"),
    [
        (ToolChoice(ToolChoiceMode.AUTO), {"type": "auto"}),
        (ToolChoice(ToolChoiceMode.NONE), {"type": "none"}),
        (ToolChoice(name="weather"), {"type": "tool", "name": "weather"}),
    ],
)
async def test_each_tool_choice_is_sent(choice, wire):
    assert (await request_body(tools=[WEATHER], tool_choice=choice))["tool_choice"] == wire


async def test_tool_calls_come_in_fragments_with_text_between_them():
    events = [
        start(),
        *text(0, "First "),
        *tool_use(1, "toolu_1", "weather", '{"city": ', '"Bern"}'),
        *tool_use(2, "toolu_2", "weather", ""),
        *block(3, {"type": "tool_use", "id": "toolu_3", "name": "f", "input": {"whole": 1}}),
        *stop("tool_use"),
    ]
    async with asking(says(events)) as (llm, _):
        received = [event async for event in llm.stream_async("Hi", tools=[WEATHER])]
    deltas = [event for event in received if isinstance(event, ToolCallDelta)]
    assert deltas == [
        ToolCallDelta(0, "toolu_1", "weather"),
        ToolCallDelta(0, arguments_fragment='{"city": '),
        ToolCallDelta(0, arguments_fragment='"Bern"}'),
        ToolCallDelta(1, "toolu_2", "weather"),
        ToolCallDelta(2, "toolu_3", "f"),
        ToolCallDelta(2, arguments_fragment='{"whole": 1}'),
    ]
    assert received[-1].finish_reason is FinishReason.TOOL_CALLS
    assert received[-1].message.parts == (
        Text("First "),
        ToolCall("toolu_1", "weather", '{"city": "Bern"}'),
        ToolCall("toolu_2", "weather", "{}"),
        ToolCall("toolu_3", "f", '{"whole": 1}'),
    )


async def test_null_counts_as_an_empty_text():
    thought = {"type": "thinking", "thinking": None, "signature": None}
    call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
    events = [
        start(),
        *block(0, thought, {"type": "signature_delta", "signature": None}),
        *block(1, call, {"type": "input_json_delta", "partial_json": None}),
        *text(2, "4"),
        *stop("tool_use"),
    ]
    async with asking(says(events)) as (llm, _):
        completion = await llm.complete_async("Hi", tools=[WEATHER])
    assert completion.text == "4"
    assert completion.tool_calls == (ToolCall("toolu_1", "weather", "{}"),)


async def test_signed_thinking_is_streamed_as_reasoning_and_goes_back_unchanged():
    redacted = block(1, {"type": "redacted_thinking", "data": "c2VjcmV0"})
    events = [start(), *thinking(0, "c2ln", "hm ", "hm"), *redacted, *text(2, "4"), *stop()]
    async with asking(says(events)) as (llm, server):
        received = [event async for event in llm.stream_async("2+2?")]
        message = received[-1].message
        assert [event.text for event in received if isinstance(event, ReasoningDelta)] == ["hm ", "hm"]
        assert [type(part) for part in message.parts] == [Reasoning, Reasoning, Text]
        foreign = ChatMessage(Role.ASSISTANT, (Reasoning("others'", b"other"), Reasoning("unsigned"), Text("3")))
        await llm.complete_async([USER, message, USER, foreign, USER])
        sent = server.requests[-1].json["messages"]
    assert sent[1]["content"] == [
        {"type": "thinking", "thinking": "hm hm", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "c2VjcmV0"},
        {"type": "text", "text": "4"},
    ]
    assert sent[3]["content"] == [{"type": "text", "text": "3"}]


@pytest.mark.parametrize("state", [b"anthropic:", b"anthropic:{", b"anthropic:{}", b"anthropic:[1]", b"anthropic:\xff"])
async def test_a_state_that_was_tampered_with_is_refused_by_its_path(state):
    with pytest.raises(InvalidRequestError) as caught:
        await request_body([USER, ChatMessage(Role.ASSISTANT, (Text("a"), Reasoning("b", state))), USER])
    assert caught.value.field == "chat.messages[1].parts[1].provider_state"


@pytest.mark.parametrize(
    ("wire", "reason", "sequence"),
    [
        (("end_turn",), FinishReason.STOP, ""),
        (("max_tokens",), FinishReason.MAX_TOKENS, ""),
        (("model_context_window_exceeded",), FinishReason.MAX_TOKENS, ""),
        (("stop_sequence", "END"), FinishReason.STOP_SEQUENCE, "END"),
        (("pause_turn",), FinishReason.STOP, ""),
        (("refusal",), FinishReason.REFUSAL, ""),
    ],
)
async def test_each_stop_reason_of_the_wire_has_one_of_ours(wire, reason, sequence):
    got = await answered(start(), *text(0, "a"), *stop(*wire))
    assert (got.finish_reason, got.stop_sequence, got.text) == (reason, sequence, "a")


async def test_a_refusal_without_any_content_is_an_answer():
    got = await answered(start(), *stop("refusal"))
    assert (got.text, got.finish_reason, got.message.parts) == ("", FinishReason.REFUSAL, ())


async def test_all_kinds_of_content_block_are_read_or_passed_over():
    kinds = [
        "server_tool_use",
        "web_search_tool_result",
        "web_fetch_tool_result",
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
        "container_upload",
        "of_a_later_version",
    ]
    others = [
        piece
        for index, kind in enumerate(kinds)
        for piece in block(index, {"type": kind, "id": "x"}, {"type": "input_json_delta", "partial_json": "{}"})
    ]
    citation = {"type": "citations_delta", "citation": {"type": "char_location", "cited_text": "x"}}
    later = {"type": "delta_of_a_later_version", "text": "x"}
    content = block(20, {"type": "text", "text": "so "}, citation, later, {"type": "text_delta", "text": "it is"})
    got = await answered(start(), *others, event("event_of_a_later_version"), *content, *stop())
    assert (got.text, got.message.parts) == ("so it is", (Text("so it is"),))


async def test_usage_counts_what_came_from_the_cache_and_what_was_thought():
    details = {"output_tokens_details": {"thinking_tokens": 5}}
    cache = {"cache_creation_input_tokens": 100, "cache_read_input_tokens": 1000}
    got = await answered(start(**cache), *text(0, "a"), *stop("end_turn", None, **details))
    assert got.usage == Usage(input_tokens=1112, output_tokens=7, cached_input_tokens=1000, reasoning_tokens=5)


async def test_tokens_are_counted_with_everything_that_takes_some():
    async with asking(says(answer("ok"))) as (llm, server):
        assert await llm.count_tokens_async("Hi", "Be brief", tools=[WEATHER]) == 42
    body = server.requests[0].json
    assert set(body) == {"model", "messages", "system", "tools"}


async def test_what_the_api_has_no_place_for_is_refused_before_anything_is_sent():
    async with asking(says(answer("ok"))) as (llm, server):
        with pytest.raises(UnsupportedFeatureError, match="json_object"):
            await llm.complete_async("Hi", response_format=JsonObjectFormat())
        for name, value in {"seed": 1, "min_p": 0.1, "logit_bias": {1: 1.0}, "top_logprobs": 0}.items():
            with pytest.raises(UnsupportedParameterError, match=name):
                await llm.complete_async("Hi", **{name: value})
        with pytest.raises(InvalidRequestError, match=r"provider_options\.thinking: must be an object"):
            await llm.complete_async("Hi", provider_options={"thinking": "deep"})
        assert server.requests == []


async def test_capabilities_come_from_the_table():
    async with create_llm("anthropic", api_key="sk-1", models=["claude-haiku-4-5", "someone-elses"]) as llm:
        capabilities = await llm.get_capabilities_async()
        assert (capabilities["context_window"], capabilities["max_output_tokens"]) == (1_000_000, 128_000)
        assert capabilities["parameters"] == ("max_tokens", "stop", "reasoning_effort")
        assert capabilities["json_schema"] and capabilities["token_counting"] and not capabilities["json_object"]
        small = await llm.get_capabilities_async("claude-haiku-4-5")
        assert (small["context_window"], small["parameters"]) == (200_000, ("max_tokens", "stop"))
        assert (await llm.get_capabilities_async("someone-elses"))["context_window"] is None


def test_the_default_model_and_the_whole_table_are_among_the_names_that_the_sdk_knows():
    from anthropic.types import ModelParam

    names = get_args(get_args(ModelParam)[0])
    assert DEFAULT_MODEL in names
    assert {f"claude-{name}" for name in _MODELS} <= set(names)
    assert all(model_facts(name).max_output_tokens for name in names)
    assert model_facts("anthropic.claude-opus-4-5-20251101-v1:0") is _MODELS["opus-4-5"]
    assert model_facts("claude-opus-4-20250514").max_output_tokens is None


async def test_the_key_and_the_address_come_from_the_sdks_variables_unless_another_address_is_set(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-env")
    async with asking(says(answer("ok")), api_key=None) as (llm, server):
        assert llm.state[0] is LlmState.FAILED
        with pytest.raises(ProviderCredentialsError, match="ANTHROPIC_API_KEY"):
            await llm.complete_async("Hi")
        assert server.requests == []
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        async with create_llm("anthropic") as other:
            assert other.state[0] is LlmState.READY
            assert (await other.complete_async("Hi")).text == "ok"
            assert "sk-env" not in repr(other) + str(other.get_config())
        assert server.requests[-1].headers["authorization"] == "Bearer sk-env"


async def test_a_new_key_is_used_from_the_next_request_on():
    async with asking(says(answer("ok"))) as (llm, server):
        await llm.complete_async("Hi")
        llm.set_config({"api_key": "sk-2"})
        await llm.complete_async("Hi")
        assert [request.headers["authorization"] for request in server.requests] == ["Bearer sk-1", "Bearer sk-2"]


@pytest.mark.parametrize("bad", [{"base_url": "ftp://x"}, {"api_key": "a b"}, {"sampling_parameters": "maybe"}])
def test_a_bad_configuration_is_refused_by_its_key(bad):
    with pytest.raises(ConfigurationError) as caught:
        create_llm("anthropic", **bad)
    assert caught.value.field == next(iter(bad))
    assert "a b" not in str(caught.value)


async def test_the_synchronous_methods_work_too():
    async with asking(says(answer("Hel", "lo"))) as (llm, _):
        assert await asyncio.to_thread(llm.generate, "Hi") == "Hello"
        assert await asyncio.to_thread(lambda: list(llm.generate("Hi", stream=True))) == ["Hel", "lo"]
        assert await asyncio.to_thread(llm.count_tokens, "Hi") == 42
        assert await llm.generate_async("Hi") == "Hello"


def test_the_sdk_is_not_imported_before_it_is_needed():
    code = (
        "import sys; from abstractllm import create_llm; create_llm('anthropic', api_key='x').close();"
        "assert not {'anthropic', 'httpx2', 'httpx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


async def test_it_answers_through_our_server():
    events = [start(), *thinking(0, "c2ln", "hm"), *text(1, "Hel", "lo"), *tool_use(2, "t1", "weather", "{}")]
    async with (
        asking(says([*events, *stop("tool_use")])) as (llm, upstream),
        serving_grpc({"claude": llm}) as served,
        AsyncRemoteLLM(served.server.address, "claude") as remote,
    ):
        completion = await remote.complete("Hi", "Be brief", max_tokens=5)
        assert (completion.text, completion.reasoning, completion.llm, completion.provider) == (
            "Hello",
            "hm",
            "claude",
            "anthropic",
        )
        assert completion.message.parts[0].provider_state.startswith(b"anthropic:")
        assert await remote.count_tokens("Hi") == 42
        pieces = [piece async for piece in await remote.generate("Hi", stream=True)]
        assert pieces == ["Hel", "lo"]
    assert upstream.requests[0].json["max_tokens"] == 5


@pytest.mark.real_key("ANTHROPIC_API_KEY")
@pytest.mark.parametrize("model", [DEFAULT_MODEL, "claude-haiku-5-5"])
async def test_the_real_api_answers(model):
    async with create_llm("anthropic", model=model, timeout=60) as llm:
        completion = await llm.complete_async("Say: ok", max_tokens=2000, reasoning_effort="low")
        assert completion.text
        assert completion.usage.input_tokens > 0
        assert await llm.count_tokens_async("Say: ok") > 0
