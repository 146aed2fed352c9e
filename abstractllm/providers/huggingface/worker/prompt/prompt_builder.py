"""Turning a conversation into the prompt's tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import jinja2

from abstractllm.errors import InvalidRequestError
from abstractllm.providers.huggingface.protocol.messages import Conversation, ToolCall, ToolDefinition, Turn
from abstractllm.providers.huggingface.worker.parsing.call_reader import ID_LENGTH
from abstractllm.providers.huggingface.worker.prompt.chat_template import ChatTemplate

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
        self._control_tokens = [text for text in tokenizer.added_tokens_encoder if not text.isspace()]

    def takes_system_prompt(self) -> bool:
        """Tells whether a conversation may begin with a system message."""
        try:
            self.encode(Conversation((Turn("system", "Answer."), Turn("user", "Hello"))))
        except InvalidRequestError:
            return False
        return True

    def is_continued(self, conversation: Conversation) -> bool:
        """Tells whether an answer goes on with the text at the end of the prompt, rather than beginning a turn."""
        last = conversation.turns[-1]
        return not self._tokenizer.chat_template or (last.role == "assistant" and bool(last.text))

    def ends_in_reasoning(self, conversation: Conversation, prompt: Sequence[int]) -> bool:
        """Tells whether a conversation's prompt ends inside a reasoning block, where the answer then goes on."""
        block = self.template.reasoning_block
        if block is None:
            return False
        last = conversation.turns[-1]
        if last.role == "assistant":
            text = last.text
            return text.rfind(block[0]) > text.rfind(block[1])
        return self.template.ends_with(prompt, block[0])

    def encode(self, conversation: Conversation) -> tuple[int, ...]:
        """Returns the tokens of a conversation, special tokens included.

        Raises:
            InvalidRequestError: If the chat template refuses the conversation, or nothing is left to give to the model.
            UnsupportedFeatureError: If it has tools, and the model takes none.
            UnsupportedParameterError: If the chat template does not take the reasoning effort.
        """
        turns = conversation.turns
        if conversation.tools or any(turn.calls or turn.role == "tool" for turn in turns):
            self.template.require_tools()
        variables = self.template.variables(conversation.effort)
        if self._tokenizer.chat_template:
            ids = self._apply_template(turns, conversation.tools, variables)
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

    def _apply_template(
        self, turns: Sequence[Turn], tools: Sequence[ToolDefinition], variables: dict[str, object]
    ) -> list[int]:
        is_continued = turns[-1].role == "assistant"
        try:
            ids: list[int] = self._tokenizer.apply_chat_template(
                [self._message(turn) for turn in turns],
                tools=[self._tool(tool, index) for index, tool in enumerate(tools)] or None,
                add_generation_prompt=not is_continued,
                continue_final_message=is_continued,
                sanitize_control_tokens=True,
                return_dict=False,
                **variables,
            )
        except (jinja2.TemplateError, ValueError, TypeError, RecursionError) as error:
            raise InvalidRequestError(
                f"chat.messages: the model's chat template refuses the conversation: {error}", field="chat.messages"
            ) from error
        return ids

    def _message(self, turn: Turn) -> dict[str, Any]:
        message: dict[str, Any] = {"role": turn.role, "content": turn.text}
        if turn.reasoning:
            message["reasoning_content"] = turn.reasoning
        if turn.calls:
            message["tool_calls"] = [self._call(call) for call in turn.calls]
        if turn.role == "tool":
            message["tool_call_id"] = _template_id(turn.call_id)
            if turn.name:
                message["name"] = turn.name
        return message

    def _call(self, call: ToolCall) -> dict[str, Any]:
        arguments: Any = call.arguments
        if not self.template.takes_text_arguments_only:
            arguments = json.loads(arguments)
            self._check_keys(arguments, "chat.messages.tool_call.arguments_json")
        function = {"name": call.name, "arguments": arguments}
        return {"id": _template_id(call.id), "type": "function", "function": function}

    def _tool(self, tool: ToolDefinition, index: int) -> dict[str, Any]:
        schema = {"type": "object", "properties": {}} | json.loads(tool.schema)
        self._check_keys(schema, f"tools[{index}].parameters_json_schema")
        return {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": schema},
        }

    def _check_keys(self, value: Any, field: str) -> None:
        """Refuses keys that contain a control token, since transformers escapes these in values only.

        Args:
            value: A JSON value.
            field: The field of the request that it comes from.

        Raises:
            InvalidRequestError: If a key, at any depth, contains a control token.
        """
        match value:
            case dict():
                for key, inner in value.items():
                    if token := next((token for token in self._control_tokens if token in key), None):
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
        return ids


def _template_id(call_id: str) -> str:
    """Returns a call's id, or its hash if it has another length: Mistral's templates refuse any other form."""
    if len(call_id) == ID_LENGTH and call_id.isalnum() and call_id.isascii():
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:ID_LENGTH]
