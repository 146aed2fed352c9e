"""One conversation with tools, whose turns come from every provider, and which each of them takes to its end."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from abstractllm import (
    AbstractLLMInterface,
    ChatMessage,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    create_llm,
)
from tests.cases.hosted_upstream import Upstream
from tests.cases.local import in_process_engine
from tests.cases.local.scripted_model import let_write, scripted_tokenizer, write_checkpoint
from tests.providers.api_rules import anthropic_faults, mistral_faults, ollama_faults, openai_faults
from tests.providers.fake_http import answering, serving
from tests.unit import chat_templates

TOOLS = [Tool("f", "A tool", '{"type": "object", "properties": {"a": {"type": "integer"}}}'), Tool("g", "Another")]


@dataclass
class Hosted:
    """A hosted LLM, its scripted upstream, and the rules of its API."""

    llm: AbstractLLMInterface
    upstream: Upstream
    faults: Callable[[dict[str, Any]], Any]

    async def answer(self, conversation: list[ChatMessage], **answered: Any) -> ChatMessage:
        """Asks, and checks what went upstream."""
        self.upstream.play([answered])
        completion = await self.llm.complete_async(conversation, tools=TOOLS)
        (request,) = self.upstream.requests
        assert list(self.faults(request["json"])) == []
        return completion.message


async def hosted(stack: AsyncExitStack, provider: str, model: str, faults: Any) -> Hosted:
    upstream = Upstream(provider, [], None, whole=False)
    server = await stack.enter_async_context(serving(upstream.handle))
    path = "/v1" if provider == "openai" else ""
    llm = create_llm(provider, model=model, api_key="sk-1", base_url=server.url + path, max_retries=0)
    return Hosted(await stack.enter_async_context(llm), upstream, faults)


async def write_locally(llm: Any, tokenizer: Any, conversation: list[ChatMessage], text: str) -> ChatMessage:
    """Lets the local model answer a conversation with a text."""
    await llm.load()
    tokens = await llm.count_tokens_async(conversation, tools=TOOLS)
    let_write(in_process_engine.MODELS[llm.config.load_settings().model], tokenizer, tokens, text)
    return (await llm.complete_async(conversation, tools=TOOLS, temperature=0)).message


def calls_of(message: ChatMessage) -> list[ToolCall]:
    return [part for part in message.parts if isinstance(part, ToolCall)]


def results_of(message: ChatMessage, *contents: str, is_error: bool = False) -> ChatMessage:
    pairs = zip(calls_of(message), contents, strict=True)
    return ChatMessage(Role.TOOL, tuple(ToolResult(call.id, content, is_error) for call, content in pairs))


def user(text: str) -> ChatMessage:
    return ChatMessage(Role.USER, (Text(text),))


async def test_a_conversation_goes_on_at_every_provider_whoever_wrote_its_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_process_engine.use(monkeypatch)
    async with AsyncExitStack() as stack:
        await carry_on(stack, tmp_path)


async def carry_on(stack: AsyncExitStack, tmp_path: Path) -> None:
    tokenizer = scripted_tokenizer()
    tokenizer.chat_template = chat_templates.HERMES
    write_checkpoint(tmp_path, tokenizer, window=1536)
    local = await stack.enter_async_context(create_llm("huggingface", model=str(tmp_path)))
    claude = await hosted(stack, "anthropic", "claude-sonnet-5", anthropic_faults)
    gpt = await hosted(stack, "openai", "m", openai_faults)
    mistral = await hosted(stack, "openai", "mistral-large-latest", mistral_faults)
    llama = await hosted(stack, "ollama", "m", ollama_faults)

    talk = [ChatMessage(Role.SYSTEM, (Text("Be brief."),)), user("Ask f.")]
    block = {"type": "tool_use", "id": "toolu_01AbCdEfGhIjKlMnOpQrStUv", "name": "f", "input": {"a": 1}}
    thinking = {"type": "thinking", "thinking": "hm", "signature": "sig"}
    answered = await claude.answer(
        talk, message={"content": [thinking, {"type": "text", "text": " "}, block]}, finish="tool_use"
    )
    talk += [answered, results_of(answered, "", is_error=True)]

    calls = [
        {"id": "call_" + "x" * 35, "type": "function", "function": {"name": "f", "arguments": '{"a": 2}'}},
        {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": '{"city": "Par'}},
    ]
    answered = await gpt.answer(talk, message={"content": None, "tool_calls": calls}, finish="length")
    assert [call.arguments_json for call in calls_of(answered)] == ['{"a": 2}', '{"city": "Par']
    talk += [
        answered,
        *reversed([results_of(ChatMessage(Role.ASSISTANT, (call,)), "ok") for call in calls_of(answered)]),
    ]

    call = {"id": "Ab3dEf6hI", "type": "function", "function": {"name": "g", "arguments": "{}"}}
    answered = await mistral.answer(talk, message={"content": "", "tool_calls": [call]}, finish="tool_calls")
    talk += [answered, results_of(answered, "done"), user("And now?")]

    answered = await llama.answer(
        talk,
        message={"content": "", "thinking": "well", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 3}}}]},
    )
    talk += [answered, user("Never mind the call.")]

    answered = await write_locally(
        local, tokenizer, talk, 'Let me see.\n<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>'
    )
    assert [call.name for call in calls_of(answered)] == ["g"]
    talk += [answered, results_of(answered, "fine")]

    answered = await gpt.answer(talk, message={"content": ""}, finish="content_filter")
    assert answered.parts == ()
    talk += [answered, user("Hello?")]

    down = await stack.enter_async_context(serving(answering({"error": {"message": "down"}}, 503)))
    failing = await stack.enter_async_context(
        create_llm("openai", model="m", api_key="sk-1", base_url=f"{down.url}/v1", max_retries=0)
    )
    both = await stack.enter_async_context(create_llm("fallback", llms=[failing, claude.llm]))
    answered = await Hosted(both, claude.upstream, anthropic_faults).answer(
        talk, message={"content": [{"type": "text", "text": "All done. \n"}]}
    )
    assert answered.text == "All done. \n"
    talk.append(answered)

    for goes_on in ([*talk], [*talk, user("Thanks.")]):
        for last in (gpt, mistral, llama):
            assert (await last.answer(goes_on, message={"content": "ok"})).text == "ok"
        for last in (claude, Hosted(both, claude.upstream, anthropic_faults)):
            assert (await last.answer(goes_on, message={"content": [{"type": "text", "text": "ok"}]})).text == "ok"
        assert (await write_locally(local, tokenizer, goes_on, "ok")).text.strip() == "ok"
