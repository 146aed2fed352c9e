"""The calls of one answer, as they are emitted while they are read."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Mapping
from typing import Any

from abstractllm.providers.huggingface.protocol.messages import CallPiece
from abstractllm.providers.huggingface.worker.parsing.json_reader import read_json
from abstractllm.providers.huggingface.worker.parsing.reader import Parsing, Reader

__all__ = ["ID_LENGTH", "LONGEST_NAME", "CallEmitter"]

ID_LENGTH = 9
"""Letters and digits of a call's id: Mistral's templates insist on this many, others take any id."""
LONGEST_NAME = 200
"""Characters in which a call's name, or an argument's, must end."""
_ID_CHARACTERS = string.ascii_letters + string.digits


class CallEmitter:
    """Emits the calls of one answer.

    Args:
        reader: The answer.
        tools: The schemas of the offered tools' arguments, by name.
        emit: Called with each piece of a call.
    """

    def __init__(
        self, reader: Reader, tools: Mapping[str, Mapping[str, Any]], emit: Callable[[CallPiece], None]
    ) -> None:
        self._reader = reader
        self._emit = emit
        self.tools = tools
        """The schemas of the offered tools' arguments, by name."""
        self._begun = 0
        """Calls of which something has been emitted."""
        self.complete = 0
        """Calls whose arguments are complete."""
        self.emitted_to = -1
        """The place up to which the text has been emitted as part of a call; -1 before."""

    def stream_arguments(self, name: str) -> Parsing[bool]:
        """Begins a call and emits its arguments, which are JSON, as they come.

        Returns:
            Whether they were well formed.
        """
        self.begin(name)
        if not (yield from read_json(self._reader, self.emit_arguments)):
            return False
        self.complete += 1
        return True

    def emit_call(self, name: str, arguments: str) -> None:
        """Emits a call whose arguments are complete."""
        self.begin(name)
        self.emit_arguments(arguments)
        self.complete += 1

    def begin(self, name: str) -> None:
        """Emits the id and the name of a call."""
        call_id = "".join(secrets.choice(_ID_CHARACTERS) for _ in range(ID_LENGTH))
        self._emit(CallPiece(self._begun, call_id, name, ""))
        self._begun += 1
        self.emitted_to = self._reader.place

    def emit_arguments(self, fragment: str) -> None:
        """Emits a piece of the arguments of the call that was begun last."""
        self._emit(CallPiece(self._begun - 1, "", "", fragment))
        self.emitted_to = self._reader.place
