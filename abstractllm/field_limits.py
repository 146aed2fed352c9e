"""The ceilings of every field of a request, but those of generation parameters, which the contract itself tells.

The names are those of the contract: a test holds them against its descriptors, and [the table in the
documentation](../docs/configuration.md) is written from here. What is refused names the field, the limit and the value.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FIELD_LIMITS", "MAX_PROVIDER_OPTIONS", "MESSAGE_BYTES", "FieldLimit"]

MESSAGE_BYTES = 16 * 1024 * 1024
"""The size of a request or an answer, after decompression."""
MAX_PROVIDER_OPTIONS = 64
"""Keys of provider options, beside their bytes."""


@dataclass(frozen=True, slots=True)
class FieldLimit:
    """The ceiling of one field.

    Attributes:
        most: The most that it may have, of `unit`; of a number the greatest value.
        unit: What is counted: `characters`, `bytes`, `seconds`, or the items of a list or map; empty for a number.
        each: The ceiling of each item of a list, and of each key and value of a map, in characters.
    """

    most: int
    unit: str = "characters"
    each: int | None = None


_NAME = FieldLimit(256)
_MODEL = FieldLimit(1024)
_TEXT = FieldLimit(65_536)
_CONTENT = FieldLimit(MESSAGE_BYTES, "bytes")
"""The ceiling of a field that may be as large as the message."""

FIELD_LIMITS: dict[str, FieldLimit] = {
    "GenerateRequest.llm": _NAME,
    "GenerateRequest.prompt": _CONTENT,
    "GenerateRequest.system_prompt": _CONTENT,
    "GenerateRequest.tools": FieldLimit(128, "tools"),
    "GenerateRequest.provider_options": FieldLimit(262_144, "bytes"),
    "GenerateRequest.request_id": _NAME,
    "GenerateRequest.labels": FieldLimit(32, "labels", each=256),
    "Chat.messages": FieldLimit(4096, "messages"),
    "ChatMessage.parts": FieldLimit(8192, "parts"),
    "Part.text": _CONTENT,
    "Part.provider_state": _CONTENT,
    "Image.data": _CONTENT,
    "Image.mime_type": _TEXT,
    "ToolCall.id": _TEXT,
    "ToolCall.name": _TEXT,
    "ToolCall.arguments_json": _CONTENT,
    "ToolResult.tool_call_id": _TEXT,
    "ToolResult.content": _CONTENT,
    "Reasoning.text": _CONTENT,
    "ResponseFormat.regex": _TEXT,
    "ResponseFormat.grammar": _TEXT,
    "JsonSchemaFormat.name": _NAME,
    "JsonSchemaFormat.schema_json": _TEXT,
    "Tool.name": FieldLimit(64),
    "Tool.description": _TEXT,
    "Tool.parameters_json_schema": _TEXT,
    "ToolChoice.name": FieldLimit(64),
    "CountTokensRequest.llm": _NAME,
    "CountTokensRequest.prompt": _CONTENT,
    "CountTokensRequest.system_prompt": _CONTENT,
    "CountTokensRequest.tools": FieldLimit(128, "tools"),
    "CountTokensRequest.model": _NAME,
    "GetCapabilitiesRequest.llm": _NAME,
    "GetCapabilitiesRequest.model": _MODEL,
    "ListCachedModelsRequest.llm": _NAME,
    "ListCachedModelsRequest.page_size": FieldLimit(1000, ""),
    "ListCachedModelsRequest.page_token": FieldLimit(8192),
    "PullModelRequest.llm": _NAME,
    "PullModelRequest.model": _MODEL,
    "LoadModelRequest.llm": _NAME,
    "UnloadModelRequest.llm": _NAME,
    "ClearCacheRequest.llm": _NAME,
    "ClearCacheRequest.model": _MODEL,
    "GetConfigRequest.llm": _NAME,
    "SetConfigRequest.llm": _NAME,
    "SetConfigRequest.etag": _NAME,
    "FieldMask.paths": FieldLimit(64, "paths", each=256),
    "LlmConfig.model": _MODEL,
    "LlmConfig.system_prompt": _CONTENT,
    "LlmConfig.timeout": FieldLimit(604_800, "seconds"),
    "LlmConfig.max_retries": FieldLimit(10, ""),
    "LlmConfig.keep_alive": FieldLimit(604_800, "seconds"),
    "LlmConfig.provider_options": FieldLimit(262_144, "bytes"),
}
"""The ceiling of each field by the names of its message and its own. All parts of a conversation count together."""
