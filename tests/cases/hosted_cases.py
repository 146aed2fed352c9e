"""Running the hosted cases: their requests are made, and what came of them is compared with what they expect."""

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from abstractllm import (
    AbstractLLMError,
    ChatMessage,
    Finished,
    Image,
    JsonObjectFormat,
    JsonSchemaFormat,
    Reasoning,
    ReasoningDelta,
    ReasoningEffort,
    Role,
    Text,
    TextDelta,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
    ToolResult,
    create_llm,
)
from abstractllm._core.accumulator import AnswerAccumulator
from tests.cases.hosted_upstream import Upstream
from tests.interop.matching import differences
from tests.providers.fake_http import serving

CASES = Path(__file__).parent / "hosted"
WAYS = ("unary", "streamed")
_KEYS = {"name", "report", "provider", "config", "environment", "ways", "forms", "request", "upstream", "show"} | {
    "expect",
    "turns",
}
_EXPECTED = {"text", "reasoning", "tool_calls", "finish_reason", "stop_sequence", "usage", "error", "requests"}
_PATHS = {"openai": "/v1", "anthropic": "", "ollama": ""}
_MODELS = {"openai": "m", "anthropic": "claude-sonnet-5", "ollama": "m"}
_VARIABLES = ("OPENAI_", "ANTHROPIC_", "OLLAMA_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_")
_TOOLS = {
    name: Tool(name, "A tool", '{"type": "object", "properties": {"a": {"type": "integer"}}}') for name in ("f", "g")
}


def load_cases() -> Iterator[tuple[str, dict[str, Any], str, str]]:
    """Yields an id, a case, a way to ask and a form of the answer, for every combination that a case is run in."""
    for path in sorted(CASES.glob("*.yaml")):
        for case in yaml.safe_load(path.read_text(encoding="utf-8")):
            if unknown := set(case) - _KEYS:
                raise ValueError(f"{path.name}, {case.get('name')!r}: unknown keys {sorted(unknown)}")
            for way in case.get("ways", WAYS):
                for form in case.get("forms", _forms(case)):
                    yield f"{path.stem}: {case['name']}, {way}{', whole' * (form == 'whole')}", case, way, form


def _forms(case: dict[str, Any]) -> tuple[str, ...]:
    """Returns the forms of an answer: one that is given as a message comes streamed, and whole where that is read."""
    is_message = any("message" in answer for answer in case["upstream"])
    return ("stream", "whole") if is_message and case["provider"] != "anthropic" else ("stream",)


async def run_case(case: dict[str, Any], way: str, form: str) -> list[str]:
    """Runs a case in one way; returns a line for everything that is not as it expects."""
    provider = case["provider"]
    upstream = Upstream(provider, case["upstream"], case.get("show"), whole=form == "whole")
    turns = case.get("turns") or [{"request": case.get("request", {}), "expect": case["expect"]}]
    faults: list[str] = []
    async with serving(upstream.handle) as server:
        with mock.patch.dict(os.environ, _environment(case.get("environment", {}), server.url), clear=True):
            config = {
                "model": _MODELS[provider],
                "api_key": "sk-case-0123456789",
                "base_url": server.url + _PATHS[provider],
                "max_retries": 0,
                "timeout": 15,
            } | _filled(case.get("config", {}), server.url)
            conversation: list[ChatMessage] = []
            async with create_llm(
                provider, **{name: value for name, value in config.items() if value is not None}
            ) as llm:
                for number, turn in enumerate(turns, 1):
                    observed, message = await _ask(llm, way, conversation, turn.get("request", {}))
                    if message is not None:
                        conversation.append(message)
                    place = f"turn {number}" if len(turns) > 1 else "answer"
                    faults += _compare(observed, turn.get("expect", {}), place)
            expected = case.get("expect", {}).get("requests")
    faults += _compare_requests(upstream, expected)
    return faults


def _environment(variables: dict[str, str], url: str) -> dict[str, str]:
    """Returns this process's environment without what an SDK or HTTP client reads, and with a case's own variables."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(_VARIABLES)}
    return kept | _filled(variables, url)


def _filled(values: Any, url: str) -> Any:
    """Puts the upstream's address where a case says `{url}`."""
    match values:
        case str():
            return values.replace("{url}", url)
        case dict():
            return {name: _filled(value, url) for name, value in values.items()}
        case list():
            return [_filled(value, url) for value in values]
    return values


async def _ask(
    llm: Any, way: str, conversation: list[ChatMessage], request: dict[str, Any]
) -> tuple[dict[str, Any], ChatMessage | None]:
    """Makes a request, in the conversation so far; returns what came of it, and the answer's message."""
    options = dict(request)
    prompt = options.pop("prompt", None)
    conversation += [_message(message) for message in options.pop("messages", [])]
    if prompt is None and not conversation:
        prompt = "Hi"
    if prompt is not None:
        conversation.append(ChatMessage(Role.USER, (Text(prompt),)))
    try:
        return await (_unary if way == "unary" else _streamed)(llm, list(conversation), _options(options))
    except AbstractLLMError as error:
        facts = {
            "reason": str(error.reason),
            "field": error.field,
            "words": error.message,
            "retryable": error.retryable,
        }
        facts |= {"limit": error.limit, "requested": error.requested, "partial_text": error.partial_text}
        facts |= {"upstream_status": error.upstream_status, "retry_after": error.retry_after}
        return {"error": facts}, None


async def _unary(llm: Any, prompt: Any, options: dict[str, Any]) -> tuple[dict[str, Any], ChatMessage]:
    completion = await llm.complete_async(prompt, **options)
    return _described(completion.text, completion.reasoning, completion.message, completion), completion.message


async def _streamed(llm: Any, prompt: Any, options: dict[str, Any]) -> tuple[dict[str, Any], ChatMessage]:
    text, reasoning, finished, answer = "", "", None, AnswerAccumulator()
    async for event in llm.stream_async(prompt, **options):
        match event:
            case TextDelta():
                text += event.text
            case ReasoningDelta():
                reasoning += event.text
            case Finished():
                finished = event
        if finished is None and type(event).__name__ != "Started":
            answer.add(event)
    assert finished is not None and finished.message is not None
    calls = [part for part in answer.message().parts if isinstance(part, ToolCall)]
    kept = [part for part in finished.message.parts if isinstance(part, ToolCall)]
    assert [(call.id, call.name) for call in calls] == [(call.id, call.name) for call in kept], (calls, kept)
    return _described(text, reasoning, finished.message, finished), finished.message


def _described(text: str, reasoning: str, message: ChatMessage, end: Any) -> dict[str, Any]:
    """Returns an answer in the words of a case's `expect`."""
    usage = {name: getattr(end.usage, name) for name in end.usage.__slots__}
    calls = [part for part in message.parts if isinstance(part, ToolCall)]
    return {
        "text": text,
        "reasoning": reasoning,
        "tool_calls": [{"name": call.name, "id": call.id, "arguments": _arguments(call)} for call in calls],
        "finish_reason": str(end.finish_reason),
        "stop_sequence": end.stop_sequence,
        "usage": usage,
    }


def _arguments(call: ToolCall) -> Any:
    try:
        return json.loads(call.arguments_json)
    except ValueError:
        return call.arguments_json


def _compare(observed: dict[str, Any], expected: dict[str, Any], place: str) -> Iterator[str]:
    if unknown := set(expected) - _EXPECTED:
        raise ValueError(f"unknown keys of expect: {sorted(unknown)}")
    expected = {name: value for name, value in expected.items() if name != "requests"}
    error = dict(expected.pop("error", {}))
    if error and "error" in observed:
        words = error.pop("words", [])
        for word in [words] if isinstance(words, str) else words:
            if word not in observed["error"]["words"]:
                yield f"{place}.error: {word!r} is not in {observed['error']['words']!r}"
        yield from differences(observed["error"], _at_least(error), f"{place}.error")
    elif error or "error" in observed:
        yield f"{place}: {observed} instead of {expected or {'error': error}}"
    else:
        yield from differences(observed, _at_least(expected), place)


def _compare_requests(upstream: Upstream, expected: Any) -> Iterator[str]:
    """Compares the requests that left: their number, or each with what it must at least hold."""
    if upstream.unanswered:
        yield f"requests: {len(upstream.requests)}, {upstream.unanswered} more than the case has answers for"
    if expected is None and upstream.left:
        yield f"requests: {len(upstream.requests)}, {upstream.left} answers were not asked for"
    elif isinstance(expected, int) and len(upstream.requests) != expected:
        yield f"requests: {len(upstream.requests)} instead of {expected}"
    elif isinstance(expected, list):
        yield from differences(upstream.requests, _at_least(expected), "requests")


def _at_least(expected: Any) -> Any:
    """Returns an expectation whose objects may hold more than it says; lists are compared entry by entry."""
    match expected:
        case dict() if not any(key.startswith("$") for key in expected):
            return {"$contains": {key: _at_least(value) for key, value in expected.items()}}
        case list():
            return [_at_least(value) for value in expected]
    return expected


def _message(message: dict[str, Any]) -> ChatMessage:
    """Reads a message: `{role, content}`, where content is a text or a list of parts."""
    content = message["content"]
    parts = [{"text": content}] if isinstance(content, str) else content
    return ChatMessage(Role(message["role"]), tuple(_part(part) for part in parts))


def _part(part: dict[str, Any]) -> Any:
    match part:
        case {"text": text}:
            return Text(text)
        case {"reasoning": text}:
            return Reasoning(text, part.get("provider_state", "").encode("latin-1"))
        case {"tool_call": call}:
            arguments = call.get("arguments", {})
            written = arguments if isinstance(arguments, str) else json.dumps(arguments)
            return ToolCall(call["id"], call["name"], written, call.get("provider_state", "").encode("latin-1"))
        case {"tool_result": result}:
            return ToolResult(result["id"], result.get("content", ""), result.get("is_error", False))
        case {"image": data}:
            return Image(base64.b64decode(data), part.get("mime_type", "image/png"))
    raise ValueError(f"a part has one of text, reasoning, tool_call, tool_result, image: {part}")


def _options(options: dict[str, Any]) -> dict[str, Any]:
    """Reads the options of a request, which are those of `generate`; tools may be `f` and `g`."""
    if options.get("tools"):
        options["tools"] = [_TOOLS[tool] if isinstance(tool, str) else _tool(tool) for tool in options["tools"]]
    match options.get("tool_choice"):
        case {"name": name}:
            options["tool_choice"] = ToolChoice(name=name)
        case str(mode):
            options["tool_choice"] = ToolChoice(ToolChoiceMode(mode))
    match options.get("response_format"):
        case {"json_schema": schema}:
            options["response_format"] = JsonSchemaFormat(json.dumps(schema))
        case "json_object":
            options["response_format"] = JsonObjectFormat()
    if "reasoning_effort" in options:
        options["reasoning_effort"] = ReasoningEffort(options["reasoning_effort"])
    return options


def _tool(tool: dict[str, Any]) -> Tool:
    return Tool(tool["name"], tool.get("description", ""), json.dumps(tool.get("parameters", {"type": "object"})))
