"""A conversation in the form in which hosted APIs take it back, whoever wrote its earlier turns.

APIs refuse what other APIs, and their own models, write: ids and names of calls in another form, two calls of one id,
calls without a result directly after them. A conversation may come from any of them, and go on at another.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import string
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from abstractllm.enums import Role
from abstractllm.errors import InvalidRequestError
from abstractllm.types import ChatMessage, Part, ToolCall, ToolResult

__all__ = ["CallIds", "answered_calls", "result_text"]

_NOT_CARRIED_OUT = "The call was not carried out."
"""The result of a call that the conversation leaves without one."""
_FAILED = "The tool failed without a message."
_NAME_LENGTH = 64
_UNNAMED = "unnamed"
_LETTERS = string.digits + string.ascii_letters


@dataclass(frozen=True, slots=True)
class CallIds:
    """The ids of tool calls that an API takes."""

    pattern: str
    """Matches such an id."""
    length: int
    """The length of the ids that are made in place of others, of letters and digits."""

    def fitting(self, call_id: str, taken: Collection[str] = ()) -> str:
        """Returns an id in the API's form: the same where it can be, else always the same other one.

        Args:
            call_id: The id that the call has.
            taken: The ids that other calls have.
        """
        candidate, tries = call_id, 0
        while candidate in taken or not re.fullmatch(self.pattern, candidate):
            digest = int.from_bytes(hashlib.sha256(f"{tries} {call_id}".encode()).digest())
            digits = (digest // len(_LETTERS) ** place % len(_LETTERS) for place in range(self.length))
            candidate = "".join(_LETTERS[digit] for digit in digits)
            tries += 1
        return candidate


@dataclass(slots=True)
class _Turn:
    """A message on its way into its new form."""

    role: Role
    parts: list[Part] = field(default_factory=list)
    results: list[ToolResult] = field(default_factory=list)
    """A result for each of its calls."""


def answered_calls(messages: Iterable[ChatMessage], ids: CallIds) -> list[ChatMessage]:
    """Returns a conversation in which directly after each message with calls come their results, in the same order.

    Calls have names and unique ids in the API's form, and results the ids of their calls. A call without a result gets
    one that says so; several results of one call become one. A result of no call stays where it is, for the API to
    judge.

    Args:
        messages: The conversation.
        ids: The ids that the API takes.

    Raises:
        InvalidRequestError: For a call in a message that is not the assistant's.
    """
    messages = tuple(messages)
    _check_callers(messages)
    turns: list[_Turn] = []
    waiting: dict[str, deque[tuple[_Turn, int]]] = {}
    """By a call's id as it came: the calls that wait for their result, with their places in the turn."""
    answered: dict[str, tuple[_Turn, int]] = {}
    """By a call's id as it came: the call that got the latest result of that id, and its place in the turn."""
    new_ids: dict[str, str] = {}
    taken: set[str] = set()
    for message in messages:
        turn = _Turn(message.role)
        ids_before = {part.id for part in message.parts if isinstance(part, ToolCall)}
        # Earlier calls of the same id will get no result any more.
        waiting |= {call_id: deque() for call_id in ids_before}
        for part in message.parts:
            match part:
                case ToolCall():
                    call_id = new_ids[part.id] = ids.fitting(part.id, taken)
                    taken.add(call_id)
                    waiting[part.id].append((turn, len(turn.results)))
                    turn.results.append(ToolResult(call_id, _NOT_CARRIED_OUT, is_error=True))
                    turn.parts.append(dataclasses.replace(part, id=call_id, name=_fitting_name(part.name)))
                case ToolResult():
                    if calls := waiting.get(part.tool_call_id):
                        answered[part.tool_call_id] = caller, place = calls.popleft()
                        caller.results[place] = _result(part, caller.results[place].tool_call_id)
                    elif part.tool_call_id in answered:
                        caller, place = answered[part.tool_call_id]
                        first = caller.results[place]
                        both = dataclasses.replace(part, content=f"{first.content}\n\n{part.content}")
                        caller.results[place] = _result(both, first.tool_call_id)
                    else:
                        call_id = new_ids.get(part.tool_call_id) or ids.fitting(part.tool_call_id)
                        turn.parts.append(_result(part, call_id))
                case _:
                    turn.parts.append(part)
        if turn.parts or not message.parts:  # not a message of results, which have moved to their calls
            turns.append(turn)
    return list(_messages(turns))


def _check_callers(messages: Iterable[ChatMessage]) -> None:
    for index, message in enumerate(messages):
        if message.role is not Role.ASSISTANT and any(isinstance(part, ToolCall) for part in message.parts):
            field, rule = f"chat.messages[{index}].parts", "only the assistant's message may hold tool calls"
            raise InvalidRequestError(f"{field}: {rule}", field=field, limit=rule)


def _messages(turns: Iterable[_Turn]) -> Iterator[ChatMessage]:
    for turn in turns:
        yield ChatMessage(turn.role, tuple(turn.parts))
        if turn.results:
            yield ChatMessage(Role.TOOL, tuple(turn.results))


def _result(result: ToolResult, call_id: str) -> ToolResult:
    """Returns a result with its call's id; an error without a text, which APIs refuse, gets one."""
    is_silent = result.is_error and not result.content.strip()
    return dataclasses.replace(result, tool_call_id=call_id, content=_FAILED if is_silent else result.content)


def _fitting_name(name: str) -> str:
    """Returns a tool's name as APIs take it; a model may have written another."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:_NAME_LENGTH] or _UNNAMED


def result_text(result: ToolResult) -> str:
    """Returns the text of a result for an API that has no mark for a tool that failed: the text has to say it."""
    return f"Error: {result.content}" if result.is_error else result.content
