"""The check that a chat template shows all of a conversation to the model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from abstractllm.errors import AbstractLLMError, UnsupportedFeatureError
from abstractllm.providers.huggingface.protocol.messages import Conversation, ToolCall, ToolDefinition, Turn
from abstractllm.providers.huggingface.worker.prompt.message_form import MessageForm, tool_message

__all__ = ["PartsCheck"]

_WORD = re.compile(r"probe([0-9]+)word")
_MOST_REMEMBERED = 256
_LONGEST_REMEMBERED = 64
"""Messages of the longest conversation whose structure is remembered."""

RenderOrRaise = Callable[[list[dict[str, Any]], list[dict[str, Any]], dict[str, object]], str]
"""Renders messages and tools with the template's variables; raises the library's errors."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a conversation that the model must be shown."""

    field: str
    name: str
    """The part in words, for messages."""


class PartsCheck:
    """Checks that each message, call, result and tool of a conversation shows in the prompt.

    A conversation of the same structure is rendered, in which each text is a word of its own; a part whose word is not
    in the prompt is one that the model would never see. Earlier reasoning is left to the template, which drops what the
    model is not to see again. Structures that were checked are remembered.

    Args:
        form: The form in which the template takes messages.
        render: Renders messages with the template.
    """

    def __init__(self, form: MessageForm, render: RenderOrRaise) -> None:
        self._form = form
        self._render = render
        self._forms: dict[object, MessageForm | AbstractLLMError] = {}

    def form_for(self, conversation: Conversation, variables: dict[str, object]) -> MessageForm:
        """Returns the form in which all of a conversation shows.

        Raises:
            UnsupportedFeatureError: If the template refuses the conversation's structure, or does not show a part.
            ModelLoadError: If the template is broken.
        """
        probe = _Probe(conversation)
        key = (probe.turns, probe.tools, tuple(sorted(variables.items())))
        result = self._forms.get(key)
        if result is None:
            result = self._first_form(probe, variables)
            if isinstance(result, AbstractLLMError):
                result = result.with_traceback(None)  # it would keep all that was looked at
                result.__cause__ = result.__context__ = None
            if len(probe.turns) <= _LONGEST_REMEMBERED:
                if len(self._forms) >= _MOST_REMEMBERED:
                    self._forms.clear()
                self._forms[key] = result
        if isinstance(result, MessageForm):
            return result
        raise probe.located(result, conversation)

    def _first_form(self, probe: _Probe, variables: dict[str, object]) -> MessageForm | AbstractLLMError:
        """Returns the first form that shows everything, or the error of the usual one."""
        failure: AbstractLLMError | None = None
        for form in self._candidates(probe):
            try:
                prompt = self._render(form.messages(probe.turns), probe.tool_messages(), variables)
            except UnsupportedFeatureError as error:
                failure = failure or self._refusal(error, probe, variables)
                continue
            except AbstractLLMError as error:
                failure = failure or error
                continue
            shown = {int(number) for number in _WORD.findall(prompt.lower())}
            hidden = next((number for number in range(len(probe.parts)) if number not in shown), None)
            if hidden is None:
                return form
            message = f"the model's chat template does not show {probe.parts[hidden].name} to the model"
            failure = failure or _HiddenPartError(hidden, message)
        assert failure is not None, "there is at least one form"
        return failure

    def _refusal(self, error: AbstractLLMError, probe: _Probe, variables: dict[str, object]) -> AbstractLLMError:
        """Returns the error for a refused structure: the system message's if the template takes the rest without it."""
        without_system = probe.turns[1:] if probe.turns[0].role == "system" else ()
        if without_system:
            with suppress(AbstractLLMError):
                self._render(self._form.messages(without_system), probe.tool_messages(), variables)
                return _HiddenPartError(0, error.message)
        return error

    def _candidates(self, probe: _Probe) -> list[MessageForm]:
        forms = [self._form]
        if any(turn.calls and turn.text for turn in probe.turns):
            forms += [replace(form, splits_calls=True) for form in forms]
        if any(len(turn.calls) > 1 for turn in probe.turns):
            forms += [replace(form, splits_each_call=True) for form in forms]
        if any(turn.calls and turn.reasoning for turn in probe.turns):
            forms += [replace(form, drops_reasoning=True) for form in forms]
        return forms


class _HiddenPartError(UnsupportedFeatureError):
    """The template does not show a part of the conversation, or refuses it.

    Args:
        number: The number of the part.
        message: The fault in words.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class _Probe:
    """A conversation of the same structure as another, in which each text is a word of its own.

    Args:
        conversation: The other conversation.
    """

    def __init__(self, conversation: Conversation) -> None:
        self.parts: list[_Part] = []
        """The parts that must show, by the number in their word."""
        self._names: dict[str, str] = {}
        """The words for the calls, by the calls' ids."""
        self.turns = tuple(self._turn(turn, place, conversation.turns) for place, turn in enumerate(conversation.turns))
        self.tools = tuple(self._tool(tool, index) for index, tool in enumerate(conversation.tools))

    def tool_messages(self) -> list[dict[str, Any]]:
        """Returns the tools as the template takes them."""
        return [tool_message(tool.name, tool.description, json.loads(tool.schema)) for tool in self.tools]

    def located(self, error: AbstractLLMError, conversation: Conversation) -> AbstractLLMError:
        """Returns a structure's error for one conversation, with the field of the part that it is about."""
        if isinstance(error, _HiddenPartError):
            field = self.parts[error.number].field
        elif isinstance(error, UnsupportedFeatureError):
            field = "chat.messages" if any(turn.message >= 0 for turn in conversation.turns) else "prompt"
        else:
            return type(error)(error.message, field=error.field)
        return UnsupportedFeatureError(f"{field}: {error.message}", field=field)

    def _turn(self, turn: Turn, place: int, turns: Sequence[Turn]) -> Turn:
        field = f"chat.messages[{turn.message}]" if turn.message >= 0 else _SINGLE_FIELDS.get(turn.role, "prompt")
        name = _name(turn.role, place, turns)
        text = turn.text
        if text.strip():
            text = self._word(field, name)
        calls = tuple(self._call(call, f"{field}.tool_call") for call in turn.calls)
        reasoning = "Hm." if turn.reasoning else ""
        called = self._names.get(turn.call_id, "")
        call_id = called or ("unknown" if turn.call_id else "")
        return Turn(turn.role, text, reasoning, calls, call_id, called if turn.name else "")

    def _call(self, call: ToolCall, field: str) -> ToolCall:
        name = self._word(field, "the tool of an earlier call")
        self._names[call.id] = name
        if call.arguments.strip("{} \t\r\n"):
            arguments = json.dumps({"key": self._word(field, "the arguments of an earlier call")})
        else:
            arguments = "{}"
        return ToolCall(name, name, arguments)

    def _tool(self, tool: ToolDefinition, index: int) -> ToolDefinition:
        field = f"tools[{index}]"
        name = self._word(f"{field}.name", "a tool's name")
        description = self._word(f"{field}.description", "a tool's description") if tool.description.strip() else ""
        schema: dict[str, Any] = {"type": "object", "properties": {}}
        if json.loads(tool.schema).get("properties"):
            key = self._word(f"{field}.parameters_json_schema", "a tool's parameters")
            schema |= {"properties": {key: {"type": "string", "description": "A probe."}}, "required": [key]}
        return ToolDefinition(name, description, json.dumps(schema))

    def _word(self, field: str, name: str) -> str:
        self.parts.append(_Part(field, name))
        return f"probe{len(self.parts) - 1}word"


_SINGLE_FIELDS = {"system": "system_prompt", "user": "prompt"}
"""The fields of what is no message of the request, by role."""


def _name(role: str, place: int, turns: Sequence[Turn]) -> str:
    """Returns a message in words."""
    match role:
        case "system":
            return "the system message" if place == 0 else "a system message behind others"
        case "user":
            return "a message of the user" if len(turns) > 1 else "the prompt"
        case "assistant":
            return "text beside earlier calls" if turns[place].calls else "an earlier answer"
        case _:
            return "the result of a tool"
