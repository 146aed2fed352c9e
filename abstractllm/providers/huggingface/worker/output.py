"""One answer while its tokens come: text, reasoning, calls, log-probabilities, stop sequences, and its end."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable

from msgspec.structs import replace

from abstractllm._core.stop_scanner import StopScanner
from abstractllm.enums import FinishReason
from abstractllm.providers.huggingface.protocol.messages import Delta, Done, Logprob, TopToken, join_deltas
from abstractllm.providers.huggingface.worker.detokenizer import Detokenizer, ExactDetokenizer
from abstractllm.providers.huggingface.worker.logprobs import LogprobAligner, TokenLogprobs
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.parsing.answer_parser import Piece, ReasoningPiece, TextPiece
from abstractllm.providers.huggingface.worker.request import EngineRequest

__all__ = ["CANCELLED", "OutputProcessor"]

CANCELLED = "cancelled"

_COUNT_SECONDS = 0.1
"""The interval in which the count of an answer that is wanted whole is sent: it may end before its end."""


class OutputProcessor:
    """Turns one request's tokens into messages.

    Stop sequences are searched in the answer's text alone, and never across a tool call. A special token is no text,
    but for a stop sequence that holds its name it reads as that name. Log-probabilities are sent of the tokens that
    the text is made of.

    Args:
        loaded: The model.
        request: The request.
        send: Called with each piece of the answer.
    """

    def __init__(self, loaded: LoadedModel, request: EngineRequest, send: Callable[[Delta], None]) -> None:
        template, tools = loaded.prompt_builder.template, request.message.conversation.tools
        self._loaded = loaded
        self._ends = loaded.ends
        self._forces_end = bool(loaded.rules.forced_eos_token_id) and request.matcher is None
        self._request = request
        self._send = send
        self._detokenizer = self._new_detokenizer()
        self._special_markers = template.parser_marks(bool(tools))
        """The tokens that the parser reads as their texts."""
        self._parser = template.new_parser(request.is_reasoning, {tool.name: json.loads(tool.schema) for tool in tools})
        self._output_length = 0
        """Characters of output that the parser has been given."""
        self._reasoning_tokens = 0 if template.reasoning_block else None
        self._stops = StopScanner(request.message.sampling.stop or ())
        self._unplaced: deque[tuple[int, str]] = deque()
        """Special tokens of stop sequences behind output that the parser holds back: the place and the name of each."""
        self._logprobs = LogprobAligner() if request.message.sampling.top_logprobs is not None else None
        self._unsent: list[Delta] = []
        """Pieces that are sent at the end of the step, or, of an answer that is wanted whole, at its end."""
        self._first_token_at: float | None = None
        """The time of the first token."""
        self._counted_at = -math.inf
        """The time at which the count of an answer that is wanted whole was sent."""
        self.finish_reason = ""
        """The reason why the answer is over; empty until then."""

    def take(self, token: int, logprobs: TokenLogprobs | None = None) -> bool:
        """Takes the next token and sends what is certain now.

        Args:
            token: The token.
            logprobs: Its log-probabilities, if the request wants them.

        Returns:
            Whether the answer is over.

        Raises:
            AbstractLLMError: If the answer's format cannot be continued.
        """
        request = self._request
        if request.cancelled:
            self.finish_reason = CANCELLED
            return True
        request.output_tokens += 1
        if self._first_token_at is None:
            self._first_token_at = time.monotonic()
        matcher = request.matcher
        if matcher is not None and matcher.is_active:
            matcher.accept(token)
        if token in self._ends:
            # Some models' generation configurations force an end where the length would cut the answer.
            is_cut = self._forces_end and request.output_tokens >= request.max_tokens
            self.finish_reason = FinishReason.MAX_TOKENS if is_cut else FinishReason.STOP
            return True
        self._read(token, logprobs)
        if matcher is not None and not matcher.is_active:
            matcher.is_active = self._parser.is_answering
        if self._stops.stop_sequence:
            self.finish_reason = FinishReason.STOP_SEQUENCE
        elif matcher is not None and matcher.is_complete:
            self.finish_reason = FinishReason.STOP
        elif request.output_tokens >= request.max_tokens:
            self.finish_reason = FinishReason.MAX_TOKENS
        if request.message.whole:
            self._send_count()
        else:
            self._send_all()
        return bool(self.finish_reason)

    def done(self) -> Done:
        """Sends what was held back and returns the last message of the answer."""
        if self.finish_reason in (FinishReason.STOP, FinishReason.MAX_TOKENS):
            self._write_rest()
        if self.finish_reason == FinishReason.STOP and self._parser.complete_calls:
            self.finish_reason = FinishReason.TOOL_CALLS
        self._send_all()
        first, begun = self._first_token_at, self._request.begun_at
        return Done(
            self._request.message.id,
            self.finish_reason,
            self._stops.stop_sequence,
            len(self._request.prompt),
            self._request.output_tokens,
            None if first is None else time.monotonic() - first,
            None if first is None or begun is None else first - begun,
            self._reasoning_tokens,
            self._request.cached_tokens,
        )

    def _read(self, token: int, logprobs: TokenLogprobs | None) -> None:
        """Adds what is certain with a token; a special one that is a marker counts as the text of the marker."""
        begin, was_answering = self._output_length, self._parser.is_answering
        name = self._loaded.token_decoder.special_tokens.get(token)
        is_marker = token in self._special_markers
        is_text = name is None and not is_marker
        logprob = self._logprob(token, logprobs, is_text) if logprobs is not None else None
        if is_marker:
            pieces = self._parse(self._detokenizer.flush()) + self._parse(self._special_markers[token], is_special=True)
        elif name and self._stops.is_in_a_stop(name):
            pieces = self._parse(self._detokenizer.flush())
        else:
            pieces, name = self._parse(self._detokenizer.push(token)), None
        if self._logprobs is not None and logprob is not None:
            self._logprobs.add(begin, self._output_length, logprob)
        if self._parser.has_reasoned and not was_answering:
            self._reasoning_tokens = self._request.output_tokens
        self._write(pieces)
        if self._logprobs is not None:
            self._logprobs.drop(self._parser.settled)
        if name and not is_marker:
            self._write_special(name)

    def _parse(self, text: str, is_special: bool = False) -> list[Piece]:
        self._output_length += len(text)
        return self._parser.push(text, is_special)

    def _write(self, pieces: Iterable[Piece]) -> None:
        """Adds pieces to what is sent next, up to the first stop sequence."""
        for piece in pieces:
            if self._stops.stop_sequence:
                return
            if isinstance(piece, TextPiece):
                if self._logprobs is not None:
                    self._logprobs.assign(piece)
                self._write_text(self._scan(piece))
                continue
            if rest := self._stops.flush():
                self._write_text(rest)
            delta = Delta(self._request.message.id, output_tokens=self._request.output_tokens)
            if isinstance(piece, ReasoningPiece):
                self._unsent.append(replace(delta, reasoning=piece.text))
            else:
                self._unsent.append(replace(delta, call=piece))

    def _scan(self, piece: TextPiece) -> str:
        """Returns the text that is certain with a piece and the special tokens inside it and at its end."""
        certain, taken = "", 0
        while self._unplaced and self._unplaced[0][0] <= piece.end:
            place, name = self._unplaced.popleft()
            if place >= piece.begin:  # else it stood in what has turned out to be no text
                # Behind the place there may be markers, which are not part of the piece's text.
                end = min(place - piece.begin, len(piece.text))
                certain += self._stops.push(piece.text[taken:end]) + self._stops.push_special(name)
                taken = end
        return certain + self._stops.push(piece.text[taken:])

    def _write_special(self, name: str) -> None:
        """Takes a special token, which ends the text if it completes a stop sequence, also behind held-back output."""
        if not self._parser.is_text:
            return
        held = self._parser.held
        if held and self._stops.ends_with(held, name):
            self._write([TextPiece(held, self._output_length - len(held), self._output_length)])
            held = ""
        if held:
            self._unplaced.append((self._output_length, name))
        else:
            self._write_text(self._stops.push_special(name))

    def _write_rest(self) -> None:
        """Adds what was held back, when no more tokens come."""
        self._write(self._parse(self._detokenizer.flush()) + self._parser.end())
        if self._stops.stop_sequence:
            self.finish_reason = FinishReason.STOP_SEQUENCE
            return
        if self._logprobs is not None and self._parser.is_text:
            self._logprobs.assign_rest(self._output_length)
        self._write_text(self._stops.flush(), is_last=True)

    def _write_text(self, text: str, is_last: bool = False) -> None:
        logprobs = self._logprobs.take(len(text), is_last) if self._logprobs is not None else ()
        if text or logprobs:
            self._unsent.append(Delta(self._request.message.id, text, logprobs, self._request.output_tokens))

    def _send_count(self) -> None:
        """Tells how many tokens an answer has that is sent at its end."""
        now = time.monotonic()
        if now - self._counted_at >= _COUNT_SECONDS:
            self._counted_at = now
            self._send(Delta(self._request.message.id, output_tokens=self._request.output_tokens))

    def _send_all(self) -> None:
        for delta in join_deltas(self._unsent) if len(self._unsent) > 1 else self._unsent:
            self._send(delta)
        self._unsent.clear()

    def _new_detokenizer(self) -> Detokenizer | ExactDetokenizer:
        decoder, request = self._loaded.token_decoder, self._request
        if request.matcher is not None:
            return ExactDetokenizer(decoder, self._loaded.grammars.tokenizer.decode_bytes)
        is_continued = self._loaded.prompt_builder.is_continued(request.message.conversation)
        return Detokenizer(decoder, request.prompt if is_continued else ())

    def _logprob(self, token: int, logprobs: TokenLogprobs, is_text: bool) -> Logprob:
        """Returns a token's log-probability, with the bytes that it adds to the text."""
        value, ids, values = logprobs
        bytes_of = self._detokenizer.bytes_of
        top = tuple(TopToken(id, bytes_of(id), logprob) for id, logprob in zip(ids, values, strict=True))
        return Logprob(token, bytes_of(token) if is_text else b"", value, top)
