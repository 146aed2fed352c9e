"""One answer as its tokens come: reasoning, text, calls, log-probabilities, stop sequences, why it ends."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from abstractllm._core.stop_scanner import StopScanner
from abstractllm.enums import FinishReason
from abstractllm.providers.huggingface.protocol.messages import Delta, Done, Logprob, TopToken, join_deltas
from abstractllm.providers.huggingface.worker.parsing.answer_parser import (
    AnswerParser,
    Piece,
    ReasoningPiece,
    TextPiece,
)
from abstractllm.providers.huggingface.worker.structured.grammar import ExactText
from abstractllm.providers.huggingface.worker.token_decoder import Detokenizer

if TYPE_CHECKING:
    from abstractllm.providers.huggingface.worker.model import LoadedModel
    from abstractllm.providers.huggingface.worker.request import EngineRequest

__all__ = ["CANCELLED", "OutputProcessor", "Report"]

CANCELLED = "cancelled"

Report = tuple[float, list[int], list[float]]
"""The log-probability of the chosen token, the likeliest tokens, and theirs."""


class OutputProcessor:
    """Turns one request's tokens into messages.

    Stop sequences are looked for in the answer's text alone, and do not reach across a tool call; log-probabilities are
    those of the tokens that text is made of.

    Args:
        loaded: The model.
        job: The request.
        send: Is given the pieces of the answer.
    """

    def __init__(self, loaded: LoadedModel, job: EngineRequest, send: Callable[[Delta], None]) -> None:
        template, tools = loaded.prompt_builder.template, job.request.conversation.tools
        self._vocabulary = loaded.vocabulary
        self._ends = loaded.ends
        self._job = job
        self._send = send
        self._grammars = loaded.grammars
        self._text = self._new_text()
        self._parser = AnswerParser(
            template.reasoning_block,
            job.is_reasoning,
            template.call_format if tools else None,
            {tool.name: json.loads(tool.schema) for tool in tools},
        )
        self._special = template.special_markers
        self._reasoning_tokens = 0 if template.reasoning_block else None
        self._stops = StopScanner(job.request.sampling.stop or ())
        self._written = 0
        """Characters that the parser has been given."""
        self._waiting: deque[tuple[int, int, Logprob]] = deque()
        """Log-probabilities of tokens that may yet turn out to be text, with the place of what they wrote."""
        self._parsed = 0
        """Characters of text that the stop sequences have been looked for in."""
        self._held: list[tuple[int, Logprob]] = []
        """Log-probabilities of tokens whose text is not sent yet, with the place where that text begins."""
        self._sent = 0
        """Characters of text sent."""
        self._kept: list[Delta] = []
        """What is sent at the end of the step, or at the end of an answer that is wanted whole."""
        self._first_token: float | None = None
        """When the first token came."""
        self.finish_reason = ""
        """Set when the answer is over."""

    @property
    def is_answering(self) -> bool:
        """Whether reasoning is over, so that what comes next is the answer itself."""
        return self._parser.is_answering

    def take(self, token: int, report: Report | None = None) -> bool:
        """Takes the next token, and says whether the answer is over."""
        if self._job.cancelled:
            self.finish_reason = CANCELLED
            return True
        self._job.output_tokens += 1
        if self._first_token is None:
            self._first_token = time.monotonic()
        matcher = self._job.matcher
        if matcher is not None and matcher.is_on:
            matcher.accept(token)
        if token in self._ends:
            self.finish_reason = FinishReason.STOP
            return True
        begin, was_answering = self._written, self._parser.is_answering
        if token in self._special:
            pieces = self._parse(self._text.flush()) + self._parse(self._special[token], is_special=True)
            self._text = self._new_text()
        else:
            pieces = self._parse(self._text.push(token))
        if report is not None:
            self._waiting.append((begin, max(self._written, begin + 1), self._logprob(token, report)))
        if self._parser.has_reasoned and not was_answering:
            self._reasoning_tokens = self._job.output_tokens
        self._write(pieces)
        if matcher is not None and not matcher.is_on:
            matcher.is_on = self._parser.is_answering
        if self._stops.found:
            self.finish_reason = FinishReason.STOP_SEQUENCE
        elif matcher is not None and matcher.is_complete:
            self.finish_reason = FinishReason.STOP
        elif self._job.output_tokens >= self._job.max_tokens:
            self.finish_reason = FinishReason.MAX_TOKENS
        if not self._job.request.whole:
            self._send_kept()
        return bool(self.finish_reason)

    def done(self) -> Done:
        """Sends what was held back and says how the answer ended."""
        if self.finish_reason in (FinishReason.STOP, FinishReason.MAX_TOKENS):
            self._write(self._parse(self._text.flush()) + self._parser.end())
            if self._stops.found:
                self.finish_reason = FinishReason.STOP_SEQUENCE
            else:
                if self._parser.is_text:  # tokens at the end that have written nothing
                    self._held += [
                        (self._parsed, logprob) for begin, _, logprob in self._waiting if begin >= self._written
                    ]
                self._give(self._stops.flush(), last=True)
        if self.finish_reason == FinishReason.STOP and self._parser.complete_calls:
            self.finish_reason = FinishReason.TOOL_CALLS
        self._send_kept()
        return Done(
            self._job.request.id,
            self.finish_reason,
            self._stops.found,
            len(self._job.prompt),
            self._job.output_tokens,
            None if self._first_token is None else time.monotonic() - self._first_token,
            self._reasoning_tokens,
            self._job.cached_tokens,
        )

    def _parse(self, text: str, is_special: bool = False) -> list[Piece]:
        self._written += len(text)
        return self._parser.push(text, is_special)

    def _write(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            if self._stops.found:
                return
            if isinstance(piece, TextPiece):
                self._align(piece)
                self._give(self._stops.push(piece.text))
                continue
            if rest := self._stops.flush():
                self._give(rest)
            delta = Delta(self._job.request.id, output_tokens=self._job.output_tokens)
            if isinstance(piece, ReasoningPiece):
                self._kept.append(replace(delta, reasoning=piece.text))
            else:
                self._kept.append(replace(delta, call=piece))

    def _align(self, piece: TextPiece) -> None:
        """Finds the tokens that have written a piece of text; those before it have written something else."""
        while self._waiting and self._waiting[0][0] < piece.end:
            begin, end, logprob = self._waiting.popleft()
            if end > piece.begin:
                self._held.append((self._parsed + max(0, begin - piece.begin), logprob))
        self._parsed += len(piece.text)

    def _give(self, text: str, last: bool = False) -> None:
        self._sent += len(text)
        ready = [logprob for begin, logprob in self._held if begin < self._sent or last]
        if not text and not (ready and last):
            return
        self._held = self._held[len(ready) :]
        self._kept.append(Delta(self._job.request.id, text, tuple(ready), self._job.output_tokens))

    def _send_kept(self) -> None:
        for delta in join_deltas(self._kept):
            self._send(delta)
        self._kept.clear()

    def _new_text(self) -> Detokenizer | ExactText:
        return Detokenizer(self._vocabulary) if self._job.matcher is None else ExactText(self._grammars)

    def _logprob(self, token: int, report: Report) -> Logprob:
        value, ids, values = report
        bytes_of = self._vocabulary.token_bytes
        top = tuple(TopToken(id, bytes_of(id), logprob) for id, logprob in zip(ids, values, strict=True))
        return Logprob(token, bytes_of(token), value, top)
