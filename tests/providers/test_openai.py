"""The openai provider through the real SDK over real sockets: what is asked, and what becomes of the answer."""

import json
from typing import get_args

import pytest

from abstractllm import (
    ChatMessage,
    FinishReason,
    Image,
    InvalidRequestError,
    JsonObjectFormat,
    JsonSchemaFormat,
    Reasoning,
    ReasoningDelta,
    Role,
    Text,
    TextDelta,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolChoiceMode,
    ToolResult,
    TopLogprob,
    UnsupportedFeatureError,
    UnsupportedParameterError,
    Usage,
    create_llm,
)
from abstractllm.providers.openai.models import _FAMILIES, DEFAULT_MODEL, family_of
from tests.providers.fake_http import streaming
from tests.providers.openai_server import DONE, asking, call, chunk, saying, texts, usage_chunk, without_variables

WEATHER = Tool("weather", "Tells the weather", '{"type": "object", "properties": {"city": {"type": "string"}}}')


@pytest.fixture(autouse=True)
def _no_variables():
    with without_variables():
        yield


async def request_body(prompt="Hi", handler=None, config=None, **options):
    """The body that a request becomes on the wire."""
    async with asking(handler or saying("ok"), **(config or {})) as (llm, server):
        await llm.complete_async(prompt, **options)
        assert server.requests[-1].path == "/v1/chat/completions"
        return server.requests[-1].json


async def answered(*pieces, **options):
    """The answer that the pieces of an event stream become."""
    async with asking(streaming(pieces), **options) as (llm, _):
        return await llm.complete_async("Hi")


async def test_a_prompt_becomes_a_request_for_a_streamed_answer_also_where_the_answer_is_read_as_a_whole():
    async with asking(saying("Hel", "lo ", "wörld")) as (llm, server):
        answer = await llm.complete_async("Say hello", "Be brief")
        events = [event async for event in llm.stream_async("Say hello", "Be brief")]
    body = {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Say hello"}],
    }
    streamed = body | {"stream": True, "stream_options": {"include_usage": True}}
    assert [request.json for request in server.requests] == [streamed, streamed]
    assert answer.text == "Hello wörld"
    assert answer.finish_reason is FinishReason.STOP
    assert answer.usage == Usage(input_tokens=11, output_tokens=7, cached_input_tokens=4, reasoning_tokens=3)
    assert (answer.provider, answer.model, answer.timing.queued is not None) == ("openai", "m", True)
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Hel", "lo ", "wörld"]


async def test_every_parameter_of_the_format_is_sent_by_its_name_on_the_wire():
    body = await request_body(
        temperature=0.0,
        top_p=0.5,
        max_tokens=9,
        seed=7,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        stop=["END", "."],
        logit_bias={5: -100.0},
        top_logprobs=3,
        reasoning_effort="low",
        provider_options={"user": "u", "parallel_tool_calls": False},
    )
    del body["messages"], body["stream"], body["stream_options"], body["model"]
    assert body == {
        "temperature": 0.0,
        "top_p": 0.5,
        "max_tokens": 9,
        "seed": 7,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "stop": ["END", "."],
        "logit_bias": {"5": -100.0},
        "logprobs": True,
        "top_logprobs": 3,
        "reasoning_effort": "low",
        "user": "u",
        "parallel_tool_calls": False,
    }


async def test_the_token_limit_s_name_can_be_chosen_for_a_compatible_server():
    assert "max_tokens" in await request_body(max_tokens=5)
    body = await request_body(max_tokens=5, config={"max_tokens_parameter": "max_completion_tokens"})
    assert (body.get("max_completion_tokens"), "max_tokens" in body) == (5, False)


async def test_parameters_of_compatible_servers_are_sent_once_the_configuration_accepts_them():
    with pytest.raises(UnsupportedParameterError, match=r"parameters\.top_k"):
        await request_body(top_k=5)
    accepted = {"accepted_parameters": ["top_k", "min_p", "repetition_penalty"], "extra_body": {"route": "x"}}
    body = await request_body(top_k=5, min_p=0.1, repetition_penalty=1.1, config=accepted)
    assert (body["top_k"], body["min_p"], body["repetition_penalty"], body["route"]) == (5, 0.1, 1.1, "x")
    with pytest.raises(UnsupportedParameterError, match=r"parameters\.temperature"):
        await request_body(temperature=1.0, config=accepted)
    assert "stream_options" not in await request_body(config={"extra_body": {"stream_options": None}})
    whole = await request_body(config={"extra_body": {"stream": False}})
    assert (whole["stream"], "stream_options" in whole) == (False, False)


@pytest.mark.parametrize("model", ["o3", "gpt-5-mini", "gpt-5.5", "gpt-5.6-luna", "gpt-6.2-sol"])
@pytest.mark.parametrize("name", ["temperature", "top_p", "presence_penalty", "stop", "logit_bias", "top_logprobs"])
async def test_a_reasoning_model_s_parameters_are_refused_by_name_or_dropped_and_reported(model, name):
    values = {"stop": ["x"], "logit_bias": {1: 1.0}, "top_logprobs": 1}
    llm = create_llm("openai", model=model, api_key="sk-1")
    with pytest.raises(UnsupportedParameterError) as caught:
        await llm.complete_async("Hi", **{name: values.get(name, 0.5)})
    assert caught.value.field == f"parameters.{name}"
    assert (await llm.get_capabilities_async()).parameters == ("max_tokens", "seed", "reasoning_effort")


async def test_a_model_whose_reasoning_is_optional_takes_a_temperature_only_without_it():
    llm = create_llm("openai", model="gpt-5.4", api_key="sk-1")
    with pytest.raises(InvalidRequestError, match="only with reasoning_effort none, got high") as caught:
        await llm.complete_async("Hi", temperature=0.5, reasoning_effort="high")
    assert caught.value.field == "parameters.temperature"
    assert "temperature" in (await llm.get_capabilities_async()).parameters


def test_the_default_model_is_among_the_sdk_s_names_and_every_family_knows_a_name_of_the_sdk():
    from openai.types import ChatModel

    names = get_args(ChatModel)
    assert DEFAULT_MODEL in names
    assert {family_of(name).name for name in names} >= {family.name for family in _FAMILIES}
    assert family_of("ft:gpt-4o-mini-2024-07-18:acme::abc").name == "gpt-4o"
    assert [family_of(name).name for name in ("gpt-5.4-mini", "gpt-5", "gpt-4-turbo", "gpt-5.3-chat-latest")] == [
        "gpt-5.4 mini, nano",
        "gpt-5",
        "gpt-4-turbo",
        "gpt-5 chat",
    ]


async def test_a_conversation_with_images_tools_and_results_takes_the_format_s_shape():
    conversation = [
        ChatMessage(Role.SYSTEM, (Text("Be brief"),)),
        ChatMessage(Role.USER, (Text("What is this?"), Image(b"\x89PNG", "image/png"))),
        ChatMessage(
            Role.ASSISTANT, (Reasoning("hm"), Text("Let me see"), ToolCall("c1", "weather", '{"city": "Bern"}'))
        ),
        ChatMessage(Role.TOOL, (ToolResult("c1", "sunny"), ToolResult("c2", "no such city", is_error=True))),
        ChatMessage(Role.USER, (Text("And "), Text("now?"))),
    ]
    body = await request_body(conversation, tools=[WEATHER], tool_choice=ToolChoice(name="weather"))
    assert body["messages"] == [
        {"role": "system", "content": "Be brief"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {
                    "type": "image_url",
                    "image_url": {"url": "data:image/png;base64,iVBORw=="},
                },
            ],
        },
        {
            "role": "assistant",
            "content": "Let me see",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "c2", "content": "Error: no such city"},
        {"role": "user", "content": "And now?"},
    ]
    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "Tells the weather",
                "parameters": json.loads(WEATHER.parameters_json_schema),
            },
        }
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}


async def test_a_tool_choice_and_both_json_formats_are_sent():
    body = await request_body(tools=[WEATHER], tool_choice=ToolChoice(ToolChoiceMode.REQUIRED))
    assert body["tool_choice"] == "required"
    assert (await request_body(response_format=JsonObjectFormat()))["response_format"] == {"type": "json_object"}
    body = await request_body(response_format=JsonSchemaFormat('{"type": "object"}', name="thing", strict=True))
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "thing", "schema": {"type": "object"}, "strict": True},
    }


async def test_what_the_format_has_no_place_for_is_refused_before_anything_is_sent():
    async with asking(saying("ok")) as (llm, server):
        with pytest.raises(InvalidRequestError, match="only the assistant"):
            await llm.complete_async([ChatMessage(Role.USER, (ToolCall("1", "f", "{}"),))])
        with pytest.raises(InvalidRequestError, match="tool results only"):
            await llm.complete_async([ChatMessage(Role.TOOL, (Text("42"),))])
        with pytest.raises(UnsupportedParameterError, match=r"provider_options\.model"):
            await llm.complete_async("Hi", provider_options={"model": "dear"})
        assert server.requests == []
    llm = create_llm("openai", model="gpt-3.5-turbo", api_key="sk-1")
    with pytest.raises(UnsupportedFeatureError, match="image"):
        await llm.complete_async([ChatMessage(Role.USER, (Image(b"x", "image/png"),))])


async def test_tool_calls_come_in_fragments_and_are_told_apart():
    pieces = [
        call(0, "a", "weather", ""),
        call(0, None, None, '{"city": '),
        call(1, "b", "weather", '{"city": "Rome"}'),
        call(0, None, None, '"Bern"}'),
        chunk(finish="tool_calls"),
        usage_chunk(),
        DONE,
    ]
    async with asking(streaming(pieces)) as (llm, _):
        events = [event async for event in llm.stream_async("Hi", tools=[WEATHER])]
    deltas = [event for event in events if isinstance(event, ToolCallDelta)]
    assert [(delta.index, delta.id, delta.name) for delta in deltas] == [
        (0, "a", "weather"),
        (0, "", ""),
        (1, "b", "weather"),
        (0, "", ""),
    ]
    finished = events[-1]
    assert finished.finish_reason is FinishReason.TOOL_CALLS
    assert finished.message.parts == (
        ToolCall("a", "weather", '{"city": "Bern"}'),
        ToolCall("b", "weather", '{"city": "Rome"}'),
    )


async def test_tool_calls_of_servers_that_number_them_badly_or_send_objects_are_told_apart_all_the_same():
    answer = await answered(
        call(0, "a", "f", "{}"), call(0, "b", "g", {"x": 1}), call(None, None, "h", "{}"), chunk(finish="stop"), DONE
    )
    assert [(part.name, part.arguments_json) for part in answer.tool_calls] == [
        ("f", "{}"),
        ("g", '{"x": 1}'),
        ("h", "{}"),
    ]
    assert len({part.id for part in answer.tool_calls}) == 3
    assert all(part.id for part in answer.tool_calls)
    assert answer.finish_reason is FinishReason.TOOL_CALLS


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_reasoning_of_compatible_servers_is_kept_apart_from_the_text(field):
    pieces = [chunk(None, **{field: "hm "}), chunk(None, **{field: "hm"}), *texts("So: 4")]
    async with asking(streaming(pieces)) as (llm, _):
        events = [event async for event in llm.stream_async("2+2?")]
    assert [event.text for event in events if isinstance(event, ReasoningDelta)] == ["hm ", "hm"]
    reasoning, text = events[-1].message.parts
    assert (reasoning.text, text) == ("hm hm", Text("So: 4"))


async def test_log_probabilities_come_with_the_text_they_belong_to():
    token = {"token": "é", "bytes": [195, 169], "logprob": -0.5, "top_logprobs": []}
    other = {"token": "e", "bytes": None, "logprob": -1.5}
    logprobs = {"content": [token | {"top_logprobs": [token, other]}]}
    answer = await answered(chunk("é", choice={"logprobs": logprobs}), chunk(finish="stop"), DONE)
    assert answer.logprobs == (
        TokenLogprob(
            -1, "é", "é".encode(), -0.5, (TopLogprob(-1, "é", "é".encode(), -0.5), TopLogprob(-1, "e", b"e", -1.5))
        ),
    )


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        ({"finish": "length"}, FinishReason.MAX_TOKENS),
        ({"finish": "content_filter"}, FinishReason.CONTENT_FILTER),
        ({"finish": "function_call"}, FinishReason.TOOL_CALLS),
        ({"finish": "stop", "choice": {"stop_reason": 151645}}, FinishReason.STOP),
        ({"finish": "stop", "choice": {"stop_reason": "END"}}, FinishReason.STOP_SEQUENCE),
    ],
)
async def test_each_finish_reason_of_the_wire_has_one_of_ours(wire, reason):
    answer = await answered(chunk("a"), chunk(**wire), DONE)
    assert answer.finish_reason is reason
    assert answer.stop_sequence == ("END" if reason is FinishReason.STOP_SEQUENCE else "")


async def test_a_refusal_is_text_that_ends_as_a_refusal():
    answer = await answered(chunk(refusal="I "), chunk(refusal="will not"), chunk(finish="stop"), usage_chunk(), DONE)
    assert (answer.text, answer.finish_reason) == ("I will not", FinishReason.REFUSAL)


async def test_numbers_that_the_server_does_not_tell_stay_unset():
    assert (await answered(chunk("a"), chunk(finish="stop"), DONE)).usage == Usage()
    usage = usage_chunk({"prompt_tokens": 3, "completion_tokens": 0})
    assert (await answered(chunk("a"), chunk(finish="stop"), usage)).usage == Usage(3, 0)
