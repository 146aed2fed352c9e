"""A caller's values arrive at the server as the contract has them, and its answers arrive as the client's values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import abstractllm_client as client
from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_client import (
    Attempt,
    ChatMessage,
    Completion,
    FinishReason,
    Image,
    InvalidRequestError,
    ModelParameter,
    Reasoning,
    RemoteLLM,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    UnsupportedParameterError,
    Usage,
)

MESSAGE = pb.ChatMessage(
    role=pb.ROLE_ASSISTANT,
    parts=[
        pb.Part(reasoning=pb.Reasoning(text="hm"), provider_state=b"signed"),
        pb.Part(text="Paris"),
        pb.Part(provider_state=b"of a kind from the future"),
        pb.Part(tool_call=pb.ToolCall(id="1", name="f", arguments_json="{}")),
    ],
)
RESPONSE = pb.GenerateResponse(
    id="a1",
    text="Paris",
    message=MESSAGE,
    finish_reason=pb.FINISH_REASON_STOP_SEQUENCE,
    stop_sequence="\n",
    usage=pb.Usage(input_tokens=7, output_tokens=0),
    llm="local",
    provider="huggingface",
    model="demo",
    attempts=[
        pb.Attempt(llm="gpt", provider="openai", model="x", error_reason="ERROR_REASON_RATE_LIMITED", message="slow"),
        pb.Attempt(llm="local", provider="huggingface", model="demo"),
    ],
    logprobs=[
        pb.TokenLogprob(
            token_id=5,
            token="Paris",
            token_bytes=b"Paris",
            logprob=-0.5,
            top=[pb.TopLogprob(token_id=6, token="Rome", token_bytes=b"Rome", logprob=-1.5)],
        )
    ],
    dropped_parameters=["parameters.top_k"],
)
RESPONSE.attempts[0].duration.FromMilliseconds(1500)
RESPONSE.timing.first_token.FromMilliseconds(20)


@pytest.fixture
def llm(server: Any) -> Iterator[RemoteLLM]:
    async def generate(request: Any, context: Any) -> pb.GenerateResponse:
        return RESPONSE

    server.handlers["Generate"] = generate
    with RemoteLLM(server.address, "local") as llm:
        yield llm


def test_every_parameter_arrives_under_its_name(server: Any, llm: RemoteLLM) -> None:
    parameters: dict[str, Any] = {
        "model": "m",
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 0,
        "min_p": 0.1,
        "max_tokens": 9,
        "seed": -(2**63),
        "presence_penalty": -1,
        "frequency_penalty": 1.5,
        "repetition_penalty": 1.1,
        "stop": ["a", "b"],
        "logit_bias": {7: -100},
        "top_logprobs": 0,
        "reasoning_effort": "xhigh",
    }
    llm.generate("Hi", **parameters)
    sent = server.requests[-1].parameters
    for name, value in parameters.items():
        if name == "reasoning_effort":
            assert sent.reasoning_effort == pb.REASONING_EFFORT_XHIGH
        elif name in ("stop", "logit_bias"):
            assert type(value)(getattr(sent, name)) == value
        else:
            assert sent.HasField(name)
            assert getattr(sent, name) == value
    assert {field.name for field in sent.DESCRIPTOR.fields} == set(parameters)


def test_unset_parameters_stay_absent(server: Any, llm: RemoteLLM) -> None:
    llm.generate("Hi", temperature=None)
    assert not server.requests[-1].HasField("parameters")
    assert server.requests[-1].llm == "local"
    assert server.requests[-1].prompt == "Hi"


def test_keys_may_be_members_of_the_enum(server: Any, llm: RemoteLLM) -> None:
    llm.generate("Hi", **{ModelParameter.TEMPERATURE: 0.5, ModelParameter.STOP: "."})
    assert server.requests[-1].parameters.temperature == 0.5
    assert list(server.requests[-1].parameters.stop) == ["."]


def test_an_answer_that_holds_nothing_goes_back(server: Any, llm: RemoteLLM) -> None:
    for empty in (ChatMessage(Role.ASSISTANT, ()), {"role": "assistant", "content": None}):
        llm.generate([{"role": "user", "content": "Hi"}, empty, {"role": "user", "content": "Hello?"}])
        assert server.requests[-1].chat.messages[1] == pb.ChatMessage(role=pb.ROLE_ASSISTANT)


def test_a_conversation_arrives_part_by_part(server: Any, llm: RemoteLLM) -> None:
    llm.generate(
        [
            {"role": "system", "content": "Be brief."},
            ChatMessage(Role.USER, (Text("What is this?"), Image(b"\x89PNG", "image/png"))),
            ChatMessage(Role.ASSISTANT, (Reasoning("hm", b"signed"), ToolCall("1", "look", '{"at": 1}'))),
            ChatMessage(Role.TOOL, (ToolResult("1", "a cat", is_error=True),)),
        ],
        "Be kind.",
    )
    request = server.requests[-1]
    assert request.WhichOneof("input") == "chat"
    assert request.system_prompt == "Be kind."
    assert request.chat == pb.Chat(
        messages=[
            pb.ChatMessage(role=pb.ROLE_SYSTEM, parts=[pb.Part(text="Be brief.")]),
            pb.ChatMessage(
                role=pb.ROLE_USER,
                parts=[
                    pb.Part(text="What is this?"),
                    pb.Part(image=pb.Image(data=b"\x89PNG", mime_type="image/png")),
                ],
            ),
            pb.ChatMessage(
                role=pb.ROLE_ASSISTANT,
                parts=[
                    pb.Part(reasoning=pb.Reasoning(text="hm"), provider_state=b"signed"),
                    pb.Part(tool_call=pb.ToolCall(id="1", name="look", arguments_json='{"at": 1}')),
                ],
            ),
            pb.ChatMessage(
                role=pb.ROLE_TOOL,
                parts=[pb.Part(tool_result=pb.ToolResult(tool_call_id="1", content="a cat", is_error=True))],
            ),
        ]
    )


def test_the_rest_of_a_request_arrives(server: Any, llm: RemoteLLM) -> None:
    llm.generate(
        "Hi",
        response_format=client.JsonSchemaFormat("{}", strict=True),
        tools=[Tool("f", "does f", '{"type": "object"}')],
        tool_choice=ToolChoice(mode=client.ToolChoiceMode.REQUIRED),
        provider_options={"n": 1, "deep": {"list": [1.5, None, True, ("x",)]}},
        request_id="r1",
        labels={"team": "blue"},
        parameters_policy="drop_unsupported",
    )
    request = server.requests[-1]
    assert request.response_format.json_schema == pb.JsonSchemaFormat(schema_json="{}", strict=True)
    assert request.tools[0].parameters_json_schema == '{"type": "object"}'
    assert request.tool_choice.mode == pb.TOOL_CHOICE_MODE_REQUIRED
    assert request.provider_options["n"] == 1
    assert list(request.provider_options["deep"]["list"])[:3] == [1.5, None, True]
    assert request.request_id == "r1"
    assert dict(request.labels) == {"team": "blue"}
    assert request.parameters_policy == pb.PARAMETERS_POLICY_DROP_UNSUPPORTED


@pytest.mark.parametrize(
    ("chosen", "kind"),
    [
        (client.JsonObjectFormat(), "json_object"),
        (client.RegexFormat("a+"), "regex"),
        (client.GrammarFormat("start: 'a'"), "grammar"),
    ],
)
def test_every_answer_format_arrives(server: Any, llm: RemoteLLM, chosen: object, kind: str) -> None:
    llm.generate("Hi", response_format=chosen)
    assert server.requests[-1].response_format.WhichOneof("format") == kind


def test_a_named_tool_choice_arrives(server: Any, llm: RemoteLLM) -> None:
    llm.generate("Hi", tools=(Tool("f"),), tool_choice=ToolChoice(name="f"))
    assert server.requests[-1].tool_choice.name == "f"


def test_an_answer_is_decoded_whole(llm: RemoteLLM) -> None:
    assert llm.complete("Hi") == Completion(
        id="a1",
        text="Paris",
        message=ChatMessage(Role.ASSISTANT, (Reasoning("hm", b"signed"), Text("Paris"), ToolCall("1", "f", "{}"))),
        finish_reason=FinishReason.STOP_SEQUENCE,
        stop_sequence="\n",
        usage=Usage(input_tokens=7, output_tokens=0, cached_input_tokens=None, reasoning_tokens=None),
        llm="local",
        provider="huggingface",
        model="demo",
        attempts=(
            Attempt("gpt", "openai", "x", "RATE_LIMITED", "slow", 1.5),
            Attempt("local", "huggingface", "demo"),
        ),
        timing=client.Timing(first_token=0.02),
        logprobs=(client.TokenLogprob(5, "Paris", b"Paris", -0.5, (client.TopLogprob(6, "Rome", b"Rome", -1.5),)),),
        dropped_parameters=("parameters.top_k",),
    )


def test_unknown_enum_values_pass_through_as_numbers(server: Any, llm: RemoteLLM) -> None:
    async def generate(request: Any, context: Any) -> pb.GenerateResponse:
        attempt = pb.Attempt(error_reason=77)  # type: ignore[arg-type]
        return pb.GenerateResponse(finish_reason=99, message=pb.ChatMessage(role=42), attempts=[attempt])  # type: ignore[arg-type]

    server.handlers["Generate"] = generate
    answer = llm.complete("Hi")
    assert (answer.finish_reason, answer.message.role, answer.attempts[0].error_reason) == (99, 42, 77)


def test_events_without_a_known_kind_are_skipped(server: Any, llm: RemoteLLM) -> None:
    async def pieces(request: Any, context: Any) -> AsyncIterator[pb.StreamGenerateResponse]:
        yield pb.StreamGenerateResponse(started=pb.Started(id="1", llm="l", provider="p", model="m"))
        yield pb.StreamGenerateResponse()
        yield pb.StreamGenerateResponse.FromString(b"\xfa\x01\x02hi")  # field 31, of a newer contract
        yield pb.StreamGenerateResponse(reasoning_delta=pb.ReasoningDelta(text="hm"))
        delta = pb.ToolCallDelta(index=0, id="1", name="f", arguments_fragment="{}")
        yield pb.StreamGenerateResponse(tool_call_delta=delta)
        yield pb.StreamGenerateResponse(finished=pb.Finished(finish_reason=pb.FINISH_REASON_TOOL_CALLS))

    server.handlers["StreamGenerate"] = pieces
    assert list(llm.stream("Hi")) == [
        client.Started("1", "l", "p", "m"),
        client.ReasoningDelta("hm"),
        client.ToolCallDelta(0, "1", "f", "{}"),
        client.Finished(FinishReason.TOOL_CALLS),
    ]


@pytest.mark.parametrize(
    ("arguments", "options", "field"),
    [
        (("\ud800",), {}, "prompt"),
        (("Hi", "\ud800"), {}, "system_prompt"),
        (([{"role": "user", "content": "\ud800"}],), {}, "chat.messages[0].parts[0].text"),
        (([{"role": "robot", "content": "Hi"}],), {}, "chat.messages[0].role"),
        (([{"role": "user"}],), {}, "chat.messages[0]"),
        (([{"role": "user", "content": [5]}],), {}, "chat.messages[0].parts[0]"),
        (([{"role": "user", "content": None}],), {}, "chat.messages[0].parts"),
        ((5,), {}, "prompt"),
        (("Hi", 5), {}, "system_prompt"),
        (("Hi",), {"temperature": "hot"}, "parameters.temperature"),
        (("Hi",), {"temperature": float("nan")}, "parameters.temperature"),
        (("Hi",), {"temperature": True}, "parameters.temperature"),
        (("Hi",), {"max_tokens": 1.5}, "parameters.max_tokens"),
        (("Hi",), {"max_tokens": 2**31}, "parameters.max_tokens"),
        (("Hi",), {"seed": 2**63}, "parameters.seed"),
        (("Hi",), {"stop": ["ok", "\ud800"]}, "parameters.stop[1]"),
        (("Hi",), {"stop": 5}, "parameters.stop"),
        (("Hi",), {"logit_bias": {"a": 1}}, "parameters.logit_bias"),
        (("Hi",), {"reasoning_effort": "huge"}, "parameters.reasoning_effort"),
        (("Hi",), {"response_format": "json"}, "response_format"),
        (("Hi",), {"tools": ["f"]}, "tools[0]"),
        (("Hi",), {"tool_choice": "auto"}, "tool_choice"),
        (("Hi",), {"provider_options": {"a": {1, 2}}}, "provider_options.a"),
        (("Hi",), {"provider_options": {"a": {"b": 2**60}}}, "provider_options.a.b"),
        (("Hi",), {"provider_options": 5}, "provider_options"),
        (("Hi",), {"labels": {"a": 5}}, "labels.a"),
        (("Hi",), {"request_id": 5}, "request_id"),
        (("Hi",), {"parameters_policy": "ignore"}, "parameters_policy"),
        (("Hi",), {"timeout": 0}, "timeout"),
        (("Hi",), {"timeout": float("inf")}, "timeout"),
    ],
)
def test_a_malformed_argument_is_refused_by_name(
    llm: RemoteLLM, arguments: tuple[Any, ...], options: dict[str, Any], field: str
) -> None:
    for call in (llm.generate, llm.complete, llm.stream):
        with pytest.raises(InvalidRequestError) as caught:
            call(*arguments, **options)
        assert caught.value.field == field
        assert field in caught.value.message
    assert llm.generate("Hi") == "Paris"


def test_an_unknown_parameter_is_refused_by_name(llm: RemoteLLM) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        llm.generate("Hi", temprature=1)
    assert caught.value.field == "parameters.temprature"
    with pytest.raises(UnsupportedParameterError):
        RemoteLLM(llm.address, temprature=1)


def test_defaults_of_the_client_hold_for_its_calls_alone(server: Any) -> None:
    server.say()
    with RemoteLLM(server.address, temperature=0.5, seed=3, system_prompt="Be brief.") as llm:
        llm.generate("Hi", seed=4)
        assert server.requests[-1].parameters.temperature == 0.5
        assert server.requests[-1].parameters.seed == 4
        assert server.requests[-1].system_prompt == "Be brief."
        llm.generate("Hi", "Be long.")
        assert server.requests[-1].system_prompt == "Be long."
