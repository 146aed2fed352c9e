"""Turning a conversation into the prompt's tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from abstractllm.errors import AbstractLLMError, InvalidRequestError, ModelLoadError, UnsupportedFeatureError
from abstractllm.providers.huggingface.protocol.messages import Conversation, ToolDefinition, Turn
from abstractllm.providers.huggingface.worker.prompt.chat_template import ChatTemplate, template_error
from abstractllm.providers.huggingface.worker.prompt.control_tokens import ControlTokens
from abstractllm.providers.huggingface.worker.prompt.message_form import MessageForm, tool_message
from abstractllm.providers.huggingface.worker.prompt.shown_parts import PartsCheck

__all__ = ["PromptBuilder"]


class PromptBuilder:
    """Builds prompts for one tokenizer; to be used from one thread.

    With a chat template the conversation goes through it, without one the messages are joined by an empty line. In
    neither case does a caller's text become a special token. A conversation whose last message is the assistant's is
    continued, not answered.

    Args:
        tokenizer: A transformers tokenizer.
        embeddings: Rows of the model's input embedding.
    """

    def __init__(self, tokenizer: Any, embeddings: int) -> None:
        self._tokenizer = tokenizer
        self._embeddings = embeddings
        self.template = ChatTemplate(tokenizer)
        """The chat template, and what it can do."""
        self._parts = PartsCheck(self.template.form, self.template.render)
        self._appended = _appended_tokens(tokenizer)
        self._control_tokens = ControlTokens(tokenizer)

    def takes_system_prompt(self) -> bool:
        """Tells whether a conversation may begin with a system message."""
        return self._shows(Turn("system", "Answer."), Turn("user", "Hello"))

    def takes_chat(self) -> bool:
        """Tells whether earlier questions and answers are shown to the model."""
        return self._shows(Turn("user", "Hello"), Turn("assistant", "Hello."), Turn("user", "Hello"))

    def _shows(self, *turns: Turn) -> bool:
        if not self._tokenizer.chat_template:
            return True
        try:
            self._parts.form_for(Conversation(turns), {})
        except AbstractLLMError:
            return False
        return True

    def is_continued(self, conversation: Conversation) -> bool:
        """Tells whether an answer goes on with the text at the end of the prompt, rather than beginning a turn."""
        if conversation.raw or not self._tokenizer.chat_template:
            return True
        last = conversation.turns[-1]
        return last.role == "assistant" and bool(last.text)

    def ends_in_reasoning(self, conversation: Conversation, prompt: Sequence[int]) -> bool:
        """Tells whether a conversation's prompt ends inside a reasoning block, where the answer then goes on."""
        last = conversation.turns[-1]
        if last.role == "assistant" or conversation.raw:
            return self.template.continues_reasoning(last.text)
        return self.template.begins_in_reasoning(prompt)

    def encode(self, conversation: Conversation) -> tuple[int, ...]:
        """Returns the tokens of a conversation, special tokens included.

        Raises:
            InvalidRequestError: If nothing is left to give to the model, or the template cannot write a tool's schema.
            UnsupportedFeatureError: If it has tools, and the model takes none, or if the chat template refuses the
                conversation or does not show a part of it to the model.
            UnsupportedParameterError: If the chat template does not take the reasoning effort.
            ModelLoadError: If the chat template is broken.
        """
        turns = conversation.turns
        if conversation.tools or any(turn.calls or turn.role == "tool" for turn in turns):
            self.template.require_tools()
        if conversation.forced:
            self.template.require_forced_calls()
        variables = self.template.variables(conversation.effort)
        if conversation.raw:
            ids = self._raw(turns)
        elif self._tokenizer.chat_template:
            ids = self._apply_template(conversation, variables)
        else:
            ids = self._join(turns)
        if not ids:
            raise InvalidRequestError(
                "prompt: it is empty once it is turned into tokens", field="prompt", requested="0 tokens"
            )
        if (highest := max(ids)) >= self._embeddings:
            raise InvalidRequestError(
                f"prompt: the tokenizer gives token {highest}, for which the model has no embedding",
                field="prompt",
                limit=f"below {self._embeddings}",
                requested=highest,
            )
        return tuple(ids)

    def _apply_template(self, conversation: Conversation, variables: dict[str, object]) -> list[int]:
        turns = conversation.turns
        form = self._parts.form_for(conversation, variables)
        tools = [self._tool(tool, index) for index, tool in enumerate(conversation.tools)]
        is_continued = turns[-1].role == "assistant"
        render = partial(
            self._tokenizer.apply_chat_template,
            tokenize=False,
            add_generation_prompt=not is_continued,
            continue_final_message=is_continued,
        )
        try:
            messages = form.messages(turns, self._check_arguments)
            return self._control_tokens.encode(render, {"conversation": messages, "tools": tools or None, **variables})
        except AbstractLLMError:
            raise
        except Exception as error:  # a template is somebody else's program, which may fail in any way
            raise self._fault(error, conversation, form, variables) from error

    def _fault(
        self, error: Exception, conversation: Conversation, form: MessageForm, variables: dict[str, object]
    ) -> AbstractLLMError:
        """Returns the library's error for a conversation that the template cannot write, though one like it it can."""
        field = f"chat.messages[{conversation.turns[-1].message}]"
        if str(error).startswith("continue_final_message"):
            return UnsupportedFeatureError(
                f"{field}: the model's chat template does not let this answer be continued", field=field
            )
        failure = template_error(error)
        if isinstance(failure, UnsupportedFeatureError):
            failure.field = "chat.messages"
            return failure
        if isinstance(failure, ModelLoadError) and conversation.tools:
            schema = {"type": "object", "properties": {}}
            plain = [tool_message(tool.name, tool.description, schema) for tool in conversation.tools]
            with suppress(AbstractLLMError):
                self.template.render(form.messages(conversation.turns), plain, variables)
                return InvalidRequestError(
                    f"tools: the model's chat template cannot write a tool's parameters_json_schema: {failure.message}",
                    field="tools",
                )
        return failure

    def _check_arguments(self, arguments: Any, turn: Turn) -> None:
        self._check_keys(arguments, "chat.messages.tool_call.arguments_json")

    def _tool(self, tool: ToolDefinition, index: int) -> dict[str, Any]:
        schema = {"type": "object", "properties": {}} | json.loads(tool.schema)
        self._check_keys(schema, f"tools[{index}].parameters_json_schema")
        return tool_message(tool.name, tool.description, schema)

    def _check_keys(self, value: Any, field: str) -> None:
        """Refuses keys that contain a control token, since these are told apart in values only.

        Args:
            value: A JSON value.
            field: The field of the request that it comes from.

        Raises:
            InvalidRequestError: If a key, at any depth, contains a control token.
        """
        match value:
            case dict():
                for key, inner in value.items():
                    if token := self._control_tokens.find(key):
                        raise InvalidRequestError(
                            f"{field}: the key {key[:80]!r} holds the model's control token {token!r}",
                            field=field,
                            requested=key[:80],
                        )
                    self._check_keys(inner, field)
            case list():
                for inner in value:
                    self._check_keys(inner, field)

    def _join(self, turns: Sequence[Turn]) -> list[int]:
        text = "\n\n".join(turn.text for turn in turns if turn.text)
        ids: list[int] = self._tokenizer(text, split_special_tokens=True)["input_ids"]
        return ids[: len(ids) - self._appended]

    def _raw(self, turns: Sequence[Turn]) -> list[int]:
        """Returns the tokens of a prompt that may hold special tokens; its own begin token is not doubled."""
        ids: list[int] = self._tokenizer(turns[0].text)["input_ids"]
        ids = ids[: len(ids) - self._appended]
        is_doubled = len(ids) > 1 and ids[0] == ids[1] == self._tokenizer.bos_token_id
        return ids[1:] if is_doubled else ids


def _appended_tokens(tokenizer: Any) -> int:
    """Returns the number of special tokens that a tokenizer appends to a text, behind which no model goes on."""
    special = set(tokenizer.all_special_ids)
    ids: list[int] = tokenizer("a")["input_ids"]
    appended = 0
    while appended < len(ids) and ids[-1 - appended] in special:
        appended += 1
    return appended if appended < len(ids) else 0
