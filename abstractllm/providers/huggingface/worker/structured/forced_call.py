"""The grammar of an answer that must be a tool call."""

from __future__ import annotations

import json
from typing import Any

from abstractllm.errors import InvalidRequestError
from abstractllm.providers.huggingface.protocol.messages import Conversation, Format, ToolDefinition
from abstractllm.providers.huggingface.worker.prompt.chat_template import ChatTemplate

__all__ = ["forced_call"]

_JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""The white space that templates write in JSON; with more, a model could fill its whole context window with spaces."""
_ELEMENT_END = "\n</parameter>\n"
_TEXT_TYPE = "string"
_JSON_TYPES = ("integer", "number", "boolean", "null", "array", "object")
_JSON_ONLY_KEYWORDS = ("pattern", "format", "minLength", "maxLength")
"""Keywords of a string's schema that the grammar cannot enforce where the string is written as plain text."""


def forced_call(template: ChatTemplate, conversation: Conversation) -> Format:
    """Returns the format of one call to one of the forced tools, in the model's own way of writing.

    Args:
        template: The model's chat template, which can offer tools.
        conversation: A conversation with forced tools.

    Raises:
        InvalidRequestError: If the schema of a tool's arguments cannot be enforced in the model's way of writing.
    """
    calls, rules = [], ['text[stop="</parameter>"]: /(.|\\n)*/']
    for index, tool in enumerate(conversation.tools):
        if tool.name in conversation.forced:
            body, argument_rules = _call(template, tool, index)
            calls.append(f"call_{index}")
            rules += [*argument_rules, f"call_{index}: {body}"]
    return Format("grammar", "\n".join([f"start: {' | '.join(calls)}", *rules]))


def _call(template: ChatTemplate, tool: ToolDefinition, index: int) -> tuple[str, list[str]]:
    """Returns the body of the rule for a call, and the rules for its arguments."""
    field = f"tools[{index}].parameters_json_schema"
    schema = {"type": "object"} | json.loads(tool.schema)
    if schema["type"] != "object":
        raise InvalidRequestError(
            f"{field}: arguments are an object, got {json.dumps(schema['type'])[:80]}", field=field
        )
    if framing := template.call_framing:
        opening = _literal(f"{framing.before}{tool.name}{framing.between}", template)
        return f"{opening} {_json(schema)} {_literal(framing.after, template)}", []
    try:
        return _elements(tool.name, schema, index, field)
    except (AttributeError, TypeError) as error:
        raise InvalidRequestError(f"{field}: it is not a JSON schema: {error}", field=field) from error


def _elements(name: str, schema: dict[str, Any], index: int, field: str) -> tuple[str, list[str]]:
    """Returns the body and the rules of a call with an element for each argument, in the schema's order."""
    rules, parts = [], [json.dumps(f"<tool_call>\n<function={name}>\n")]
    properties, required = schema.get("properties") or {}, schema.get("required") or []
    definitions: dict[str, Any] = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    for place, (key, value) in enumerate(properties.items()):
        rule = f"argument_{index}_{place}"
        begin = json.dumps(f"<parameter={key}>\n")
        rules.append(f"{rule}: {begin} {_value(value, definitions, f'{field}: {key}')}")
        parts.append(rule if key in required else f"{rule}?")
    if unknown := [key for key in required if key not in properties]:
        raise InvalidRequestError(
            f"{field}: required names {unknown[0]!r}, which is not one of the properties", field=field
        )
    parts.append(json.dumps("</function>\n</tool_call>"))
    return " ".join(parts), rules


def _value(schema: Any, definitions: dict[str, Any], field: str) -> str:
    """Returns the grammar of an argument's value and the end of its element.

    A string is written as it is, any other value as JSON.
    """
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind in _JSON_TYPES:
        return f"{_json(schema | definitions)} {json.dumps(_ELEMENT_END)}"
    if kind == _TEXT_TYPE and not any(keyword in schema for keyword in _JSON_ONLY_KEYWORDS):
        allowed = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if allowed is None:
            return r'text "\n"'
        return (
            f"({' | '.join(json.dumps(word) for word in allowed if isinstance(word, str))}) {json.dumps(_ELEMENT_END)}"
        )
    types, keywords = ", ".join((_TEXT_TYPE, *_JSON_TYPES)), ", ".join(_JSON_ONLY_KEYWORDS)
    raise InvalidRequestError(
        f"{field}: this model writes arguments as plain text: for a call that is required, each argument must have one "
        f"type ({types}), and a string must have none of the keywords {keywords}",
        field=field.partition(":")[0],
        requested=json.dumps(schema)[:80],
    )


def _json(schema: dict[str, Any]) -> str:
    return f"%json {json.dumps(schema | {'x-guidance': _JSON_STYLE})}"


def _literal(text: str, template: ChatTemplate) -> str:
    """Returns a text as a part of a grammar, in which markers that are special tokens are named by their id."""
    for id, marker in template.special_markers.items():
        before, is_marked, after = text.partition(marker)
        if is_marked:
            parts = (before and _literal(before, template), f"<[{id}]>", after and _literal(after, template))
            return " ".join(part for part in parts if part)
    return json.dumps(text, ensure_ascii=False) if text else ""
