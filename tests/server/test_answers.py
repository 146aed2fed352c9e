"""Answers: the unary one is the stream, joined; and what a provider says arrives as it was said."""

import json
from typing import Any

import grpc
import pytest
from grpc import aio

from abstractllm.testing import ScriptedProvider
from abstractllm.types import (
    Attempt,
    Capabilities,
    ChatMessage,
    Finished,
    FinishReason,
    GrammarFormat,
    Image,
    JsonObjectFormat,
    JsonSchemaFormat,
    ParametersPolicy,
    Reasoning,
    ReasoningDelta,
    ReasoningEffort,
    RegexFormat,
    Role,
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
from abstractllm_api.v1 import errors_pb2, generation_pb2_grpc
from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_server.convert.requests import generation_request
from abstractllm_server.convert.responses import event
from tests.server.support import Serving, collect, failure, request, serving

P = pb.GenerationParameters


async def both(served: Serving, message: pb.GenerateRequest) -> tuple[pb.GenerateResponse, list[Any]]:
    """The unary answer and the events of the streamed one, which keep to the contract's order."""
    unary = await served.generation.Generate(message)
    events = await collect(served.generation.StreamGenerate(message))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "started"
    assert kinds[-1] == "finished"
    assert kinds.count("started") == kinds.count("finished") == 1
    return unary, events


TEXTS = [
    "a",
    "I am here.",
    "  two  spaces\n\n and lines \t",
    "漢字 😀 \u200d é e\u0301 \x00 \u2028 end",
    "word " * 500,
]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
@pytest.mark.parametrize("parameters", [{}, {"max_tokens": 3}, {"stop": ["am", " two"]}], ids=["whole", "cut", "stop"])
async def test_unary_answer_is_the_stream_joined(served: Serving, text: str, parameters: dict[str, Any]) -> None:
    unary, events = await both(served, request(reply=text, parameters=P(**parameters)))
    started, finished = events[0].started, events[-1].finished
    assert unary.text == "".join(event.text_delta.text for event in events)
    assert unary.text if not parameters else text.startswith(unary.text)
    assert unary.message == finished.message
    assert unary.finish_reason == finished.finish_reason
    assert unary.stop_sequence == finished.stop_sequence
    assert unary.usage == finished.usage
    assert (unary.llm, unary.provider, unary.model) == (started.llm, started.provider, started.model)
    assert (unary.llm, unary.provider, unary.model) == ("echo", "scripted", "script")
    assert unary.id
    assert started.id
    assert unary.id != started.id
    assert [attempt.llm for attempt in unary.attempts] == ["echo"]
    assert unary.timing.total.ToNanoseconds() >= unary.timing.first_token.ToNanoseconds() > 0


async def test_finish_reasons_tell_why_an_answer_ended(served: Serving) -> None:
    for message, reason, stop in [
        (request(), "STOP", ""),
        (request(parameters=P(max_tokens=1)), "MAX_TOKENS", ""),
        (request(parameters=P(stop=["big"])), "STOP_SEQUENCE", "big"),
        (request(script=[{"tool_call": {"name": "f"}}]), "TOOL_CALLS", ""),
        (request(script=[{"finish": "refusal"}]), "REFUSAL", ""),
        (request(script=[{"finish": "content_filter"}]), "CONTENT_FILTER", ""),
    ]:
        unary, _ = await both(served, message)
        assert (pb.FinishReason.Name(unary.finish_reason), unary.stop_sequence) == (f"FINISH_REASON_{reason}", stop)


async def test_dropped_parameters_are_listed_in_both_and_rejected_otherwise() -> None:
    llm = ScriptedProvider(capabilities=Capabilities(parameters=("temperature",)))
    async with serving({"few": llm}) as served:
        message = request(
            parameters=P(temperature=0.5, top_k=3, seed=1),
            reply="x",
            parameters_policy=pb.PARAMETERS_POLICY_DROP_UNSUPPORTED,
        )
        unary, events = await both(served, message)
    dropped = ["parameters.top_k", "parameters.seed", "provider_options.reply"]
    assert list(unary.dropped_parameters) == list(events[0].started.dropped_parameters) == dropped
    assert unary.text == "hello big world"
    assert llm.requests[0].parameters.set_fields() == {"model": "script", "temperature": 0.5}
    assert llm.requests[0].provider_options == {}


async def test_configured_defaults_fill_what_the_request_leaves_absent() -> None:
    config = {
        "system_prompt": "be kind",
        "temperature": 0.5,
        "stop": ["END"],
        "provider_options": {"delay": 0},
        "max_tokens": 7,
    }
    async with serving({"set": ScriptedProvider(config)}) as served:
        await served.generation.Generate(request())
        await served.generation.Generate(request(parameters=P(temperature=0, max_tokens=2), system_prompt=""))
        absent, received = served.scripted().requests
    assert absent.parameters.temperature == 0.5
    assert absent.parameters.max_tokens == 7
    assert (absent.system_prompt, absent.parameters.stop) == ("be kind", ("END",))
    # Zero and the empty text are values, not absences.
    assert (received.parameters.temperature, received.parameters.max_tokens, received.system_prompt) == (0, 2, "")
    assert received.parameters.stop == ("END",)


async def test_tool_calls_and_reasoning_come_in_pieces_and_as_a_message(served: Serving) -> None:
    script = [
        {"reasoning": "let me see"},
        {"text": "calling now"},
        {"tool_call": {"id": "c1", "name": "weather", "arguments": {"city": "Paris", "days": [1, 2]}}},
        {"tool_call": {"id": "c2", "name": "clock"}},
    ]
    unary, events = await both(served, request(script=script, tools=[pb.Tool(name="weather"), pb.Tool(name="clock")]))
    assert [part.WhichOneof("part") for part in unary.message.parts] == ["reasoning", "text", "tool_call", "tool_call"]
    assert unary.message.role == pb.ROLE_ASSISTANT
    assert unary.text == "calling now"
    assert "".join(event.reasoning_delta.text for event in events) == unary.message.parts[0].reasoning.text
    deltas = [event.tool_call_delta for event in events if event.WhichOneof("event") == "tool_call_delta"]
    for index, part in enumerate(unary.message.parts[2:]):
        mine = [delta for delta in deltas if delta.index == index]
        assert "".join(delta.arguments_fragment for delta in mine) == part.tool_call.arguments_json
        assert (mine[0].id, mine[0].name) == (part.tool_call.id, part.tool_call.name)
    assert json.loads(unary.message.parts[2].tool_call.arguments_json) == {"city": "Paris", "days": [1, 2]}

    # The answer goes back as it came, with the tool's result after it.
    result = pb.ToolResult(tool_call_id="c1", content="sunny")
    turns = [
        pb.ChatMessage(role=pb.ROLE_USER, parts=[pb.Part(text="weather?")]),
        unary.message,
        pb.ChatMessage(role=pb.ROLE_TOOL, parts=[pb.Part(tool_result=result)]),
    ]
    await served.generation.Generate(pb.GenerateRequest(chat=pb.Chat(messages=turns)))
    assert served.scripted().requests[-1].messages[1].parts[2] == ToolCall(
        "c1", "weather", unary.message.parts[2].tool_call.arguments_json
    )


def test_every_part_of_a_request_is_decoded() -> None:
    message = pb.GenerateRequest(
        system_prompt="sys",
        parameters=P(
            model="m",
            temperature=0.0,
            top_p=0.5,
            top_k=4,
            min_p=0.25,
            max_tokens=9,
            seed=-5,
            presence_penalty=-1,
            frequency_penalty=1,
            repetition_penalty=1.5,
            stop=["a", "b"],
            logit_bias={3: -1.5},
            top_logprobs=0,
            reasoning_effort=pb.REASONING_EFFORT_XHIGH,
        ),
        response_format=pb.ResponseFormat(json_schema=pb.JsonSchemaFormat(name="n", schema_json="{}", strict=False)),
        tools=[pb.Tool(name="f", description="d", parameters_json_schema='{"a": 1}'), pb.Tool(name="g")],
        tool_choice=pb.ToolChoice(name="f"),
        request_id="id",
        labels={"team": "blue"},
        parameters_policy=pb.PARAMETERS_POLICY_DROP_UNSUPPORTED,
    )
    message.provider_options.update({"a": 1, "b": 1.5, "c": [True, None, {"d": "x"}]})
    message.chat.messages.add(
        role=pb.ROLE_USER,
        parts=[
            pb.Part(text="hi", provider_state=b"s1"),
            pb.Part(image=pb.Image(data=b"\x89", mime_type="image/png"), provider_state=b"s2"),
        ],
    )
    message.chat.messages.add(
        role=pb.ROLE_ASSISTANT,
        parts=[
            pb.Part(reasoning=pb.Reasoning(text="hm"), provider_state=b"s3"),
            pb.Part(tool_call=pb.ToolCall(id="1", name="f", arguments_json="{}"), provider_state=b"s4"),
        ],
    )
    message.chat.messages.add(
        role=pb.ROLE_TOOL,
        parts=[pb.Part(tool_result=pb.ToolResult(tool_call_id="1", content="c", is_error=True), provider_state=b"s5")],
    )
    decoded = generation_request(message, 2.5)
    assert decoded.messages == (
        ChatMessage(Role.USER, (Text("hi", b"s1"), Image(b"\x89", "image/png", b"s2"))),
        ChatMessage(Role.ASSISTANT, (Reasoning("hm", b"s3"), ToolCall("1", "f", "{}", b"s4"))),
        ChatMessage(Role.TOOL, (ToolResult("1", "c", True, b"s5"),)),
    )
    assert decoded.parameters.set_fields() == {
        "model": "m",
        "temperature": 0.0,
        "top_p": 0.5,
        "top_k": 4,
        "min_p": 0.25,
        "max_tokens": 9,
        "seed": -5,
        "presence_penalty": -1.0,
        "frequency_penalty": 1.0,
        "repetition_penalty": 1.5,
        "stop": ("a", "b"),
        "logit_bias": {3: -1.5},
        "top_logprobs": 0,
        "reasoning_effort": ReasoningEffort.XHIGH,
    }
    assert decoded.response_format == JsonSchemaFormat("{}", "n", False)
    assert decoded.tools == (Tool("f", "d", '{"a": 1}'), Tool("g"))
    assert (decoded.tool_choice, decoded.system_prompt) == (ToolChoice(name="f"), "sys")
    assert (decoded.request_id, decoded.labels, decoded.timeout) == ("id", {"team": "blue"}, 2.5)
    assert decoded.provider_options == {"a": 1, "b": 1.5, "c": [True, None, {"d": "x"}]}
    assert isinstance(decoded.provider_options["a"], int)
    assert decoded.parameters_policy is ParametersPolicy.DROP_UNSUPPORTED


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        (
            {"response_format": pb.ResponseFormat(json_object=pb.JsonObjectFormat())},
            "response_format",
            JsonObjectFormat(),
        ),
        ({"response_format": pb.ResponseFormat(regex="a+")}, "response_format", RegexFormat("a+")),
        ({"response_format": pb.ResponseFormat(grammar="g")}, "response_format", GrammarFormat("g")),
        ({"tool_choice": pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_NONE)}, "tool_choice", ToolChoice(ToolChoiceMode.NONE)),
        ({"tool_choice": pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_UNSPECIFIED)}, "tool_choice", None),
        ({"parameters_policy": pb.PARAMETERS_POLICY_REJECT}, "parameters_policy", ParametersPolicy.REJECT),
        ({}, "parameters_policy", ParametersPolicy.REJECT),
        ({}, "response_format", None),
        ({}, "system_prompt", None),
        ({"system_prompt": ""}, "system_prompt", ""),
    ],
)
def test_choices_of_a_request_are_decoded(fields: dict[str, Any], name: str, value: object) -> None:
    assert getattr(generation_request(request(**fields), None), name) == value


LOGPROBS = (
    TokenLogprob(7, "Hi", b"Hi", -0.25, (TopLogprob(7, "Hi", b"Hi", -0.25), TopLogprob(2, "\ufffd", b"\xf0", -3.5))),
    TokenLogprob(0, "", b"", 0.0),
)


def test_every_event_is_encoded() -> None:
    delta = event(TextDelta("Hi", LOGPROBS)).text_delta
    assert delta.text == "Hi"
    first, second = delta.logprobs
    assert (first.token_id, first.token, first.token_bytes, first.logprob) == (7, "Hi", b"Hi", -0.25)
    assert [(top.token_id, top.token_bytes, top.logprob) for top in first.top] == [
        (7, b"Hi", -0.25),
        (2, b"\xf0", -3.5),
    ]
    assert (second.token_id, len(second.top)) == (0, 0)
    assert event(ReasoningDelta("hm")).reasoning_delta.text == "hm"
    call = event(ToolCallDelta(2, "id", "f", "{")).tool_call_delta
    assert (call.index, call.id, call.name, call.arguments_fragment) == (2, "id", "f", "{")
    finished = event(
        Finished(
            FinishReason.MAX_TOKENS,
            "stop",
            Usage(input_tokens=0, reasoning_tokens=4),
            (Attempt("a", "p", "m", "RATE_LIMITED", "slow", 0.5), Attempt("b", "q", "n")),
            Timing(queued=0.0, total=1.5),
            ChatMessage(Role.ASSISTANT, (Reasoning("hm", b"signed"), Text("t"))),
        )
    ).finished
    usage = {name: finished.usage.HasField(name) for name in ("input_tokens", "output_tokens", "reasoning_tokens")}
    assert usage == {"input_tokens": True, "output_tokens": False, "reasoning_tokens": True}
    assert (finished.usage.input_tokens, finished.usage.reasoning_tokens) == (0, 4)
    assert [attempt.error_reason for attempt in finished.attempts] == [errors_pb2.ERROR_REASON_RATE_LIMITED, 0]
    assert finished.attempts[0].duration.ToMilliseconds() == 500
    assert (finished.timing.HasField("queued"), finished.timing.HasField("first_token")) == (True, False)
    assert finished.timing.total.ToMilliseconds() == 1500
    assert finished.message.parts[0].provider_state == b"signed"


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["a\ud83d", "\ude00b"], "a\U0001f600b"),
        (["\udfff"], "\ufffd"),
        (["x\ud800y", "\udc00\ud800"], "x\ufffdy\ufffd\ufffd"),
    ],
)
async def test_surrogates_of_a_provider_do_not_break_the_answer(pieces: list[str], text: str) -> None:
    script = [
        *(TextDelta(piece) for piece in pieces),
        *(ReasoningDelta(piece) for piece in pieces),
        ToolCallDelta(0, pieces[0], pieces[0], pieces[0]),
        ToolCallDelta(0, arguments_fragment=pieces[-1]),
    ]
    async with serving({"torn": ScriptedProvider(script=script)}) as served:
        unary, events = await both(served, request())
    assert unary.text == "".join(event.text_delta.text for event in events) == text
    assert "".join(event.reasoning_delta.text for event in events) == text
    assert unary.message == events[-1].finished.message


async def test_retries_are_listed_as_attempts() -> None:
    failures = [{"error": "PROVIDER_UNAVAILABLE", "message": "down", "retry_after": 0}]
    calls = iter([failures, failures, [{"text": "at last"}]] * 2)
    llm = ScriptedProvider({"max_retries": 2}, script=lambda _: next(calls))
    async with serving({"shy": llm}) as served:
        unary, events = await both(served, request())
    for attempts in (unary.attempts, events[-1].finished.attempts):
        assert [errors_pb2.ErrorReason.Name(attempt.error_reason) for attempt in attempts] == [
            "ERROR_REASON_PROVIDER_UNAVAILABLE",
            "ERROR_REASON_PROVIDER_UNAVAILABLE",
            "ERROR_REASON_UNSPECIFIED",
        ]
    assert unary.text == "at last"


async def test_tokens_are_counted_as_the_request_would_be_given() -> None:
    async with serving({"echo": ScriptedProvider({"system_prompt": "be very kind"})}) as served:
        count = await served.generation.CountTokens(pb.CountTokensRequest(prompt="hello big world"))
        bare = await served.generation.CountTokens(pb.CountTokensRequest(prompt="hello big world", system_prompt=""))
    assert (count.input_tokens, bare.input_tokens) == (6, 3)


async def test_answer_that_is_too_large_for_a_message_is_refused_by_name_and_size() -> None:
    size, limit = 9 * 1024 * 1024, 16 * 1024 * 1024
    llms = {"echo": ScriptedProvider(), "large": ScriptedProvider(script=[{"text": "x" * size}])}
    options = [("grpc.max_receive_message_length", limit)]
    async with serving(llms) as served, aio.insecure_channel(served.server.address, options) as channel:
        generation = generation_pb2_grpc.GenerationServiceStub(channel)
        # Its text stands in the answer twice: by itself, and as a message.
        error = await failure(generation.Generate(request("hi", llm="large")))
        assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
        assert error.metadata["limit"] == str(limit) and int(error.metadata["requested"]) > 2 * size
        assert error.pushbacks == ["-1"]
        *_, last = await collect(generation.StreamGenerate(request("hi", llm="large")))
        assert last.finished.finish_reason == pb.FINISH_REASON_STOP  # in pieces it can be sent
        await served.works()
