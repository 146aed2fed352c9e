"""What a model's chat template can do, found by trying it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from transformers.utils.chat_template_utils import _get_template_literal_text, _get_template_variables

from abstractllm.enums import ReasoningEffort
from abstractllm.errors import UnsupportedFeatureError, UnsupportedParameterError
from abstractllm.providers.huggingface.protocol.messages import CallPiece
from abstractllm.providers.huggingface.worker.parsing.answer_parser import AnswerParser
from abstractllm.providers.huggingface.worker.parsing.call_formats import FORMATS, CallFormat

__all__ = ["ChatTemplate", "Framing"]

_BLOCKS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<thinking>", "</thinking>"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
"""How models mark their reasoning."""
_SWITCHES = ("enable_thinking", "thinking", "reasoning")
"""The variables by which templates let reasoning be turned off."""
_LEVELS = "reasoning_effort"
_TAIL = 32
"""Tokens that surely hold the text that begins reasoning."""
_COMMON_LEVELS = ("low", "medium", "high")

_NAME, _KEY, _VALUE, _ID = "get_probe", "probe_key", "probe_value", "prob12345"
_ARGUMENTS = {_KEY: _VALUE}
_QUESTION = {"role": "user", "content": "Hello"}
_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "Gets a probe.",
        "parameters": {"type": "object", "properties": {_KEY: {"type": "string"}}, "required": [_KEY]},
    },
}


@dataclass(frozen=True, slots=True)
class Framing:
    """What stands around the name and the arguments of a call."""

    before: str
    between: str
    after: str


class ChatTemplate:
    """What a model's chat template can do.

    Args:
        tokenizer: A transformers tokenizer; one without a chat template can do nothing.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.format: CallFormat | None = None
        """How the model writes calls; None if no tools can be offered, or their calls would not be understood."""
        self.framing: Framing | None = None
        """A call as the template writes it; None where that is no frame around JSON."""
        self.wants_text = False
        """Whether it takes the arguments of earlier calls as JSON text only, not as objects."""
        self.block: tuple[str, str] | None = None
        """What begins and ends reasoning."""
        self.special: dict[int, str] = {}
        """The special tokens among the texts that mark calls and reasoning."""
        self._opening: int | None = None
        self._switches: tuple[str, ...] = ()
        self._levels: tuple[str, ...] = ()
        if not tokenizer.chat_template:
            return
        try:
            source = tokenizer.get_chat_template()
            variables = _get_template_variables(source)
        except (jinja2.TemplateError, ValueError):  # no Jinja, or no default one: each request is told
            return
        offered = self._render([_QUESTION], tools=[_TOOL]) or ""
        if _NAME in offered:
            self._find_format(offered)
        self.block = _named_block(tokenizer) or next((b for b in _BLOCKS if b[0] in source or b[1] in source), None)
        self._switches = tuple(v for v in _SWITCHES if v in variables and self._differs(v, (True, False)))
        if _LEVELS in variables and self._differs(_LEVELS, [effort.value for effort in ReasoningEffort]):
            literals = _get_template_literal_text(source).split("\0")
            compared = tuple(effort.value for effort in ReasoningEffort if effort.value in literals)
            self._levels = compared if len(compared) > 1 else _COMMON_LEVELS
        special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
        special.update(tokenizer.all_special_ids)
        vocabulary = tokenizer.get_vocab()
        self._opening = vocabulary.get(self.block[0]) if self.block else None
        self.special = {vocabulary[text]: text for text in self._markers() if vocabulary.get(text) in special}

    @property
    def takes_effort(self) -> bool:
        """Whether it has a say in how much the model thinks."""
        return bool(self._switches or self._levels)

    def require_tools(self) -> None:
        """Raises `UnsupportedFeatureError` if no tools can be offered."""
        if self.format is None:
            raise UnsupportedFeatureError(
                "tools: the model's chat template takes none, or its calls are written in an unknown way", field="tools"
            )

    def variables(self, effort: str) -> dict[str, object]:
        """The template's variables for a reasoning effort.

        Args:
            effort: A value of `ReasoningEffort`; empty for the template's own default.

        Raises:
            UnsupportedParameterError: If the template has no way to say this.
        """
        if not effort:
            return {}
        if effort in self._levels:
            return dict.fromkeys(self._switches, effort != ReasoningEffort.NONE) | {_LEVELS: effort}
        if self._switches and (effort == ReasoningEffort.NONE or not self._levels):
            return dict.fromkeys(self._switches, effort != ReasoningEffort.NONE)
        allowed = ", ".join(self._levels) or "nothing"
        raise UnsupportedParameterError(
            f"parameters.reasoning_effort: the model's chat template takes {allowed}, got {effort}",
            field="parameters.reasoning_effort",
            limit=allowed,
            requested=effort,
        )

    def begins_block(self, prompt: Sequence[int]) -> int | None:
        """The token with which the answer to a prompt may begin a reasoning block; None if it is none, or not one."""
        if self.block is None or self._opening is None or self.ends_with(prompt, self.block[1]):
            return None
        return self._opening

    def ends_with(self, prompt: Sequence[int], text: str) -> bool:
        """Whether a prompt ends with a text that may be a special token, white space not counted."""
        end: str = self._tokenizer.decode(prompt[-_TAIL:], skip_special_tokens=False)
        return end.rstrip().endswith(text)

    def _markers(self) -> list[str]:
        return [*(self.block or ()), *(self.format.markers if self.format else ())]

    def _find_format(self, question: str) -> None:
        """Has the template write a call, and looks which format reads it back."""
        header = self._render([_QUESTION], tools=[_TOOL], add_generation_prompt=True) or ""
        for arguments in (_ARGUMENTS, json.dumps(_ARGUMENTS)):
            call = {"id": _ID, "type": "function", "function": {"name": _NAME, "arguments": arguments}}
            message = {"role": "assistant", "content": "", "tool_calls": [call]}
            written = self._render([_QUESTION, message], tools=[_TOOL])
            if written is None or _VALUE not in written:
                continue
            same = next((i for i, (a, b) in enumerate(zip(written, question, strict=False)) if a != b), len(question))
            turn = written[same:]
            answers = [written[len(header) :]] if written.startswith(header) else []
            for format in FORMATS:
                if any(_reads(format, answer) for answer in (*answers, *([turn] if format.opening else []))):
                    self.format, self.framing = format, _framing(format, turn)
                    self.wants_text = isinstance(arguments, str)
                    return
            return  # it writes calls in some other way
        # A template that writes no calls may still tell the model how to.
        for format in FORMATS:
            told = (format.opening, "<function=") if format.body == "elements" else (format.opening,)
            if format.opening and all(text in question for text in told):
                self.format, self.framing = format, _framing(format, "")
                return

    def _differs(self, variable: str, values: Sequence[object]) -> bool:
        rendered = [self._render([_QUESTION], add_generation_prompt=True, **{variable: value}) for value in values]
        return len({text for text in rendered if text is not None}) > 1

    def _render(self, messages: list[dict[str, Any]], **options: Any) -> str | None:
        try:
            text: str = self._tokenizer.apply_chat_template(messages, tokenize=False, **options)
        except Exception:  # a template is a program of somebody else's, which may fail in any way
            return None
        return text


def _reads(format: CallFormat, answer: str) -> bool:
    """Whether a format reads the trial call in an answer, and nothing else after it but the end of the turn."""
    parser = AnswerParser(None, format=format, tools={_NAME: _TOOL["function"]["parameters"]})  # type: ignore[index]
    calls = [piece for piece in (*parser.push(answer), *parser.end()) if isinstance(piece, CallPiece)]
    if parser.complete_calls != 1 or calls[0].name != _NAME:
        return False
    found: object = json.loads("".join(piece.arguments for piece in calls))
    return found == _ARGUMENTS


def _framing(format: CallFormat, turn: str) -> Framing | None:
    """The frame of the trial call in a turn, or the customary one where the turn has none."""
    if format.body == "elements":
        return None
    begin = turn.find(format.opening) if format.opening else turn.find("{")
    name = turn.find(_NAME, begin)
    arguments = turn.find("{", name)
    if min(begin, name, arguments) < 0:
        return Framing(f'{format.opening}\n{{"name": "', '", "arguments": ', f"}}\n{format.closing}")
    _, end = json.JSONDecoder().raw_decode(turn, arguments)
    if format.closing:
        last = turn.find(format.closing, end) + len(format.closing)
    else:
        found = re.compile(r'(\s*,\s*"id":\s*"[^"]*")?\s*}?\s*]?' if format.body == "json" else "").match(turn, end)
        last = found.end() if found else end
    after = re.sub(r'\s*,\s*"id":\s*"[^"]*"', "", turn[end:last])
    return Framing(turn[begin:name], turn[name + len(_NAME) : arguments], after)


def _named_block(tokenizer: Any) -> tuple[str, str] | None:
    """The reasoning block in the tokenizer's own description of answers, where it has one."""
    fields = (getattr(tokenizer, "response_template", None) or {}).get("fields", {})
    for name in ("reasoning_content", "thinking"):
        field = fields.get(name, {})
        if isinstance(field.get("open"), str) and isinstance(field.get("close"), str):
            return field["open"].strip(), field["close"].strip()
    return None
