"""The form in which a chat template takes messages, found out by having it write some."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Protocol

from msgspec import structs

from abstractllm.providers.huggingface.protocol.messages import ToolCall, Turn
from abstractllm.providers.huggingface.worker.parsing.call_emitter import ID_LENGTH

__all__ = ["MessageForm", "Render", "find_form", "tool_message"]

_WORD = "probeword"


class Render(Protocol):
    """Renders messages with the template."""

    def __call__(self, messages: list[dict[str, Any]], **options: Any) -> str | None:
        """Returns the prompt; None if the template refuses the messages."""


@dataclass(frozen=True, slots=True)
class MessageForm:
    """The form of a conversation's messages."""

    parts: frozenset[str] = frozenset()
    """The roles whose content is a list of parts, and not a text."""
    takes_text_arguments_only: bool = False
    """True if arguments of earlier calls are taken as JSON text only, not as objects."""
    has_empty_content: bool = True
    """True if a message that holds calls alone has an empty content; else it has none."""
    named_ids: bool = False
    """True if the template writes no name of a call, so that the call's id must hold it, as with Kimi K2."""
    splits_calls: bool = False
    """True to put the text beside calls into a message before them."""
    splits_each_call: bool = False
    """True to put each call into a message of its own, with its result behind it."""
    drops_reasoning: bool = False
    """True to leave out the reasoning of messages that hold calls."""

    def messages(
        self, turns: Sequence[Turn], check: Callable[[Any, Turn], None] = lambda _, __: None
    ) -> list[dict[str, Any]]:
        """Returns the messages of turns, as the template takes them.

        Args:
            turns: The turns.
            check: Called with the arguments of each earlier call, and the turn that holds it.
        """
        messages: list[dict[str, Any]] = []
        ids: dict[str, str] = {}
        ordered = _in_order_of_calls(turns)
        for turn in _call_by_call(ordered) if self.splits_each_call else ordered:
            if turn.calls and turn.text and self.splits_calls:
                messages.append({"role": turn.role, "content": self._content(turn)})
                turn = structs.replace(turn, text="")
            messages.append(self._message(turn, ids, check))
        return messages

    def _message(self, turn: Turn, ids: dict[str, str], check: Callable[[Any, Turn], None]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": turn.role}
        if turn.text or not turn.calls or self.has_empty_content:
            message["content"] = self._content(turn)
        if turn.reasoning and not (turn.calls and self.drops_reasoning):
            message["reasoning_content"] = turn.reasoning
        if turn.calls:
            message["tool_calls"] = [self._call(call, ids, turn, check) for call in turn.calls]
        if turn.role == "tool":
            message["tool_call_id"] = ids.get(turn.call_id) or _template_id(turn.call_id)
            if turn.name:
                message["name"] = turn.name
        return message

    def _content(self, turn: Turn) -> Any:
        return [{"type": "text", "text": turn.text}] if turn.role in self.parts else turn.text

    def _call(
        self, call: ToolCall, ids: dict[str, str], turn: Turn, check: Callable[[Any, Turn], None]
    ) -> dict[str, Any]:
        arguments: Any = call.arguments
        if not self.takes_text_arguments_only:
            arguments = json.loads(arguments)
            check(arguments, turn)
        call_id = f"functions.{call.name}:{len(ids)}" if self.named_ids else _template_id(call.id)
        ids[call.id] = call_id
        function = {"name": call.name, "arguments": arguments}
        return {"id": call_id, "type": "function", "function": function}


def _in_order_of_calls(turns: Sequence[Turn]) -> list[Turn]:
    """Returns the turns with results in the order of their calls, by which templates without ids tell them apart."""
    ordered: list[Turn] = []
    places: dict[str, int] = {}
    for is_result, run in groupby(turns, key=lambda turn: turn.role == "tool"):
        together = list(run)
        if is_result:
            together.sort(key=lambda result: places.get(result.call_id, len(places)))
        else:
            places = {call.id: place for place, call in enumerate(together[-1].calls)}
        ordered += together
    return ordered


def _call_by_call(turns: Sequence[Turn]) -> list[Turn]:
    """Returns the turns with one call in each, and the results of a call behind it."""
    ordered: list[Turn] = []
    waiting = list(turns)
    while waiting:
        turn = waiting.pop(0)
        if len(turn.calls) < 2:
            ordered.append(turn)
            continue
        count = next((place for place, other in enumerate(waiting) if other.role != "tool"), len(waiting))
        results, waiting = waiting[:count], waiting[count:]
        for place, call in enumerate(turn.calls):
            is_first = place == 0
            text, reasoning = (turn.text, turn.reasoning) if is_first else ("", "")
            ordered.append(structs.replace(turn, text=text, reasoning=reasoning, calls=(call,)))
            ordered += [result for result in results if result.call_id == call.id]
            results = [result for result in results if result.call_id != call.id]
        ordered += results
    return ordered


def find_form(render: Render) -> MessageForm:
    """Has a template write messages of each role, and returns the form in which their texts show."""
    form = MessageForm()
    user = Turn("user", "Hello.")
    questions = {
        "user": [[Turn("user", _WORD)], [Turn("system", "Hello."), Turn("user", _WORD)]],
        "system": [[Turn("system", _WORD), user]],
        "assistant": [[user, Turn("assistant", _WORD), user]],
    }
    for role in ("user", "system", "assistant"):
        form = _with_parts(form, role, render, questions[role])
    form = _with_calls(form, render, user)
    call = ToolCall("probe1234", "get_probe", "{}")
    result = [user, Turn("assistant", "", calls=(call,)), Turn("tool", _WORD, call_id=call.id, name=call.name)]
    return _with_parts(form, "tool", render, [result])


def _with_parts(form: MessageForm, role: str, render: Render, conversations: Sequence[Sequence[Turn]]) -> MessageForm:
    """Returns the form with parts for a role, if the role's text shows as parts alone."""
    with_parts = replace(form, parts=form.parts | {role})
    for conversation in conversations:
        for candidate in (form, with_parts):
            if _WORD in (render(candidate.messages(conversation)) or "").lower():
                return candidate
    # A role that never shows is given as users' texts are.
    return with_parts if "user" in form.parts else form


def _with_calls(form: MessageForm, render: Render, user: Turn) -> MessageForm:
    """Returns the form in which an earlier call shows, its name and its arguments."""
    call = ToolCall("probe1234", "get_probe", json.dumps({"key": _WORD}))
    conversation = [user, Turn("assistant", "", calls=(call,))]
    candidates = [
        replace(form, has_empty_content=content, takes_text_arguments_only=text, named_ids=named)
        for named in (False, True)
        for content in (True, False)
        for text in (False, True)
    ]
    tool = tool_message("another", "A probe.", {"type": "object", "properties": {}})
    for options in ({"tools": [tool]}, {}):
        for candidate in candidates:
            shown = (render(candidate.messages(conversation), **options) or "").lower()
            if call.name in shown and _WORD in shown:
                return candidate
    return form


def tool_message(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Returns a tool as templates take it.

    Args:
        name: Its name.
        description: Its description.
        schema: The JSON schema of its arguments.
    """
    function = {"name": name, "description": description, "parameters": schema}
    return {"type": "function", "function": function}


def _template_id(call_id: str) -> str:
    """Returns a call's id, or its hash if it has another length: Mistral's templates refuse any other form."""
    if len(call_id) == ID_LENGTH and call_id.isalnum() and call_id.isascii():
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:ID_LENGTH]
