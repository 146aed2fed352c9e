"""The marks of reasoning, answers and turns that a model writes, as its chat template and its tokenizer tell them."""
# ruff: noqa: RUF001 - models' marks are what they are

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from abstractllm.providers.huggingface.protocol.messages import ToolCall, Turn
from abstractllm.providers.huggingface.worker.parsing.channel_marks import (
    ANALYSIS,
    CALL,
    CHANNEL,
    CONSTRAIN,
    END,
    MESSAGE,
    RETURN,
    START,
)
from abstractllm.providers.huggingface.worker.prompt.message_form import MessageForm, Render, tool_message

__all__ = ["CHANNEL_HEADER", "AnswerMarks", "find_marks", "holding_tokens", "turn_ends", "unseen_marks"]

_REASONING_BLOCKS = (
    # DeepSeek R1, Qwen 3, GLM 4.5, MiniMax, Hunyuan, Ernie, Granite, SmolLM 3, Phi-4, Nemotron.
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),  # Magistral, Ministral 3
    ("<thinking>", "</thinking>"),
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    ("<|channel>thought", "<channel|>"),  # Gemma 4
    ("<thought>", "</thought>"),  # EXAONE Deep
    ("<longcat_think>", "</longcat_think>"),  # LongCat
    ("◁think▷", "◁/think▷"),  # Kimi-VL
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThinker, Sky-T1
    ("<reasoning>", "</reasoning>"),  # Reka Flash 3
    ("<|thought_start|>", "<|thought_end|>"),  # MiniCPM 3 and 4
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),  # Apriel
)
"""The texts by which models mark their reasoning."""
_NEXT_MESSAGE = "<|begin|>assistant"
_ANSWER_FRAMES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("<|START_RESPONSE|>",), "<|END_RESPONSE|>"),  # Command A
    (("<|START_TEXT|>",), "<|END_TEXT|>"),  # Command A Reasoning
    (("<response>",), "</response>"),  # Granite 3.3, Ernie 4.5
    (("<answer>",), "</answer>"),  # Hunyuan
    (("<|begin_of_solution|>",), "<|end_of_solution|>"),  # OpenThinker, Sky-T1
    (("<|content|>", f"{_NEXT_MESSAGE}<|content|>"), "<|end|>"),  # Solar Open
    (("[BEGIN FINAL RESPONSE]", ""), "[END FINAL RESPONSE]"),  # Apriel
)
"""The texts of which models write one before the text of an answer, and the text behind it."""
_CHANNEL_MARKS = (START, CHANNEL, MESSAGE, END, CALL, RETURN, CONSTRAIN)
"""The marks of messages of channels; a template that writes the first three has these."""
CHANNEL_HEADER = f"{START}assistant"
"""The end of a prompt behind which the header of a message goes on."""
_SOLAR_MARKS = ("<|think|>", "<|content|>", _NEXT_MESSAGE)
"""The marks of Solar Open, whose reasoning ends as a turn does."""
_CHANNEL_ENDS = (RETURN, CALL)
_MARK = re.compile(r"<[|｜].+>|<.+[|｜]>|<(start|end)_of_turn>|\[/?[A-Z_]+\]")
"""The form of a mark that is never text, also where a tokenizer does not call it special."""
_WORD = "probeword"


@dataclass(frozen=True, slots=True)
class AnswerMarks:
    """The texts by which a model marks the parts of an answer."""

    reasoning: tuple[str, str] | None = None
    """The texts that begin and end reasoning; None if reasoning is not marked."""
    frame: tuple[tuple[str, ...], str] | None = None
    """The texts of which the model may write one before the text of an answer, and the text behind it."""
    has_channels: bool = False
    """True if the model writes messages of channels, as GPT-OSS."""

    @property
    def texts(self) -> tuple[str, ...]:
        """All of them."""
        frame = (*self.frame[0], self.frame[1]) if self.frame else ()
        texts = (*(self.reasoning or ()), *frame, *(_CHANNEL_MARKS if self.has_channels else ()))
        return tuple(text for text in texts if text)


def find_marks(tokenizer: Any, source: str, render: Render, form: MessageForm) -> AnswerMarks:
    """Returns the marks of a model's answers, none where there is no template.

    Args:
        tokenizer: The tokenizer.
        source: The template's text.
        render: Renders messages with the template.
        form: The form in which it takes them.
    """
    if not source:
        return AnswerMarks()
    if all(mark in source for mark in _CHANNEL_MARKS[:3]):
        return AnswerMarks((f"{CHANNEL}{ANALYSIS}{MESSAGE}", END), has_channels=True)
    block = _described_block(tokenizer) or _written_block(render, form) or _named_block(tokenizer, source)
    return AnswerMarks(block, _answer_frame(tokenizer, source))


def _described_block(tokenizer: Any) -> tuple[str, str] | None:
    """Returns the texts around reasoning by the tokenizer's own description of answers, its `response_template`."""
    fields = (getattr(tokenizer, "response_template", None) or {}).get("fields", {})
    for name in ("reasoning_content", "thinking", "reasoning"):
        field = fields.get(name, {})
        if isinstance(field.get("open"), str) and isinstance(field.get("close"), str):
            return field["open"].strip(), field["close"].strip()
    return None


def _written_block(render: Render, form: MessageForm) -> tuple[str, str] | None:
    """Returns the known pair that a template writes around the reasoning of an earlier answer."""
    call = ToolCall("probe1234", "probe", "{}")
    for answer in (Turn("assistant", "Hello.", _WORD), Turn("assistant", "", _WORD, calls=(call,))):
        before, is_written, behind = (render(form.messages([Turn("user", "Hello"), answer])) or "").partition(_WORD)
        for opening, closing in _REASONING_BLOCKS if is_written else ():
            if before.rstrip().endswith(opening) and behind.lstrip().startswith(closing):
                return opening, closing
    return None


def _named_block(tokenizer: Any, source: str) -> tuple[str, str] | None:
    """Returns the known pair of which a template names one text, or of which both are tokens."""
    added = tokenizer.added_tokens_encoder
    named = [block for block in _REASONING_BLOCKS if block[0] in source or block[1] in source]
    if all(mark in source for mark in _SOLAR_MARKS):
        return _SOLAR_MARKS[0], "<|end|>"
    return next(iter(named), None) or next(
        (block for block in _REASONING_BLOCKS if block[0] in added and block[1] in added), None
    )


def _answer_frame(tokenizer: Any, source: str) -> tuple[tuple[str, ...], str] | None:
    """Returns the texts around the text of an answer, which a template has, or which are tokens."""
    added = tokenizer.added_tokens_encoder
    for openings, closing in _ANSWER_FRAMES:
        if any(openings[0] in texts and closing in texts for texts in (source, added)):
            return openings, closing
    return None


def holding_tokens(tokenizer: Any, texts: Iterable[str]) -> dict[int, str]:
    """Returns the special tokens, by id, that are, or are parts of, some texts."""
    literals = "\0".join(texts)
    return {id: text for id, text in _special_tokens(tokenizer).items() if text in literals}


def unseen_marks(tokenizer: Any, texts: str, others: Mapping[int, str]) -> dict[int, str]:
    """Returns the tokens, by id, that a template writes as marks though the tokenizer does not call them special.

    Args:
        tokenizer: The tokenizer.
        texts: The template's text, and what it writes.
        others: Tokens that mean something else.
    """
    special = _special_tokens(tokenizer)
    return {
        id: token.content
        for id, token in tokenizer.added_tokens_decoder.items()
        if id not in special and id not in others and token.content in texts and _MARK.fullmatch(token.content)
    }


def turn_ends(
    tokenizer: Any, render: Render, form: MessageForm, marks: AnswerMarks, others: Iterable[str]
) -> frozenset[int]:
    """Returns the tokens with which an answer ends, as the template writes them behind one.

    Args:
        tokenizer: The tokenizer.
        render: Renders messages with the template.
        form: The form in which it takes them.
        marks: The marks of the model's answers.
        others: Marks that do not end an answer.
    """
    tokens = _special_tokens(tokenizer)
    if marks.has_channels:
        return frozenset(id for id, text in tokens.items() if text in _CHANNEL_ENDS)
    added = tokenizer.added_tokens_decoder.items()
    tokens |= {id: token.content for id, token in added if _MARK.fullmatch(token.content)}
    user, answer = Turn("user", "Hello"), Turn("assistant", _WORD)
    inner = _inside_answers(render, form)
    ends = set()
    for turns in ([user, answer], [user, answer, user]):
        behind = (render(form.messages(turns)) or "").rpartition(_WORD)[2].lstrip()
        candidates = [id for id, text in tokens.items() if text and behind.startswith(text)]
        end = max(candidates, key=lambda id: len(tokens[id]), default=None)
        if end is not None and tokens[end] not in others and tokens[end] not in inner:
            ends.add(end)
    return frozenset(ends)


def _inside_answers(render: Render, form: MessageForm) -> str:
    """Returns what a template writes between the reasoning, the text and the call of one message."""
    call = ToolCall("probe1234", "endword", json.dumps({"key": "endword"}))
    tool = tool_message("endword", "A probe.", {"type": "object", "properties": {}})
    answers = [Turn("assistant", "endword", _WORD), Turn("assistant", _WORD, calls=(call,))]
    answers.append(Turn("assistant", "", _WORD, calls=(call,)))
    inside = []
    for answer in answers:
        messages = form.messages([Turn("user", "Hello"), answer])
        for options in ({"tools": [tool]}, {}):
            behind = (render(messages, **options) or "").partition(_WORD)[2]
            inside.append(behind.rpartition("endword")[0])
    return "\0".join(inside)


def _special_tokens(tokenizer: Any) -> dict[int, str]:
    """Returns the special tokens by id."""
    added = tokenizer.added_tokens_decoder
    special = {id for id, token in added.items() if token.special} | set(tokenizer.all_special_ids)
    return {id: added[id].content if id in added else tokenizer.convert_ids_to_tokens(id) for id in special}
