"""The rules of servers that speak OpenAI's format: each host's own conversations."""

import pytest

from abstractllm import ChatMessage, Reasoning, Role, Text, Tool, ToolCall, ToolResult
from abstractllm.providers.openai import OpenAIConfig
from abstractllm.providers.openai.dialect import dialect_of
from abstractllm.providers.openai.messages import as_body
from abstractllm.requests import make_request

FOREIGN = [
    ChatMessage(Role.USER, (Text("Hi"),)),
    ChatMessage(
        Role.ASSISTANT,
        (
            Reasoning("hm", b'anthropic:{"type":"thinking","signature":"s"}'),
            ToolCall("toolu_01" + "x" * 40, "f", "{}"),
            ToolCall("toolu_02", "f", "{}"),
        ),
    ),
    ChatMessage(Role.TOOL, (ToolResult("toolu_01" + "x" * 40, "1"), ToolResult("toolu_02", "2"))),
    ChatMessage(Role.ASSISTANT, (Text("It is 1."),)),
    ChatMessage(Role.USER, (Text("And?"),)),
]
"""A conversation that another provider has begun."""


def messages_at(base_url, conversation=FOREIGN, model="m", **options):
    config = OpenAIConfig.parse({"base_url": base_url, "model": model})
    return as_body(make_request(conversation, model=model, **options), config)["messages"]


@pytest.mark.parametrize(
    ("base_url", "reasoning"),
    [
        ("https://api.deepseek.com", ""),
        ("https://api.deepseek.com/v1", ""),
        ("https://api.xiaomimimo.com/v1", ""),
        ("https://api.moonshot.ai/v1", " "),
        ("https://api.moonshot.cn/v1", " "),
        ("https://api.openai.com/v1", None),
        ("http://127.0.0.1:8000/v1", None),
        ("https://deepseek.com.example.org/v1", None),
    ],
)
def test_answers_of_others_get_the_reasoning_that_a_server_insists_on(base_url, reasoning):
    for message in messages_at(base_url):
        if message["role"] == "assistant":
            assert message.get("reasoning_content") == reasoning


def test_without_tools_no_reasoning_is_made_up():
    talk = [FOREIGN[0], FOREIGN[3], FOREIGN[4]]
    assert "reasoning_content" not in messages_at("https://api.deepseek.com", talk)[1]
    assert messages_at("https://api.deepseek.com", talk, tools=[Tool("f")])[1]["reasoning_content"] == ""


@pytest.mark.parametrize(
    ("base_url", "vendors"),
    [
        ("https://generativelanguage.googleapis.com/v1beta/openai", {"google"}),
        (
            "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l/endpoints/openapi",
            {"google", "vertex"},
        ),
        ("https://api.openai.com/v1", None),
    ],
)
def test_the_first_of_anothers_calls_gets_the_signature_that_google_documents(base_url, vendors):
    first, second = messages_at(base_url)[1]["tool_calls"]
    signature = {"thought_signature": "skip_thought_signature_validator"}
    expected = None if vendors is None else dict.fromkeys(sorted(vendors), signature)
    assert (first.get("extra_content"), second.get("extra_content")) == (expected, None)


@pytest.mark.parametrize(
    ("base_url", "model", "length"),
    [
        ("https://api.openai.com/v1", "gpt-4o", 24),
        ("https://name.openai.azure.com/openai/v1", "gpt-4o", 24),
        ("https://api.mistral.ai/v1", "any", 9),
        ("http://127.0.0.1:8000/v1", "mistralai/Devstral-Small-2507", 9),
        ("https://openrouter.ai/api/v1", "mistralai/mixtral-8x7b", 9),
        ("http://127.0.0.1:8000/v1", "Qwen/Qwen3-8B", 48),
    ],
)
def test_the_form_of_ids_is_the_servers_or_the_models(base_url, model, length):
    messages = messages_at(base_url, model=model)
    calls = messages[1]["tool_calls"]
    assert len(calls[0]["id"]) == length
    assert [message["tool_call_id"] for message in messages if message["role"] == "tool"] == [c["id"] for c in calls]


def test_a_servers_own_long_ids_come_back_unchanged():
    """Some gateways keep a signature in them."""
    assert (
        dialect_of("http://127.0.0.1:4000", "m").call_ids.fitting("call_1__thought__" + "A+/=" * 200).endswith("A+/=")
    )
