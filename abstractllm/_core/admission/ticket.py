"""A request as admission sees it."""

from __future__ import annotations

import sys
from collections.abc import Hashable

from abstractllm.requests import GenerationRequest
from abstractllm.types import Image, Reasoning, Text, ToolCall, ToolResult

__all__ = ["Ticket", "measure"]

_IMAGE_CHARACTERS = 4096
"""Characters of text that count as much as one image: its tokens do not follow its bytes."""
_MOST_PROMPT_TOKENS, _MOST_TOKENS_PER_CHARACTER, _MOST_ANSWER_TOKENS = 1 << 14, 4, 1 << 20
"""More is not believed: tokens of a prompt beside those of its characters, and those of an answer without a limit."""


class Ticket:
    """One request that wants a turn.

    Args:
        caller: The caller's name; callers take turns.
        size: Bytes that the request holds while it waits.
        characters: Characters of its text, from which its tokens are estimated; `size` if absent.
        max_tokens: The most tokens of its answer; None if it sets no limit.
        deadline: The time, on the clock of `time.monotonic`, at which the whole answer must be there; None for none.
        is_count: True if it only asks for the number of its tokens.
    """

    def __init__(
        self,
        caller: str,
        size: int,
        *,
        characters: int | None = None,
        max_tokens: int | None = None,
        deadline: float | None = None,
        is_count: bool = False,
    ) -> None:
        self.caller = caller
        self.size = size
        self.characters = size if characters is None else characters
        self.max_tokens = max_tokens
        self.deadline = deadline
        self.is_count = is_count
        self.number = 0
        """Its place in the order of arrival."""
        self.prompt_tokens = self.answer_tokens = 0
        """Expected tokens."""
        self.charged = 0
        """Tokens that its caller's turns were charged so far."""
        self.reserved = 0
        """Tokens that were taken from its caller's budget."""
        self.most_answer_tokens = 0
        """Tokens that its answer will hardly exceed."""
        self.arrived_at = 0.0
        self.has_waited = False
        """True if something was in front of it when it came."""
        self.taken_at: float | None = None
        """The time at which it had its turn; None while it waits."""

    @property
    def lane(self) -> Hashable:
        """The line that it stands in: one that is held up holds up no others of its caller."""
        return None

    @property
    def tokens(self) -> int:
        """Expected tokens of prompt and answer."""
        return self.prompt_tokens + self.answer_tokens

    def believable(self, prompt_tokens: int, answer_tokens: int) -> tuple[int, int]:
        """Returns the tokens that it has taken, as far as they are possible.

        A server that says -1 as a number without a sign would else lock the caller out for a month.
        """
        most_prompt_tokens = _MOST_PROMPT_TOKENS + _MOST_TOKENS_PER_CHARACTER * self.characters
        most_answer_tokens = _MOST_ANSWER_TOKENS if self.max_tokens is None else self.max_tokens
        return min(prompt_tokens, most_prompt_tokens), min(answer_tokens, most_answer_tokens)


def measure(request: GenerationRequest) -> tuple[int, int]:
    """Returns the bytes of memory that a request holds, and the characters of its text.

    An image counts as a fixed number of characters. Nothing is encoded or copied for it.
    """
    texts = [request.prompt or "", request.system_prompt or ""]
    for tool in request.tools:
        texts += (tool.description, tool.parameters_json_schema)
    images: list[bytes] = []
    for message in request.messages:
        for part in message.parts:
            match part:
                case Text(text=text) | Reasoning(text=text) | ToolResult(content=text):
                    texts.append(text)
                case ToolCall():
                    texts += (part.name, part.arguments_json)
                case Image():
                    images.append(part.data)
    size = sum(map(sys.getsizeof, texts)) + sum(map(sys.getsizeof, images))
    # What a server was sent also has options, labels and signed thoughts in it.
    size = max(size, request.record.request_bytes)
    return size, sum(map(len, texts)) + _IMAGE_CHARACTERS * len(images)
