"""The abilities of a model's chat template, found out by trying it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import jinja2
from transformers.utils.chat_template_utils import _get_template_literal_text, _get_template_variables

from abstractllm.enums import ReasoningEffort
from abstractllm.errors import (
    AbstractLLMError,
    InvalidRequestError,
    ModelLoadError,
    UnsupportedFeatureError,
    UnsupportedParameterError,
)
from abstractllm.providers.huggingface.protocol.messages import Turn
from abstractllm.providers.huggingface.worker.parsing.answer_parser import AnswerParser
from abstractllm.providers.huggingface.worker.parsing.channel_parser import ChannelParser
from abstractllm.providers.huggingface.worker.prompt.call_probe import offers_tools, probe_calls
from abstractllm.providers.huggingface.worker.prompt.message_form import MessageForm, find_form
from abstractllm.providers.huggingface.worker.prompt.turn_marks import (
    CHANNEL_HEADER,
    find_marks,
    holding_tokens,
    turn_ends,
    unseen_marks,
)

__all__ = ["ChatTemplate", "template_error"]

_SWITCHES = ("enable_thinking", "thinking", "reasoning")
"""The variables by which templates turn reasoning on and off."""
_LEVEL_VARIABLE = "reasoning_effort"
_COMMON_LEVELS = ("low", "medium", "high")
_TAIL_TOKENS = 32
"""More tokens than the text that begins or ends reasoning takes."""
_UNKNOWN_CALLS = "tools are refused: the chat template offers them, but writes calls in a way that is not known here"
_LONG_TEXT = 2000
"""Words of a text that is tried: some templates cut long ones."""
_LONGEST_FAULT = 300
"""Characters of a template's own error in ours."""


class ChatTemplate:
    """The chat template of a tokenizer, and what it can do.

    Args:
        tokenizer: A transformers tokenizer; one without a chat template can do nothing.

    Raises:
        ModelLoadError: If the template is broken, or shows no text of a user to the model.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        source, variables = _source(tokenizer)
        self.form = find_form(self._render) if source else MessageForm()
        """The form in which it takes messages."""
        if source:
            self._require_users()
        self._marks = find_marks(tokenizer, source, self._render, self.form)
        tokens = tokenizer.added_tokens_encoder
        calls = probe_calls(self._render, self.form, tokens, self._marks.has_channels) if source else None
        self.call_format = calls.format if calls else None
        """The format of the model's calls; None if no tools can be offered, or their calls would not be understood."""
        is_unknown = calls is None and bool(source) and offers_tools(self._render, self.form)
        self.note = _UNKNOWN_CALLS if is_unknown else ""
        """A remark for those who ask for the LLM's state."""
        self.call_framing = calls.framing if calls else None
        """The frame around a call's name and arguments; None where the arguments are not written as JSON."""
        self.reasoning_block = self._marks.reasoning
        """The texts that begin and end reasoning; None if reasoning is not marked."""
        call_marks = self.call_format.markers if self.call_format else ()
        self.special_markers = holding_tokens(tokenizer, (*self._marks.texts, *call_marks))
        """The special tokens, by id, among the texts that mark calls, reasoning and answers."""
        shown = self._render(self.form.messages([Turn("user", "Hello"), Turn("assistant", "Hello.")])) or ""
        unseen = unseen_marks(tokenizer, f"{source}\0{shown}", self.special_markers)
        self._parser_marks = {
            False: holding_tokens(tokenizer, self._marks.texts) | unseen,
            True: self.special_markers | unseen,
        }
        """The tokens that the parser reads as their texts, without and with tools."""
        others = (*self._marks.texts, *call_marks)
        self.turn_ends: frozenset[int] = (
            turn_ends(tokenizer, self._render, self.form, self._marks, others) if source else frozenset()
        )
        """The tokens that the template writes behind an answer."""
        opening = self.reasoning_block[0] if self.reasoning_block else None
        self._reasoning_start: int | None = tokenizer.get_vocab().get(opening) if opening else None
        self._switches = tuple(name for name in _SWITCHES if name in variables and self._varies(name, (True, False)))
        self._levels = self._find_levels(source) if _LEVEL_VARIABLE in variables else ()

    @property
    def takes_effort(self) -> bool:
        """True if it has a variable for the reasoning effort."""
        return bool(self._switches or self._levels)

    def new_parser(self, is_reasoning: bool, tools: Mapping[str, Mapping[str, Any]]) -> AnswerParser:
        """Returns the parser of an answer.

        Args:
            is_reasoning: Whether the prompt ends inside a reasoning block.
            tools: The schemas of the offered tools' arguments, by name.
        """
        if self._marks.has_channels:
            return ChannelParser(not is_reasoning, tools)
        format = self.call_format if tools else None
        return AnswerParser(self.reasoning_block, is_reasoning, format, tools, self._marks.frame)

    def parser_marks(self, has_tools: bool) -> Mapping[int, str]:
        """Returns the tokens, by id, that the parser reads as their texts: they are marks, and never text.

        Args:
            has_tools: Whether tools are offered.
        """
        return self._parser_marks[has_tools]

    def require_forced_calls(self) -> None:
        """Raises `UnsupportedFeatureError` if an answer cannot be held to a call."""
        format = self.call_format
        if self.call_framing is None and (format is None or not format.is_forcible):
            raise UnsupportedFeatureError(
                "tool_choice: this model's calls are written in a way that an answer cannot be held to",
                field="tool_choice",
            )

    def require_tools(self) -> None:
        """Raises `UnsupportedFeatureError` if no tools can be offered."""
        if self.call_format is None:
            raise UnsupportedFeatureError(
                "tools: the model's chat template takes no tools, or its calls are written in an unknown way",
                field="tools",
            )

    def variables(self, effort: str) -> dict[str, object]:
        """Returns the template's variables for a reasoning effort.

        Args:
            effort: A value of `ReasoningEffort`; empty for the template's own default.

        Raises:
            UnsupportedParameterError: If the template has no variable for this effort.
        """
        if not effort:
            return {}
        if effort in self._levels:
            return dict.fromkeys(self._switches, effort != ReasoningEffort.NONE) | {_LEVEL_VARIABLE: effort}
        if self._switches and (effort == ReasoningEffort.NONE or not self._levels):
            return dict.fromkeys(self._switches, effort != ReasoningEffort.NONE)
        allowed = ", ".join(self._levels) or "nothing"
        raise UnsupportedParameterError(
            f"parameters.reasoning_effort: the model's chat template takes {allowed}, got {effort}",
            field="parameters.reasoning_effort",
            limit=allowed,
            requested=effort,
        )

    def begins_in_reasoning(self, prompt: Sequence[int]) -> bool:
        """Tells whether the answer to a prompt begins in a block of reasoning, or with the header of a message."""
        block = self.reasoning_block
        return block is not None and (self._marks.has_channels or self.ends_with(prompt, block[0]))

    def continues_reasoning(self, text: str) -> bool:
        """Tells whether a text that an answer goes on with, of an assistant or raw, ends in a block of reasoning."""
        if self._marks.has_channels:
            return text.rstrip().endswith(CHANNEL_HEADER)
        block = self.reasoning_block
        return block is not None and text.rfind(block[0]) > text.rfind(block[1])

    def reasoning_start(self, prompt: Sequence[int]) -> int | None:
        """Returns the token with which the answer to a prompt may begin a reasoning block.

        Returns:
            None if the model does not mark its reasoning, or not by a single token. Also None if the prompt ends with
            the end of a block, which tells the model not to reason.
        """
        if self.reasoning_block is None or self.ends_with(prompt, self.reasoning_block[1]):
            return None
        return self._reasoning_start

    def ends_with(self, prompt: Sequence[int], text: str) -> bool:
        """Tells whether a prompt ends with a text, which may be a special token; white space behind it is ignored."""
        end: str = self._tokenizer.decode(prompt[-_TAIL_TOKENS:], skip_special_tokens=False)
        return end.rstrip().endswith(text)

    def _find_levels(self, source: str) -> tuple[str, ...]:
        """Returns the levels of effort that the template takes: those it compares with, or the common ones."""
        if not self._varies(_LEVEL_VARIABLE, [effort.value for effort in ReasoningEffort]):
            return ()
        literals = _get_template_literal_text(source).split("\0")
        compared = tuple(effort.value for effort in ReasoningEffort if effort.value in literals)
        return compared if len(compared) > 1 else _COMMON_LEVELS

    def render(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], variables: Mapping[str, object]
    ) -> str:
        """Returns the prompt for messages and tools.

        Raises:
            UnsupportedFeatureError: If the template refuses the messages.
            ModelLoadError: If the template is broken.
            InvalidRequestError: If they are nested too deeply.
        """
        is_continued = messages[-1]["role"] == "assistant"
        try:
            text: str = self._tokenizer.apply_chat_template(
                messages, tools=tools or None, tokenize=False, add_generation_prompt=not is_continued, **variables
            )
        except Exception as error:  # a template is somebody else's program, which may fail in any way
            raise template_error(error) from error
        return text

    def _require_users(self) -> None:
        """Raises `ModelLoadError` if the template does not show all text of a user to the model."""
        text = f"firstword{' and' * _LONG_TEXT} lastword"
        failures: list[AbstractLLMError] = []
        for turns in ([Turn("user", text)], [Turn("system", "Hello."), Turn("user", text)]):
            try:
                prompt = self.render(self.form.messages(turns), [], {}).lower()
            except AbstractLLMError as error:
                failures.append(error)
                continue
            if "firstword" in prompt and "lastword" in prompt:
                return
        fault = failures[0].message if failures else "the model's chat template does not show all text of a user"
        raise ModelLoadError(f"{fault} (tried with one message of a user)", field="model")

    def _varies(self, variable: str, values: Iterable[object]) -> bool:
        """Tells whether the prompt depends on a variable."""
        messages = self.form.messages([Turn("user", "Hello")])
        prompts = [self._render(messages, add_generation_prompt=True, **{variable: value}) for value in values]
        return len({prompt for prompt in prompts if prompt is not None}) > 1

    def _render(self, messages: list[dict[str, Any]], **options: Any) -> str | None:
        try:
            text: str = self._tokenizer.apply_chat_template(messages, tokenize=False, **options)
        except Exception:  # a template is somebody else's program, which may fail in any way
            return None
        return text


def template_error(error: Exception) -> AbstractLLMError:
    """Returns the library's error for an exception of a chat template.

    `raise_exception`, by which templates refuse what the model has not learned, raises jinja2's root error itself; what
    else is raised is a fault of the template.
    """
    fault = str(error)[:_LONGEST_FAULT]
    if isinstance(error, AbstractLLMError):
        return error
    if isinstance(error, RecursionError):
        return InvalidRequestError("chat.messages: they are nested too deeply", field="chat.messages")
    if type(error) is jinja2.TemplateError:
        return UnsupportedFeatureError(f"the model's chat template refuses the conversation: {fault}")
    return ModelLoadError(f"the model's chat template is broken: {type(error).__name__}: {fault}", field="model")


def _source(tokenizer: Any) -> tuple[str, Collection[str]]:
    """Returns the template's text and its variables; empty if there is no template.

    Raises:
        ModelLoadError: If the template cannot be compiled, or none of several is the default one.
    """
    if not tokenizer.chat_template:
        return "", ()
    try:
        source: str = tokenizer.get_chat_template()
        return source, _get_template_variables(source)
    except (jinja2.TemplateError, ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        place = f" in line {line}" if line else ""
        raise ModelLoadError(
            f"the model's chat template is broken{place}: {type(error).__name__}: {str(error)[:_LONGEST_FAULT]}",
            field="model",
        ) from error
