"""How an answer's events are shown to a person as they come."""

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
    """An answer on its way to the standard output, and what has come of it so far."""

    def __init__(self) -> None:
        self.text = ""
        self.message: Message | None = None
        """The whole answer as a message for the next turn, once it is there."""

    def show(self, events: Iterator[Event]) -> None:
        """Writes one answer's text as it comes, and to a terminal what a reasoning model thinks before.

        However the answer ends, its last line does.
        """
        thinking = False
        try:
            for event in events:
                kind = kind_of(event)
                if kind == "reasoning_delta" and sys.stdout.isatty():
                    thinking = True
                    print_dim(event.text)
                elif kind == "text_delta":
                    if thinking:
                        print_dim("\n\n")
                        thinking = False
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
    """Ends the last line of an answer, if the answer did not."""
    if not text.endswith("\n"):
        print_text("\n")


def note_ending(ending: Event | Completion) -> None:
    """Notes on the standard error why an answer is not a whole one."""
    if why := _INCOMPLETE.get(ending.finish_reason):
        note(f"note: {why}")
