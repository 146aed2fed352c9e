"""Whatever a server answers, its message goes back: in the library, the server, the client, and to every API."""

import asyncio
import json
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abstractllm import ChatMessage, ProviderProtocolError, Role, Text, ToolCall, ToolResult, create_llm
from abstractllm._core.accumulator import AnswerAccumulator
from abstractllm.providers.anthropic.messages import message_body
from abstractllm.providers.huggingface.convert import as_conversation
from abstractllm.providers.ollama import OllamaConfig
from abstractllm.providers.ollama.messages import chat_body
from abstractllm.providers.openai import OpenAIConfig
from abstractllm.providers.openai.messages import as_body
from abstractllm.requests import GenerationRequest, make_request
from abstractllm.types import ReasoningDelta, TextDelta, ToolCallDelta
from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_client import AsyncRemoteLLM, _requests
from abstractllm_client._answers import _message as client_message
from abstractllm_server.convert import requests as server_requests
from abstractllm_server.convert import responses as server_responses
from tests.cases.hosted_upstream import Upstream
from tests.providers.api_rules import anthropic_faults, mistral_faults, ollama_faults, openai_faults
from tests.providers.fake_http import serving
from tests.server.support import serving as serving_llms

USER = ChatMessage(Role.USER, (Text("Go on."),))
TEXTS = st.sampled_from(["", " ", "\n", "Paris.", "Paris. ", "\ud800", "é\U0001f600"])
IDS = st.sampled_from(["c1", "c1", "call_2", "", "functions.f:0", "x" * 70, "é", "abcdefghi"])
NAMES = st.sampled_from(["f", "f", "get weather", "functions.f", "n" * 80])
LONG = json.dumps({"a": "x" * 70_000, "b": 2**53 + 1})
ARGUMENTS = st.sampled_from(
    [
        "{}",
        '{"a": 1}',
        '{"a": "\\ud800"}',
        '{"a": ',
        '{"city": "Par',
        "[1]",
        "7",
        "null",
        '"x"',
        "",
        "no",
        '{"a": NaN}',
        LONG,
    ]
)
OBJECTS = st.sampled_from([{}, {"a": 1}, {"a": "\ud800"}, {"a": [1, {"b": None}]}])


def openai_answers() -> st.SearchStrategy[dict[str, Any]]:
    call = st.builds(
        lambda call_id, name, arguments: {
            "id": call_id,
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        },
        IDS,
        NAMES,
        ARGUMENTS,
    )
    message = st.fixed_dictionaries(
        {"content": st.none() | TEXTS},
        optional={
            "reasoning_content": TEXTS,
            "refusal": TEXTS,
            "tool_calls": st.lists(call, max_size=3),
            "reasoning_details": st.just([{"type": "reasoning.text", "text": "hm", "index": 0}]),
        },
    )
    reasons = ["stop", "length", "tool_calls", "content_filter", "function_call"]
    return st.fixed_dictionaries({"message": message, "finish": st.sampled_from(reasons)})


def anthropic_answers() -> st.SearchStrategy[dict[str, Any]]:
    block = st.one_of(
        st.builds(lambda text: {"type": "text", "text": text}, TEXTS),
        st.builds(lambda text, sign: {"type": "thinking", "thinking": text, "signature": sign}, TEXTS, TEXTS),
        st.just({"type": "redacted_thinking", "data": "abc"}),
        st.builds(
            lambda call_id, name, value: {"type": "tool_use", "id": call_id, "name": name, "input": value},
            IDS,
            NAMES,
            OBJECTS | ARGUMENTS,
        ),
    )
    reasons = ["end_turn", "max_tokens", "tool_use", "refusal", "stop_sequence", "pause_turn"]
    message = st.fixed_dictionaries({"content": st.lists(block, max_size=4)})
    return st.fixed_dictionaries({"message": message, "finish": st.sampled_from(reasons)})


def ollama_answers() -> st.SearchStrategy[dict[str, Any]]:
    call = st.builds(
        lambda call_id, name, arguments: {"id": call_id, "function": {"name": name, "arguments": arguments}},
        IDS,
        NAMES,
        OBJECTS | ARGUMENTS,
    )
    message = st.fixed_dictionaries(
        {"content": TEXTS}, optional={"thinking": TEXTS, "tool_calls": st.lists(call, max_size=3)}
    )
    return st.fixed_dictionaries({"message": message, "finish": st.sampled_from(["stop", "length"])})


ANSWERS = {"openai": openai_answers(), "anthropic": anthropic_answers(), "ollama": ollama_answers()}


@pytest.mark.parametrize("way", ["unary", "streamed"])
@pytest.mark.parametrize("provider", ANSWERS)
def test_the_message_of_any_answer_is_taken_back_everywhere(provider, way):
    upstream = Upstream(provider, [], None, whole=False)
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def start() -> Any:
            server = await stack.enter_async_context(serving(upstream.handle))
            llm = create_llm(provider, model="m", api_key="sk-1", base_url=server.url, max_retries=0)
            return await stack.enter_async_context(llm)

        async def answer() -> ChatMessage:
            if way == "unary":
                return (await llm.complete_async("Hi")).message
            *_, finished = [event async for event in llm.stream_async("Hi")]
            return finished.message

        llm = runner.run(start())

        @settings(max_examples=80, deadline=None)
        @given(ANSWERS[provider])
        def message_goes_back(answered: dict[str, Any]) -> None:
            upstream.play([answered])
            with suppress(ProviderProtocolError):  # the server's fault, told as one
                check_goes_back(runner.run(answer()))

        try:
            message_goes_back()
        finally:
            runner.run(stack.aclose())


EVENTS = st.lists(
    st.one_of(
        st.builds(TextDelta, TEXTS),
        st.builds(ReasoningDelta, TEXTS),
        st.builds(ToolCallDelta, st.integers(0, 1), IDS.filter(bool), NAMES, ARGUMENTS),
    ),
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_the_message_of_any_events_of_a_local_model_is_taken_back_everywhere(events):
    answer = AnswerAccumulator()
    for event in events:
        if isinstance(event, TextDelta | ReasoningDelta):
            event = type(event)(event.text.replace("\ud800", "?"))
        answer.add(event)
    check_goes_back(answer.message())


def check_goes_back(message: ChatMessage) -> None:
    """Checks the next requests with an answer's message: with results of its calls, without, and to be continued."""
    results = [ToolResult(part.id, "42") for part in message.parts if isinstance(part, ToolCall)]
    answered = [ChatMessage(Role.TOOL, tuple(results))] if results else []
    for conversation in ([USER, message, *answered, USER], [USER, message, USER], [USER, message]):
        request = make_request(conversation)
        assert through_server_and_client(message, conversation) == request.messages
        for body, faults in bodies(request):
            assert list(faults(body)) == [], body


def through_server_and_client(message: ChatMessage, conversation: list[ChatMessage]) -> tuple[ChatMessage, ...]:
    """Returns a conversation as it comes to the server, after the answer in it went to the client."""
    sent = server_responses._chat_message(message)
    received = client_message(pb.ChatMessage.FromString(sent.SerializeToString()))
    others = [client_message(server_responses._chat_message(other)) for other in conversation]
    place = conversation.index(message)
    request = _requests.generate_request("", [*others[:place], received, *others[place + 1 :]], None, {})
    return server_requests.generation_request(
        pb.GenerateRequest.FromString(request.SerializeToString()), timeout=None
    ).messages


def bodies(request: GenerationRequest) -> Any:
    """Yields what goes upstream at each API, and the rules of that API."""

    def asking(model: str) -> GenerationRequest:
        return make_request(request.messages, model=model)

    yield as_body(asking("gpt-4o"), OpenAIConfig()), openai_faults
    mistral = OpenAIConfig.parse({"base_url": "https://api.mistral.ai/v1", "model": "mistral-large-latest"})
    yield as_body(asking("mistral-large-latest"), mistral), mistral_faults
    yield message_body(asking("claude-sonnet-5")), anthropic_faults
    yield chat_body(asking("llama3.2"), OllamaConfig()), ollama_faults
    yield as_conversation(request), local_faults


def local_faults(conversation: Any) -> Any:
    """Yields what a chat template cannot be given."""
    for turn in conversation.turns:
        for call in turn.calls:
            if not isinstance(json.loads(call.arguments), dict):
                yield f"the arguments of {call}"


CUT = {
    "openai": {
        "message": {"tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": '{"city": "Par'}}]},
        "finish": "length",
    },
    "anthropic": {
        "message": {"content": [{"type": "tool_use", "id": "c1", "name": "f", "input": '{"city": "Par'}]},
        "finish": "max_tokens",
    },
    "ollama": {
        "message": {"content": "", "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": {}}}]},
        "finish": "length",
    },
}
NOTHING = {
    "openai": {"message": {"content": None}, "finish": "content_filter"},
    "anthropic": {"message": {"content": []}, "finish": "refusal"},
    "ollama": {"message": {"content": "", "thinking": "hm"}, "finish": "length"},
}


@pytest.mark.parametrize("answers", [CUT, NOTHING], ids=["a cut call", "nothing"])
@pytest.mark.parametrize("provider", ANSWERS)
async def test_a_client_sends_an_answer_back_as_it_came(provider, answers):
    upstream = Upstream(provider, [answers[provider]] * 4, None, whole=False)
    async with serving(upstream.handle) as server:
        llm = create_llm(provider, model="m", api_key="sk-1", base_url=server.url, max_retries=0)
        async with serving_llms({"hosted": llm}) as served, AsyncRemoteLLM(served.server.address) as remote:
            talk = [{"role": "user", "content": "Hi"}]
            talk.append((await remote.complete(talk)).message)
            *_, finished = [event async for event in remote.stream([*talk, {"role": "user", "content": "Go on."}])]
            again = [*talk, {"role": "user", "content": "Go on."}, finished.message]
            assert (await remote.complete([*again, {"role": "user", "content": "Go on."}])).message.role == "assistant"
            assert (await remote.complete(again)).message.role == "assistant"
