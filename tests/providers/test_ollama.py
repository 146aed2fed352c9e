"""The ollama provider through the real SDK over real sockets: what is asked, and what becomes of the answer."""

import asyncio
import base64
import json
import subprocess
import sys

import pytest

from abstractllm import (
    CachedModel,
    ChatMessage,
    ConfigurationError,
    FinishReason,
    GrammarFormat,
    Image,
    InvalidRequestError,
    JsonObjectFormat,
    JsonSchemaFormat,
    ModelNotFoundError,
    ProviderUnavailableError,
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
from abstractllm.providers.ollama import provider as provider_module
from abstractllm.providers.ollama.config import DEFAULT_MODEL, host_url
from abstractllm_client import AsyncRemoteLLM
from tests.providers.fake_http import answering, in_turn
from tests.providers.ollama_server import MODEL, answer, asking, chats, done, line, says, shown
from tests.server.support import serving as serving_grpc

NESTED = {
    "type": "object",
    "properties": {
        "place": {"type": "object", "properties": {"city": {"$ref": "#/$defs/city"}}, "required": ["city"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
    },
    "$defs": {"city": {"type": "string", "pattern": "^[A-Z]"}},
    "additionalProperties": False,
}
WEATHER = Tool("weather", "Tells the weather", json.dumps(NESTED))
PIXEL = b"\x89PNG\r\n\x1a\n not really"
USER = ChatMessage(Role.USER, (Text("Hi"),))


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    """Hides Ollama's variables of this machine."""
    for name in ("OLLAMA_HOST", "OLLAMA_BASE_URL", "OLLAMA_API_KEY"):
        monkeypatch.delenv(name, raising=False)


async def request_body(prompt="Hi", lines=None, config=None, **options):
    """The body that a request becomes on the wire."""
    async with asking(says(lines or answer("ok")), **(config or {})) as (llm, server):
        await llm.complete_async(prompt, **options)
        return chats(server)[-1].json


async def answered(*lines, **options):
    """The answer that these lines become."""
    async with asking(says(lines)) as (llm, _):
        return await llm.complete_async("Hi", **options)


async def test_a_prompt_becomes_a_streamed_request_and_the_answer_is_its_lines_folded():
    async with asking(says(answer("Hel", "lo ", "wörld"))) as (llm, server):
        completion = await llm.complete_async("Say hello", "Be brief")
        events = [event async for event in llm.stream_async("Say hello")]
        assert server.connections == 1
    assert [request.path for request in server.requests] == ["/api/show", "/api/chat", "/api/chat"]
    assert chats(server)[0].json == {
        "model": "llama3.2",
        "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Say hello"}],
        "stream": True,
        "truncate": False,
        "shift": False,
    }
    assert "authorization" not in server.requests[0].headers
    assert (completion.text, completion.finish_reason, completion.stop_sequence) == (
        "Hello wörld",
        FinishReason.STOP,
        "",
    )
    assert completion.usage == Usage(input_tokens=26, output_tokens=4)
    assert (completion.provider, completion.model, completion.timing.queued is not None) == ("ollama", MODEL, True)
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Hel", "lo ", "wörld"]


async def test_every_parameter_and_option_is_sent_where_the_api_looks_for_it():
    body = await request_body(
        lines=[line("ok", logprobs=[{"token": "ok", "logprob": -0.1}]), done()],
        config={"keep_alive": "10m", "provider_options": {"num_ctx": 8192}},
        temperature=0.0,
        top_p=0.5,
        top_k=40,
        min_p=0.05,
        max_tokens=9,
        seed=7,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        repetition_penalty=1.1,
        stop=["END", "."],
        top_logprobs=3,
        reasoning_effort="high",
        provider_options={"repeat_last_n": 64, "typical_p": 0.7},
    )
    assert body["options"] == {
        "temperature": 0.0,
        "top_p": 0.5,
        "top_k": 40,
        "min_p": 0.05,
        "num_predict": 9,
        "seed": 7,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "repeat_penalty": 1.1,
        "stop": ["END", "."],
        "num_ctx": 8192,
        "repeat_last_n": 64,
        "typical_p": 0.7,
    }
    assert (body["logprobs"], body["top_logprobs"], body["think"], body["keep_alive"]) == (True, 3, "high", 600.0)


async def test_what_a_request_sets_by_ollamas_own_name_comes_before_what_stands_for_it():
    body = await request_body(config={"keep_alive": 60}, provider_options={"keep_alive": -1, "think": True})
    assert (body["keep_alive"], body["think"]) == (-1, True)
    assert "options" not in body


@pytest.mark.parametrize(
    ("effort", "think"), [("none", False), ("low", "low"), ("medium", "medium"), ("high", "high"), ("xhigh", "max")]
)
async def test_a_reasoning_effort_becomes_a_level_of_thinking(effort, think):
    assert (await request_body(reasoning_effort=effort))["think"] == think


@pytest.mark.parametrize(
    ("options", "error", "field"),
    [
        ({"reasoning_effort": "minimal"}, UnsupportedParameterError, "parameters.reasoning_effort"),
        ({"logit_bias": {1: 1.0}}, UnsupportedParameterError, "parameters.logit_bias"),
        ({"provider_options": {"num_gpus": 1}}, UnsupportedParameterError, "provider_options.num_gpus"),
        ({"provider_options": {"num_ctx": "big"}}, InvalidRequestError, "provider_options.num_ctx"),
        ({"provider_options": {"num_ctx": True}}, InvalidRequestError, "provider_options.num_ctx"),
        ({"provider_options": {"think": 1}}, InvalidRequestError, "provider_options.think"),
        ({"tools": [WEATHER], "tool_choice": ToolChoice(name="weather")}, UnsupportedFeatureError, "tool_choice.name"),
        (
            {"tools": [WEATHER], "tool_choice": ToolChoice(ToolChoiceMode.REQUIRED)},
            UnsupportedFeatureError,
            "tool_choice.mode",
        ),
        ({"response_format": GrammarFormat("start: /a/")}, UnsupportedFeatureError, "response_format.grammar"),
    ],
)
async def test_what_the_api_cannot_honour_is_refused_by_name_before_anything_is_generated(options, error, field):
    async with asking(says(answer("ok"))) as (llm, server):
        with pytest.raises(error) as caught:
            await llm.complete_async("Hi", **options)
        assert caught.value.field == field
        assert chats(server) == []


@pytest.mark.parametrize(
    ("ability", "options", "error"),
    [
        ("tools", {"tools": [WEATHER]}, UnsupportedFeatureError),
        ("thinking", {"reasoning_effort": "low"}, UnsupportedParameterError),
        ("thinking", {"provider_options": {"think": True}}, UnsupportedParameterError),
        ("vision", {"prompt": [ChatMessage(Role.USER, (Image(PIXEL, "image/png"),))]}, UnsupportedFeatureError),
    ],
)
async def test_what_the_model_cannot_do_is_refused_by_what_the_server_tells_of_it(ability, options, error):
    abilities = {"completion", "tools", "vision", "thinking"} - {ability}
    async with asking(says(answer("ok"), show=shown(abilities))) as (llm, server):
        with pytest.raises(error):
            await llm.complete_async(**({"prompt": "Hi"} | options))
        assert chats(server) == []


async def test_a_conversation_with_images_tools_and_results_keeps_its_order():
    body = await request_body(
        [
            ChatMessage(Role.USER, (Text("What is "), Text("this?"), Image(PIXEL, "image/png"))),
            ChatMessage(Role.ASSISTANT, (Reasoning("hm"), ToolCall("c1", "look", '{"at": "it"}'))),
            ChatMessage(Role.TOOL, (ToolResult("c1", "a cat"), ToolResult("c9", "boom", is_error=True))),
            USER,
        ],
        tools=[WEATHER],
    )
    assert body["messages"] == [
        {"role": "user", "content": "What is this?", "images": [base64.b64encode(PIXEL).decode()]},
        {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [{"id": "c1", "function": {"name": "look", "arguments": {"at": "it"}}}],
        },
        {"role": "tool", "content": "a cat", "tool_call_id": "c1", "tool_name": "look"},
        {"role": "tool", "content": "Error: boom", "tool_call_id": "c9"},
        {"role": "user", "content": "Hi"},
    ]


async def test_the_schema_of_a_tool_arrives_whole():
    body = await request_body(tools=[WEATHER])
    function = {"name": "weather", "description": "Tells the weather", "parameters": NESTED}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert "tools" not in await request_body(tools=[WEATHER], tool_choice=ToolChoice(ToolChoiceMode.NONE))


async def test_both_json_formats_are_sent():
    assert (await request_body(response_format=JsonObjectFormat()))["format"] == "json"
    assert (await request_body(response_format=JsonSchemaFormat('{"type": "object"}')))["format"] == {"type": "object"}


async def test_tool_calls_come_whole_with_an_id_in_any_case():
    calls = [
        {"id": "call_1", "function": {"index": 0, "name": "weather", "arguments": {"city": "Zürich"}}},
        {"function": {"name": "f", "arguments": {}}},
    ]
    async with asking(says([line("Let me see"), line(tool_calls=calls[:1]), line(tool_calls=calls[1:]), done()])) as (
        llm,
        _,
    ):
        events = [event async for event in llm.stream_async("Hi", tools=[WEATHER])]
    first, second = (event for event in events if isinstance(event, ToolCallDelta))
    assert first == ToolCallDelta(0, "call_1", "weather", '{"city": "Zürich"}')
    assert (second.index, second.name, second.arguments_fragment) == (1, "f", "{}")
    assert second.id.startswith("call_")
    assert events[-1].finish_reason is FinishReason.TOOL_CALLS
    assert [type(part) for part in events[-1].message.parts] == [Text, ToolCall, ToolCall]


async def test_thinking_is_kept_apart_from_the_text():
    async with asking(says([line(thinking="hm "), line(thinking="hm"), *answer("4")])) as (llm, _):
        events = [event async for event in llm.stream_async("2+2?")]
    assert [event.text for event in events if isinstance(event, ReasoningDelta)] == ["hm ", "hm"]
    assert events[-1].message.parts == (Reasoning("hm hm"), Text("4"))


async def test_log_probabilities_come_with_the_text_they_belong_to():
    token = {"token": "é", "bytes": [195, 169], "logprob": -0.5}
    logprobs = [token | {"top_logprobs": [token, {"token": "e", "logprob": -1.5}]}]
    completion = await answered(line("é", logprobs=logprobs), done(), top_logprobs=2)
    same = (-1, "é", "é".encode(), -0.5)
    assert completion.logprobs == (TokenLogprob(*same, (TopLogprob(*same), TopLogprob(-1, "e", b"e", -1.5))),)


async def test_log_probabilities_that_an_old_server_does_not_give_are_an_error():
    with pytest.raises(UnsupportedParameterError, match="gives no log-probabilities"):
        await answered(*answer("é"), top_logprobs=2)


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        ("stop", FinishReason.STOP),
        ("length", FinishReason.MAX_TOKENS),
        (None, FinishReason.STOP),
    ],
)
async def test_each_finish_reason_of_the_wire_has_one_of_ours(wire, reason):
    assert (await answered(line("a"), done(wire))).finish_reason is reason


async def test_numbers_that_the_server_does_not_tell_stay_unset():
    last = json.dumps({"model": MODEL, "message": {"role": "assistant", "content": "a"}, "done": True})
    completion = await answered(last + "\n")
    assert (completion.text, completion.usage) == ("a", Usage())


async def test_capabilities_come_from_the_server_and_are_believed_for_a_while(monkeypatch):
    show = in_turn(
        answering(shown(("completion",), 8192, 'stop "x"\nnum_ctx                        4096')),
        answering(shown(("completion", "tools"), 8192)),
        answering(shown(None)),
    )
    async with asking(says(answer("ok"), show=show)) as (llm, server):
        capabilities = await llm.get_capabilities_async()
        assert (capabilities["context_window"], capabilities["quantization"], capabilities["max_output_tokens"]) == (
            4096,
            "Q4_K_M",
            None,
        )
        assert (
            not capabilities["tools"]
            and not capabilities["image_input"]
            and capabilities["json_schema"]
            and capabilities["seed"]
        )
        assert "reasoning_effort" not in capabilities["parameters"] and "think" not in capabilities["provider_options"]
        assert await llm.get_capabilities_async() == capabilities
        assert len(server.requests) == 1
        monkeypatch.setattr(provider_module, "FACTS_LIFE", 0.0)
        assert (await llm.get_capabilities_async())["tools"]
        llm.set_config({"provider_options": {"num_ctx": 2048}})
        old = await llm.get_capabilities_async()
        assert old["tools"] and old["image_input"] and old["context_window"] == 2048


async def test_a_model_that_the_server_does_not_have_is_not_found():
    missing = answering({"error": "model 'llama3.2' not found"}, 404)
    async with asking(says(answer("ok"), show=missing)) as (llm, server):
        for ask in (llm.get_capabilities_async, lambda: llm.complete_async("Hi")):
            with pytest.raises(ModelNotFoundError, match="not found"):
                await ask()
        assert chats(server) == []


async def test_a_server_that_cannot_tell_about_its_models_just_now_is_asked_to_answer_all_the_same():
    busy = answering({"error": "oops"}, 503)
    async with asking(says(answer("ok"), show=busy)) as (llm, _):
        assert (await llm.complete_async("Hi", reasoning_effort="low")).text == "ok"
        with pytest.raises(ProviderUnavailableError):
            await llm.get_capabilities_async()


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_server_without_descriptions_of_models_has_unknown_capabilities_and_is_asked_for_them_once(status):
    missing = answering({"error": "no such route"}, status)
    async with asking(says(answer("ok"), show=missing)) as (llm, server):
        capabilities = await llm.get_capabilities_async()
        assert capabilities["tools"] and capabilities["image_input"] and capabilities["context_window"] is None
        assert (await llm.complete_async("Hi")).text == "ok"
        assert [request.path for request in server.requests] == ["/api/show", "/api/chat"]


async def test_the_models_of_the_server_are_listed_by_name():
    async with asking(says(answer("ok"))) as (llm, _):
        assert await llm.cached_models() == [
            CachedModel(
                "llama3.2:latest", ("beef",), 2_000_000_000, last_modified_time=1793523600.0, used_by=("ollama",)
            ),
            CachedModel("qwen3:8b", ("cafe",), 5_200_000_000, last_modified_time=1793523600.0),
        ]


async def test_tokens_are_not_counted_because_the_api_cannot():
    async with asking(says(answer("ok"))) as (llm, _):
        with pytest.raises(UnsupportedFeatureError, match="cannot count"):
            await llm.count_tokens_async("Hi")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:5000", "http://127.0.0.1:5000"),
        (":5000", "http://127.0.0.1:5000"),
        ("example.com", "http://example.com:11434"),
        ("example.com:80/ollama/", "http://example.com:80/ollama"),
        ("http://example.com", "http://example.com"),
        ("https://example.com:8443/x/", "https://example.com:8443/x"),
        ("[::1]", "http://[::1]:11434"),
        ("http://[::]:5000", "http://127.0.0.1:5000"),
        (" 1.2.3.4 ", "http://1.2.3.4:11434"),
    ],
)
def test_what_ollama_host_may_hold_becomes_an_address(host, url):
    assert host_url(host) == url


@pytest.mark.parametrize("host", ["http://user:secret@example.com", "example.com:port", "ftp://example.com", "http://"])
def test_a_host_that_is_no_address_is_refused_without_being_repeated(monkeypatch, host):
    monkeypatch.setenv("OLLAMA_HOST", host)
    if host == "http://":
        assert create_llm("ollama").get_config()["base_url"] == "http://127.0.0.1"
        return
    with pytest.raises(ConfigurationError) as caught:
        create_llm("ollama")
    assert caught.value.field == "base_url"
    assert "secret" not in str(caught.value)


async def test_the_address_and_the_key_come_from_ollamas_variables_unless_an_address_is_set(monkeypatch):
    assert create_llm("ollama").get_config().get("base_url") is None
    monkeypatch.setenv("OLLAMA_API_KEY", "key-env")
    monkeypatch.setenv("OLLAMA_BASE_URL", "http://second.example:1")
    assert create_llm("ollama").get_config()["base_url"] == "http://second.example:1"
    async with asking(says(answer("ok"))) as (llm, server):
        await llm.complete_async("Hi")
        assert not any("authorization" in request.headers for request in server.requests)
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        async with create_llm("ollama") as other:
            assert (await other.complete_async("Hi")).text == "ok"
            assert "key-env" not in repr(other) + str(other.get_config())
        assert server.requests[-1].headers["authorization"] == "Bearer key-env"


async def test_the_default_model_is_asked_where_none_is_set():
    assert (await request_body())["model"] == DEFAULT_MODEL


async def test_the_synchronous_methods_work_too():
    async with asking(says(answer("Hel", "lo"))) as (llm, _):
        assert await asyncio.to_thread(llm.generate, "Hi") == "Hello"
        assert await asyncio.to_thread(lambda: list(llm.generate("Hi", stream=True))) == ["Hel", "lo"]
        assert await llm.generate_async("Hi") == "Hello"


def test_the_sdk_is_not_imported_before_it_is_needed():
    code = (
        "import sys; from abstractllm import create_llm; create_llm('ollama').close();"
        "assert not {'ollama', 'httpx2', 'httpx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


async def test_it_answers_through_our_server():
    lines = [line(thinking="hm"), line("Hel"), line("lo"), done()]
    async with (
        asking(says(lines)) as (llm, upstream),
        serving_grpc({"local": llm}) as served,
        AsyncRemoteLLM(served.server.address, "local") as remote,
    ):
        completion = await remote.complete("Hi", "Be brief", max_tokens=5)
        assert (completion.text, completion.reasoning, completion.llm, completion.provider) == (
            "Hello",
            "hm",
            "local",
            "ollama",
        )
        assert [piece async for piece in await remote.generate("Hi", stream=True)] == ["Hel", "lo"]
        assert (await remote.get_capabilities())["context_window"] == 131072
    assert chats(upstream)[0].json["options"] == {"num_predict": 5}
