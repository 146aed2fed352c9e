"""Requests: messages and their parts, tools, the form of an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from abstractllm.enums import Role, ToolChoiceMode

__all__ = [
    "ChatMessage",
    "GrammarFormat",
    "Image",
    "JsonObjectFormat",
    "JsonSchemaFormat",
    "Part",
    "Prompt",
    "Reasoning",
    "RegexFormat",
    "ResponseFormat",
    "Text",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "ToolResult",
]


@dataclass(frozen=True, slots=True)
class Text:
    """Text in a chat message."""

    text: str
    provider_state: bytes = b""
    """Opaque bytes of the provider, to be returned unchanged with the part in the next turn."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image in a chat message, as bytes; URLs are never fetched."""

    data: bytes
    mime_type: str
    """For example `image/png`."""
    provider_state: bytes = b""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model's request to call a tool."""

    id: str
    name: str
    arguments_json: str
    """A JSON object, as the model wrote it."""
    provider_state: bytes = b""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of a tool, sent back to the model."""

    tool_call_id: str
    content: str
    is_error: bool = False
    provider_state: bytes = b""


@dataclass(frozen=True, slots=True)
class Reasoning:
    """The reasoning of a model before its answer."""

    text: str
    provider_state: bytes = b""


Part = Text | Image | ToolCall | ToolResult | Reasoning


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation.

    Example:
        ```python
        conversation = [
            ChatMessage(Role.SYSTEM, (Text("Be brief."),)),
            ChatMessage(Role.USER, (Text("What is the capital of France?"),)),
        ]
        print(llm.generate(conversation))
        ```
    """

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


Prompt = str | Sequence[ChatMessage | Mapping[str, Any]]
"""A prompt, or a conversation. A message may also be a mapping `{"role": "user", "content": "Hi"}`."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may ask to be called.

    Example:
        ```python
        weather = Tool(
            "get_weather",
            "Get the weather of a city.",
            '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}',
        )
        completion = llm.complete("What is the weather in Paris?", tools=[weather])
        for call in completion.tool_calls:
            print(call.name, call.arguments_json)
        ```
    """

    name: str
    description: str = ""
    parameters_json_schema: str = "{}"
    """A JSON Schema object for the arguments."""


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """A mode, or the name of the one tool that must be called."""

    mode: ToolChoiceMode | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class JsonObjectFormat:
    """The answer is a JSON object."""


@dataclass(frozen=True, slots=True)
class JsonSchemaFormat:
    """The answer is JSON that follows a schema."""

    schema_json: str
    name: str = ""
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class RegexFormat:
    """The whole answer matches a regular expression."""

    regex: str


@dataclass(frozen=True, slots=True)
class GrammarFormat:
    """The whole answer follows a context-free grammar (Lark syntax)."""

    grammar: str


ResponseFormat = JsonObjectFormat | JsonSchemaFormat | RegexFormat | GrammarFormat
