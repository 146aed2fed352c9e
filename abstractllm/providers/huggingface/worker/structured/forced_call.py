"""The grammar of an answer that must be a call."""

from __future__ import annotations

import json
from typing import Any

from abstractllm.errors import InvalidRequestError
from abstractllm.providers.huggingface.protocol.messages import Conversation, Format
from abstractllm.providers.huggingface.worker.prompt.chat_template import ChatTemplate

__all__ = ["forced_call"]

_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As templates write JSON; a model could fill its whole window with spaces."""
_END = "\n</parameter>\n"
_RAW = ("string",)
_WRITTEN = ("integer", "number", "boolean", "null", "array", "object")
_HELD_BY_JSON_ONLY = ("pattern", "format", "minLength", "maxLength")


def forced_call(template: ChatTemplate, conversation: Conversation) -> Format:
    """What the answer must be: one call of one of the tools that are forced, in the model's own way of writing.

    Args:
        template: The model's.
        conversation: Has forced tools.

    Raises:
        InvalidRequestError: If a tool's arguments have a schema that cannot be held to in the model's way of writing.
    """
    calls, rules = [], ['text[stop="</parameter>"]: /(.|\\n)*/']
    for index, tool in enumerate(conversation.tools):
        if tool.name not in conversation.forced:
            continue
        schema, field = {"type": "object"} | json.loads(tool.schema), f"tools[{index}].parameters_json_schema"
        if schema["type"] != "object":
            raise InvalidRequestError(
                f"{field}: arguments are an object, got {json.dumps(schema['type'])[:80]}", field=field
            )
        if template.framing is not None:
            framing = template.framing
            opening = _literal(f"{framing.before}{tool.name}{framing.between}", template)
            body = f"{opening} {_json(schema)} {_literal(framing.after, template)}"
        else:
            try:
                body, parameters = _elements(tool.name, schema, index, field)
            except (AttributeError, TypeError) as error:
                raise InvalidRequestError(f"{field}: it is no JSON schema: {error}", field=field) from error
            rules += parameters
        calls.append(f"call_{index}")
        rules.append(f"call_{index}: {body}")
    return Format("grammar", "\n".join([f"start: {' | '.join(calls)}", *rules]))


def _elements(name: str, schema: dict[str, Any], index: int, field: str) -> tuple[str, list[str]]:
    """A call with an element for each argument, in the schema's order."""
    rules, parts = [], [json.dumps(f"<tool_call>\n<function={name}>\n")]
    properties, required = schema.get("properties") or {}, schema.get("required") or []
    definitions: dict[str, Any] = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    for place, (key, value) in enumerate(properties.items()):
        rule = f"argument_{index}_{place}"
        rules.append(
            f"{rule}: {json.dumps(f'<parameter={key}>' + chr(10))} {_value(value, definitions, f'{field}: {key}')}"
        )
        parts.append(rule if key in required else f"{rule}?")
    if strange := [key for key in required if key not in properties]:
        raise InvalidRequestError(f"{field}: required names {strange[0]!r}, which is no property", field=field)
    parts.append(json.dumps("</function>\n</tool_call>"))
    return " ".join(parts), rules


def _value(schema: Any, definitions: dict[str, Any], field: str) -> str:
    """An argument's value, and the end of its element: a string as it is, anything else as JSON."""
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind in _WRITTEN:
        return f"{_json(schema | definitions)} {json.dumps(_END)}"
    if kind in _RAW and not any(key in schema for key in _HELD_BY_JSON_ONLY):
        allowed = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if allowed is None:
            return r'text "\n"'
        return f"({' | '.join(json.dumps(word) for word in allowed if isinstance(word, str))}) {json.dumps(_END)}"
    raise InvalidRequestError(
        f"{field}: this model writes arguments as plain text, so that one of a call that is required must be of one "
        f"type ({', '.join((*_RAW, *_WRITTEN))}), and a string without {', '.join(_HELD_BY_JSON_ONLY)}",
        field=field.partition(":")[0],
        requested=json.dumps(schema)[:80],
    )


def _json(schema: dict[str, Any]) -> str:
    return f"%json {json.dumps(schema | {'x-guidance': _STYLE})}"


def _literal(text: str, template: ChatTemplate) -> str:
    """A text in a grammar; markers that are special tokens are named by their id."""
    for id, marker in template.special.items():
        before, found, after = text.partition(marker)
        if found:
            parts = (before and _literal(before, template), f"<[{id}]>", after and _literal(after, template))
            return " ".join(part for part in parts if part)
    return json.dumps(text, ensure_ascii=False) if text else ""
