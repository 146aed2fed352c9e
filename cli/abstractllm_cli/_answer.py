"""An answer's events, shown to a person as they come."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from abstractllm_cli._llm import Completion, Event, Message
from abstractllm_cli._output import kind_of, note, print_dim, print_text

_INCOMPLETE = {
    "max_tokens": "the answer was cut at the greatest number of tokens",
    "content_filter": "the provider's filter cut the answer",
    "refusal": "the model declined to answer",
    "tool_calls": "the model asks for tools to be called; --json shows which",
}


class Answer:
    """An answer on its way to the standard output, and the part of it that has come so far."""

    def __init__(self) -> None:
        self.text = ""
        self.message: Message | None = None
        """The whole answer as a message for the next turn, once it is there."""

    def show(self, events: Iterator[Event]) -> None:
        """Writes one answer's text as it comes, and to a terminal the reasoning before it.

        The last line is ended however the answer ends.
        """
        is_reasoning = False
        try:
            for event in events:
                kind = kind_of(event)
                if kind == "reasoning_delta" and sys.stdout.isatty():
                    is_reasoning = True
                    print_dim(event.text)
                elif kind == "text_delta":
                    if is_reasoning:
                        print_dim("\n\n")
                        is_reasoning = False
                    self.text += event.text
                    print_text(event.text)
                elif kind == "finished":
                    self.message = event.message
                    ending = event
        finally:
            if self.message is not None or self.text:
                end_line(self.text)
        note_ending(ending)


def end_line(text: str) -> None:
    """Ends the last line of an answer unless the answer itself ended it."""
    if not text.endswith("\n"):
        print_text("\n")


def note_ending(ending: Event | Completion) -> None:
    """Notes on the standard error why an answer is not a whole one."""
    if reason := _INCOMPLETE.get(ending.finish_reason):
        note(f"note: {reason}")
