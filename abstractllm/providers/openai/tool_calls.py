"""Putting streamed tool calls together, in every dialect that servers stream them in.

OpenAI gives each call an index, its id and name with its first fragment, and then its arguments in pieces. Others leave
out the index or give all calls the same, repeat the id and the name in every fragment or make a new id for each, send
the name late or in pieces, send arguments whole or as an object, and repeat the complete calls at the end. What a
fragment belongs to is therefore told by all that it says, and by whether the arguments so far are a complete object.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from abstractllm.providers.hosted.json_values import unique_call_id
from abstractllm.providers.openai.tool_call_fragments import Call, Fragment, ObjectScanner, read_fragment
from abstractllm.types import ToolCallDelta

__all__ = ["ToolCallReader"]

MAX_CALLS = 1000
"""Calls of one answer at most."""


class ToolCallReader:
    """Reads the tool calls of one answer.

    Args:
        tools: The names of the request's tools, which tell where a name that comes in pieces ends.
    """

    def __init__(self, tools: Iterable[str] = ()) -> None:
        self._tools = frozenset(tools)
        self._calls: list[Call] = []
        self._held: list[Call] = []
        """The calls of which something may be held back."""
        self._new: list[Call] = []
        """The calls that began in the chunk that is being read."""
        self._sent = 0
        self._ids: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._calls)

    @property
    def states(self) -> dict[int, dict[str, Any]]:
        """The fields that are to go back with a call, by its number."""
        return {call.number: call.state for call in self._calls if call.number >= 0 and call.state}

    def read(self, entries: list[Any], *, is_whole: bool = False, is_last: bool = False) -> list[ToolCallDelta]:
        """Takes the entries of a chunk's `tool_calls`.

        Args:
            entries: The entries.
            is_whole: True if they are all calls of the answer, whole.
            is_last: True if the chunk has the finish reason, after which some servers repeat all calls.

        Raises:
            AttributeError, TypeError: If an entry has another shape than that of a call.
        """
        present = [entry for entry in entries if entry is not None]
        fragments = [read_fragment(entry, place if len(present) > 1 else None) for place, entry in enumerate(present)]
        if self._calls and (is_whole or is_last):
            fragments = self._without_repetitions(fragments, is_whole)
        self._new = []
        deltas: list[ToolCallDelta] = []
        for fragment in fragments:
            call = None if is_whole else self._call_of(fragment)
            if call is None:
                if len(self._calls) == MAX_CALLS:
                    raise ValueError(f"more than {MAX_CALLS} tool calls")
                deltas += [delta for earlier in self._held for delta in self._advance(earlier, is_named=True)]
                self._held = [earlier for earlier in self._held if earlier.number < 0]
                call = Call(fragment.index, fragment.place, is_doubtful=self._may_repeat(fragment))
                for calls in (self._calls, self._held, self._new):
                    calls.append(call)
            self._add(call, fragment)
            deltas += self._advance(call)
        return deltas

    def end(self, *, is_cut: bool = False) -> list[ToolCallDelta]:
        """Returns what was held back.

        Args:
            is_cut: True if the answer met a limit, so that a name may be missing.

        Raises:
            ValueError: If a call has no name, and the request does not tell it.
        """
        deltas: list[ToolCallDelta] = []
        for call in self._calls:
            text = "".join(call.arguments)
            if not call.name and text.strip():
                if any(other.name and other.has_same_arguments(text) for other in self._calls):
                    continue
                if is_cut:
                    continue
                if len(self._tools) != 1:
                    raise ValueError("a tool call without a name")
                (call.name,) = self._tools
            deltas += self._advance(call, is_named=True, is_whole=True)
        return deltas

    def _without_repetitions(self, fragments: list[Fragment], is_whole: bool) -> list[Fragment]:
        """Leaves out whole calls that have come before."""
        left, kept = list(self._calls), list[Fragment]()
        for fragment in fragments:
            same = [
                call
                for call in left
                if fragment.name == call.name
                and call.has_same_arguments(fragment.arguments)
                and (is_whole or not fragment.id or not call.ids or fragment.id in call.ids)
            ]
            if not same or not fragment.name:
                kept.append(fragment)
            else:
                left.remove(same[0])
                same[0].state |= fragment.state
        # Without ids, one more call like an earlier one is told from a repetition by all being there again.
        return kept if is_whole or not left or any(fragment.id for fragment in fragments) else fragments

    def _call_of(self, fragment: Fragment) -> Call | None:
        """Returns the call that a fragment belongs to; None if it begins one."""
        call = self._candidate(fragment)
        return call if call is not None and self._continues(call, fragment) else None

    def _candidate(self, fragment: Fragment) -> Call | None:
        if not self._calls:
            return None
        last = self._calls[-1]
        if fragment.id and (same := [call for call in self._calls if fragment.id in call.ids]):
            if of_index := [call for call in same if call.index == fragment.index]:
                return of_index[-1]
            # Some servers give different calls the same id.
            is_other = fragment.index is not None and same[-1].index is not None
            is_other = is_other and (bool(fragment.name) or same[-1].is_complete)
            if not is_other:
                return same[-1]
        if fragment.index is not None:
            if same := [call for call in self._calls if call.index == fragment.index]:
                return same[-1]
            is_rest = not fragment.name and not fragment.id and last.index is None
            return last if is_rest else None
        if fragment.place is not None:
            same = [call for call in self._calls if call.place == fragment.place and call.index is None]
            return same[-1] if same else (None if fragment.name or fragment.id else last)
        return last

    @property
    def _are_numbered(self) -> bool:
        """True if the server gives different calls different indices."""
        return any(call.index not in (None, self._calls[0].index) for call in self._calls)

    def _may_repeat(self, fragment: Fragment) -> bool:
        """Tells whether a fragment that begins a call may be an empty last piece of the call before."""
        last = self._calls[-1] if self._calls else None
        return (
            last is not None
            and fragment.name == last.name
            and not (fragment.arguments.strip() or fragment.id)
            and fragment.index == last.index
            and not any(last is new for new in self._new)
        )

    def _continues(self, call: Call, fragment: Fragment) -> bool:
        """Tells whether a fragment is one more piece of the call that it would belong to by its id and index."""
        other_id = bool(fragment.id and call.ids and fragment.id not in call.ids)
        same_id = bool(fragment.id and fragment.id in call.ids)
        if not fragment.name:
            if not call.is_complete or not fragment.arguments.lstrip().startswith("{"):
                return True
            if call.is_placeholder:
                return not other_id
            return same_id and call.has_same_arguments(fragment.arguments)
        if not call.name:
            return not (other_id and call.is_complete)
        if any(call is new for new in self._new) and not same_id:
            return False
        if fragment.name == call.name:
            if call.is_complete:
                # Where calls are numbered, one that has been there with its number is repeated.
                is_known = same_id or (fragment.index is not None and self._are_numbered)
                return is_known and (
                    (same_id and (call.is_placeholder or not fragment.arguments.strip()))
                    or call.has_same_arguments(fragment.arguments)
                )
            # A new id in each fragment, or a second call after one without arguments.
            return bool(not other_id or call.arguments or fragment.arguments.strip())
        if call.arguments:
            return False
        return self._is_piece_of_name(call, fragment, other_id)

    def _is_piece_of_name(self, call: Call, fragment: Fragment, other_id: bool) -> bool:
        if not self._tools:
            return not other_id and (fragment.index is not None or bool(fragment.id))
        if self._begins_a_name(call.name + fragment.name):
            return not other_id or call.name not in self._tools
        if fragment.name.startswith(call.name) and self._begins_a_name(fragment.name):
            return not other_id
        return not other_id and call.name not in self._tools and fragment.name not in self._tools

    def _begins_a_name(self, text: str) -> bool:
        return any(tool.startswith(text) for tool in self._tools)

    def _add(self, call: Call, fragment: Fragment) -> None:
        if fragment.index is not None and call.index is None:
            call.index = fragment.index
        if fragment.id:
            call.id = call.id or fragment.id
            call.ids.add(fragment.id)
        call.state |= fragment.state
        is_repeated = call.is_complete and (fragment.name == call.name or fragment.arguments.lstrip().startswith("{"))
        if fragment.name and call.number < 0:
            call.name = self._grown_name(call.name, fragment.name)
        if not fragment.arguments or (is_repeated and not call.is_placeholder):
            return
        if call.is_placeholder and not call.sent:
            call.arguments, call.object, call.value = [], ObjectScanner(), None
        if not call.arguments and not fragment.arguments.strip():
            return
        call.arguments.append(fragment.arguments)
        call.value = None
        call.object.feed(fragment.arguments)

    def _grown_name(self, name: str, piece: str) -> str:
        if piece == name:
            is_double = name not in self._tools and self._tools and self._begins_a_name(name + piece)
            return name + piece if is_double else name
        if name and piece.startswith(name) and not (self._tools and self._begins_a_name(name + piece)):
            return piece  # the name so far is repeated each time
        return name + piece

    def _advance(self, call: Call, *, is_named: bool = False, is_whole: bool = False) -> list[ToolCallDelta]:
        """Returns the events that a call is ready for.

        A name that may go on is held back, and so are arguments without a name, arguments that are no object, and an
        empty object that may stand in for arguments to come.

        Args:
            call: The call.
            is_named: True if its name will not go on.
            is_whole: True if nothing more will come.
        """
        if not call.name or (call.is_doubtful and not call.arguments):
            return []
        is_first = call.number < 0
        if is_first:
            is_settled = call.name in self._tools and sum(tool.startswith(call.name) for tool in self._tools) == 1
            if not (is_named or is_settled or call.arguments):
                return []
            call.number, self._sent = self._sent, self._sent + 1
            call.id = unique_call_id(call.id, self._ids)
        if is_whole and call.is_wrapped:
            call.unwrap()
        is_held = (call.is_placeholder or call.is_wrapped) and not is_whole
        ready = [] if is_held else call.arguments[call.sent :]
        call.sent += len(ready)
        deltas = [ToolCallDelta(call.number, arguments_fragment=piece) for piece in ready]
        if not is_first:
            return deltas
        first = ready[0] if ready else ""
        return [ToolCallDelta(call.number, call.id, call.name, first), *deltas[1:]]
