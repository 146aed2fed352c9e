"""From a conversation to the tokens that the model is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jinja2

from abstractllm.errors import InvalidRequestError
from abstractllm.providers.huggingface.worker.protocol import Turn

__all__ = ["Prompts"]


class Prompts:
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
        self._has_template = bool(tokenizer.chat_template)

    def takes_system_prompt(self) -> bool:
        """Whether a conversation may begin with a system message."""
        try:
            self.encode((Turn("system", "Answer."), Turn("user", "Hello")))
        except InvalidRequestError:
            return False
        return True

    def encode(self, conversation: Sequence[Turn]) -> tuple[int, ...]:
        """The tokens of a conversation, special tokens included.

        Raises:
            InvalidRequestError: If the chat template refuses the conversation, or nothing is left to give to the model.
        """
        ids = self._through_template(conversation) if self._has_template else self._joined(conversation)
        if not ids:
            raise InvalidRequestError(
                "prompt: the tokenizer makes no token of it", field="prompt", requested="0 tokens"
            )
        if (highest := max(ids)) >= self._embeddings:
            raise InvalidRequestError(
                f"prompt: the tokenizer gives token {highest}, of which the model has no embedding",
                field="prompt",
                limit=f"below {self._embeddings}",
                requested=highest,
            )
        return tuple(ids)

    def _through_template(self, conversation: Sequence[Turn]) -> list[int]:
        messages = [
            {"role": turn.role, "content": turn.text}
            | ({"reasoning_content": turn.reasoning} if turn.reasoning else {})
            for turn in conversation
        ]
        continued = conversation[-1].role == "assistant"
        try:
            ids: list[int] = self._tokenizer.apply_chat_template(
                messages,
                add_generation_prompt=not continued,
                continue_final_message=continued,
                sanitize_control_tokens=True,
                return_dict=False,
            )
        except (jinja2.TemplateError, ValueError) as error:
            raise InvalidRequestError(
                f"chat.messages: the model's chat template refuses the conversation: {error}", field="chat.messages"
            ) from error
        return ids

    def _joined(self, conversation: Sequence[Turn]) -> list[int]:
        text = "\n\n".join(turn.text for turn in conversation if turn.text)
        ids: list[int] = self._tokenizer(text, split_special_tokens=True)["input_ids"]
        return ids
