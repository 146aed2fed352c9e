"""Runs the cases of the folder's YAML files: a scripted model, a request, and the answer that is right.

A case has these keys, of which `name`, `source` and `expect` are required:

- `name`: what it shows; `source`: the public report or the documentation that it follows.
- `tokenizer`: a kind, or the arguments of `scripted_tokenizer`.
- `template`: the name of a constant of `tests/unit/chat_templates.py`, of a file in `templates/`, or the text itself;
  no template if absent.
- `checkpoint`: arguments of `write_checkpoint`; `settings`: keys of the LLM's configuration.
- `writes`: what the model writes after the request's prompt, see `let_write`; then it ends.
- `request`: the arguments of `complete`, as JSON: `prompt` or `messages`, whose `content` is a text or a list of parts
  (`text`, `reasoning`, `call: {id, name, arguments}`, `result: {id, content, is_error}`), `system_prompt`, `tools`
  (`name`, `description`, `parameters`), `tool_choice` (a mode, or `{name: ...}`), `response_format` (`json_object`,
  `{json_schema: ...}`, `{regex: ...}` or `{grammar: ...}`), and parameters.
- `expect`: see `_check`.

Each answer is asked for whole and streamed, and both must hold the same.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from abstractllm import create_llm
from abstractllm.errors import AbstractLLMError
from abstractllm.providers.huggingface.convert import as_conversation
from abstractllm.requests import make_request
from abstractllm.types import (
    ChatMessage,
    Finished,
    GrammarFormat,
    JsonObjectFormat,
    JsonSchemaFormat,
    Reasoning,
    RegexFormat,
    Role,
    Text,
    TextDelta,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
    ToolResult,
)
from tests.cases.local.in_process_engine import MODELS
from tests.cases.local.scripted_model import let_write, scripted_tokenizer, write_checkpoint
from tests.unit import chat_templates

_FOLDER = Path(__file__).parent
_KEYS = {"name", "source", "tokenizer", "template", "checkpoint", "settings", "writes", "request", "expect"}
_EXPECTED = {
    "text",
    "reasoning",
    "calls",
    "finish_reason",
    "stop_sequence",
    "input_tokens",
    "output_tokens",
    "prompt",
    "prompt_holds",
    "prompt_lacks",
    "most_tokens",
    "most_characters_in_a_piece",
    "capabilities",
    "state_reason",
    "error",
}


def read_cases() -> dict[str, dict[str, Any]]:
    """Returns the cases of all files, by file and name."""
    cases = {}
    for path in sorted(_FOLDER.glob("*.yaml")):
        for case in yaml.safe_load(path.read_text(encoding="utf-8")):
            if wrong := case.keys() - _KEYS or case["expect"].keys() - _EXPECTED:
                raise ValueError(f"{path.name}: {case['name']}: unknown keys {wrong}")
            assert "writes" in case or "error" in case["expect"], f"{path.name}: {case['name']}: it writes nothing"
            assert case["source"], f"{path.name}: {case['name']}: it names no report or documentation"
            key = f"{path.stem}: {case['name']}"
            assert key not in cases, f"{path.name}: two cases are named {case['name']}"
            cases[key] = case
    return cases


class Models:
    """The scripted models of a run; cases with the same model share it.

    Args:
        directory: Where checkpoints are written.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._models: dict[str, tuple[Any, Any]] = {}

    def of(self, case: Mapping[str, Any]) -> tuple[Any, Any]:
        """Returns the LLM of a case and its tokenizer."""
        parts = {name: case.get(name) for name in ("tokenizer", "template", "checkpoint", "settings")}
        key = json.dumps(parts, sort_keys=True)
        if key not in self._models:
            chosen = parts["tokenizer"] or {}
            tokenizer = scripted_tokenizer(**({"kind": chosen} if isinstance(chosen, str) else chosen))
            if parts["template"] is not None:
                tokenizer.chat_template = _template(parts["template"])
            path = self._directory / f"model{len(self._models)}"
            write_checkpoint(path, tokenizer, **(parts["checkpoint"] or {}))
            settings = {"threads": 1, "kv_cache_bytes": "4MiB", **(parts["settings"] or {})}
            self._models[key] = create_llm("huggingface", model=str(path), **settings), tokenizer
        return self._models[key]

    def close(self) -> None:
        """Unloads all models."""
        # Each engine collects garbage when it ends, and would look at all that the other models hold.
        gc.freeze()
        for llm, _ in self._models.values():
            llm.close()
        gc.unfreeze()


def _template(name: str) -> str:
    if hasattr(chat_templates, name):
        return str(getattr(chat_templates, name))
    if name.isidentifier():
        return (_FOLDER / "templates" / f"{name}.jinja").read_text(encoding="utf-8")
    return name


def run(case: Mapping[str, Any], models: Models) -> None:
    """Runs a case.

    Raises:
        AssertionError: If the answer is another one than expected.
    """
    llm, tokenizer = models.of(case)
    arguments = _arguments(case.get("request") or {})
    expected = case["expect"]
    prompt: tuple[int, ...] = ()
    with suppress(AbstractLLMError):  # the request meets the same refusal
        llm.count_tokens(**{key: arguments[key] for key in ("prompt", "system_prompt") if key in arguments})
        prompt = MODELS[llm.config.load_settings().model].prompt_builder.encode(
            as_conversation(make_request(**arguments))
        )
        if "writes" in case:
            let_write(MODELS[llm.config.load_settings().model], tokenizer, len(prompt), case["writes"])
    if "error" in expected:
        _check_error(expected["error"], llm, arguments)
    else:
        _check(expected, llm, arguments, tokenizer.decode(prompt, skip_special_tokens=False))
    for name, value in expected.get("capabilities", {}).items():
        known = llm.get_capabilities()[name]
        assert (list(known) if isinstance(known, tuple) else known) == value, f"capabilities: {name}"
    if words := expected.get("state_reason"):
        assert words in llm.state[1]


def _check_error(expected: Mapping[str, Any], llm: Any, arguments: dict[str, Any]) -> None:
    """Checks `error`: its `reason`, and where given its `field`, and `words` of its message, in any order."""
    for ask in (lambda: llm.complete(**arguments), lambda: list(llm.stream(**arguments))):
        with pytest.raises(AbstractLLMError) as failure:
            ask()
        error = failure.value
        assert (error.reason, error.field) == (expected["reason"], expected.get("field", error.field)), error
        for words in _listed(expected.get("words", ())):
            assert words in error.message, f"{words!r} is not in {error.message!r}"


def _check(expected: Mapping[str, Any], llm: Any, arguments: dict[str, Any], prompt: str) -> None:
    """Checks an answer.

    `text`, `reasoning`, `calls` (names and arguments), `finish_reason`, `stop_sequence`, `input_tokens` and
    `output_tokens` are those of the answer; without `calls` it must have none. `prompt` is the whole text that the
    model is given, special tokens included; `prompt_holds` and `prompt_lacks` are parts of it. `most_tokens` bounds
    `output_tokens`, and `most_characters_in_a_piece` the pieces of the streamed text.
    """
    whole = llm.complete(**arguments)
    events = list(llm.stream(**arguments))
    finished = events[-1]
    assert isinstance(finished, Finished)
    pieces = [event.text for event in events if isinstance(event, TextDelta)]
    calls = [{"name": call.name, "arguments": json.loads(call.arguments_json)} for call in whole.tool_calls]
    assert "".join(pieces) == whole.text
    assert _without_ids(finished.message) == _without_ids(whole.message)
    assert finished.finish_reason == whole.finish_reason
    actual = {
        "text": whole.text,
        "reasoning": whole.reasoning,
        "calls": calls,
        "finish_reason": whole.finish_reason.name,
        "stop_sequence": whole.stop_sequence,
        "input_tokens": whole.usage.input_tokens,
        "output_tokens": whole.usage.output_tokens,
        "prompt": prompt,
    }
    wanted = {"calls": [], **expected}
    assert {key: actual[key] for key in wanted if key in actual} == {
        key: wanted[key] for key in wanted if key in actual
    }
    for words in _listed(expected.get("prompt_holds", ())):
        assert words in prompt, f"{words!r} is not in {prompt!r}"
    for words in _listed(expected.get("prompt_lacks", ())):
        assert words not in prompt, f"{words!r} is in {prompt!r}"
    if "most_tokens" in expected:
        assert whole.usage.output_tokens <= expected["most_tokens"]
    if "most_characters_in_a_piece" in expected:
        assert max(map(len, pieces)) <= expected["most_characters_in_a_piece"], pieces


def _listed(words: Any) -> list[str]:
    return [words] if isinstance(words, str) else list(words)


def _without_ids(message: Any) -> list[Any]:
    """Returns a message's parts; a call is its name and arguments, since its id is random."""
    return [(part.name, part.arguments_json) if isinstance(part, ToolCall) else part for part in message.parts]


def _arguments(request: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `complete`."""
    arguments = {"temperature": 0, **request}
    arguments.setdefault("prompt", [_message(message) for message in arguments.pop("messages", ())] or "Hello")
    if "tools" in arguments:
        arguments["tools"] = [
            Tool(tool["name"], tool.get("description", ""), json.dumps(tool.get("parameters", {"type": "object"})))
            for tool in arguments["tools"]
        ]
    if choice := arguments.get("tool_choice"):
        named = isinstance(choice, dict)
        arguments["tool_choice"] = ToolChoice(name=choice["name"]) if named else ToolChoice(ToolChoiceMode(choice))
    if kind := arguments.get("response_format"):
        arguments["response_format"] = _format(kind)
    return arguments


def _format(chosen: Any) -> Any:
    if chosen == "json_object":
        return JsonObjectFormat()
    ((kind, value),) = chosen.items()
    if kind == "json_schema":
        return JsonSchemaFormat(value if isinstance(value, str) else json.dumps(value))
    return {"regex": RegexFormat, "grammar": GrammarFormat}[kind](value)


def _message(message: Mapping[str, Any]) -> ChatMessage:
    content = message["content"]
    parts = [{"text": content}] if isinstance(content, str) else content
    return ChatMessage(Role(message["role"]), tuple(_part(part) for part in parts))


def _part(part: Mapping[str, Any]) -> Any:
    ((kind, value),) = part.items()
    match kind:
        case "text":
            return Text(value)
        case "reasoning":
            return Reasoning(value)
        case "call":
            arguments = value["arguments"]
            text = arguments if isinstance(arguments, str) else json.dumps(arguments)
            return ToolCall(value["id"], value["name"], text)
        case "result":
            return ToolResult(value["id"], value["content"], value.get("is_error", False))
        case _:
            raise ValueError(f"no part of a message: {kind}")
