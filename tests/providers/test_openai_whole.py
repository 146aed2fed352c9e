"""Answers of the openai provider that come in one piece, through the real SDK over real sockets."""

import pytest

from abstractllm import (
    AbstractLLMError,
    ErrorReason,
    FinishReason,
    Reasoning,
    Text,
    TextDelta,
    TokenLogprob,
    ToolCall,
    Usage,
)
from tests.providers.fake_http import answering
from tests.providers.openai_server import USAGE, asking, raw


def whole(message, finish="stop", **choice):
    """A whole answer with one choice."""
    choices = [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, **choice}]
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": "m", "choices": choices, "usage": USAGE}


async def answered(body):
    """The answer that the body becomes."""
    async with asking(answering(body), max_retries=0) as (llm, _):
        return await llm.complete_async("Hi")


async def test_a_whole_answer_has_its_text_usage_and_log_probabilities():
    token = {"token": "Hi", "bytes": [72, 105], "logprob": -0.5, "top_logprobs": []}
    answer = await answered(whole({"content": "Hi", "refusal": None}, logprobs={"content": [token]}))
    assert (answer.text, answer.finish_reason) == ("Hi", FinishReason.STOP)
    assert answer.usage == Usage(input_tokens=11, output_tokens=7, cached_input_tokens=4, reasoning_tokens=3)
    assert answer.logprobs == (TokenLogprob(-1, "Hi", b"Hi", -0.5, ()),)


async def test_reasoning_refusal_and_limits_are_told_apart():
    answer = await answered(whole({"reasoning_content": "Hm.", "content": "Yes"}, finish="length"))
    reasoning, text = answer.message.parts
    assert isinstance(reasoning, Reasoning)
    assert (reasoning.text, text) == ("Hm.", Text("Yes"))
    assert answer.finish_reason is FinishReason.MAX_TOKENS
    answer = await answered(whole({"content": None, "refusal": "No."}))
    assert (answer.text, answer.finish_reason) == ("No.", FinishReason.REFUSAL)


@pytest.mark.parametrize("ids", [("a", "b"), (None, None)], ids=["with ids", "without ids"])
async def test_calls_are_told_apart_by_their_place(ids):
    calls = [
        {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}
        for identity, name, arguments in zip(ids, ("f", "f"), ('{"x": 1}', '{"x": 2}'), strict=True)
    ]
    answer = await answered(whole({"content": None, "tool_calls": calls}, finish="tool_calls"))
    tool_calls = [part for part in answer.message.parts if isinstance(part, ToolCall)]
    assert [(call.name, call.arguments_json) for call in tool_calls] == [("f", '{"x": 1}'), ("f", '{"x": 2}')]
    assert len({call.id for call in tool_calls}) == 2 and all(call.id for call in tool_calls)
    assert answer.finish_reason is FinishReason.TOOL_CALLS


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"error": {"message": "out of capacity", "code": 503}}, ErrorReason.PROVIDER_UNAVAILABLE),
        ({"error": "out of capacity"}, ErrorReason.PROVIDER_UNAVAILABLE),
        (whole({"content": "Hi"}) | {"choices": []}, ErrorReason.PROVIDER_PROTOCOL),
        ({"choices": [{"index": 0, "message": "Hi", "finish_reason": "stop"}]}, ErrorReason.PROVIDER_PROTOCOL),
        ({"choices": "none"}, ErrorReason.PROVIDER_PROTOCOL),
        ([1, 2], ErrorReason.PROVIDER_PROTOCOL),
        (whole({"content": 5}), ErrorReason.PROVIDER_PROTOCOL),
        (whole({"content": "Hi"}, finish=None), ErrorReason.INCOMPLETE_STREAM),
        (whole({"content": "Hi"}, finish="surprise"), ErrorReason.INCOMPLETE_STREAM),
    ],
    ids=["error", "bare error", "no choice", "text message", "text choices", "list", "number", "no end", "odd end"],
)
async def test_what_is_no_answer_is_one_error(body, reason):
    with pytest.raises(AbstractLLMError) as caught:
        await answered(body)
    assert caught.value.reason is reason


@pytest.mark.parametrize("body", [b'{"choices": [{"ind', b"", b"\xff\xfe{}", b"[" * 100_000], ids=range(4))
async def test_a_body_that_is_no_json_is_a_protocol_error(body):
    async with asking(raw(body, **{"content-type": "application/json"}), max_retries=0) as (llm, _):
        with pytest.raises(AbstractLLMError) as caught:
            await llm.complete_async("Hi")
    assert caught.value.reason is ErrorReason.PROVIDER_PROTOCOL


async def test_a_server_that_gives_a_stream_s_reader_one_piece_is_understood():
    async with asking(answering(whole({"content": "Hello"}))) as (llm, _):
        events = [event async for event in llm.stream_async("Hi")]
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Hello"]
