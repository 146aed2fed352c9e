"""The grammar of an answer that must be a tool call."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from abstractllm.errors import InvalidRequestError
from abstractllm.providers.huggingface.protocol.messages import Conversation, Format, ToolDefinition
from abstractllm.providers.huggingface.worker.prompt.call_probe import CallFraming
from abstractllm.providers.huggingface.worker.prompt.chat_template import ChatTemplate
from abstractllm.providers.huggingface.worker.structured.format_errors import invalid_format
from abstractllm.providers.huggingface.worker.structured.schema_errors import SchemaError
from abstractllm.providers.huggingface.worker.structured.schema_grammar import json_rules
from abstractllm.providers.huggingface.worker.structured.schema_numbers import parse_schema
from abstractllm.providers.huggingface.worker.structured.schema_preparation import PreparedSchema, prepare_schema

__all__ = ["ForcedCall", "ForcedTool", "forced_call", "invalid_tool"]

_JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""The white space that templates write in JSON; with more, a model could fill its whole context window with spaces."""
_LINE = "\n"
_ELEMENT_END = "\n</parameter>\n"
_TEXT_TYPE = "string"
_JSON_TYPES = ("integer", "number", "boolean", "null", "array", "object")
_JSON_ONLY_KEYWORDS = ("pattern", "format", "minLength", "maxLength")
"""Keywords of a string's schema that the grammar cannot enforce where the string is written as plain text."""
_WHOLE_OBJECT_KEYWORDS = (
    *("const", "enum", "allOf", "anyOf", "oneOf", "$ref"),
    *("patternProperties", "minProperties", "maxProperties"),
)
"""Keywords of the arguments' schema that are about all of them together."""
_NOT_IN_KEY = re.compile(r"[>\n\r]")


@dataclass(frozen=True)
class ForcedCall:
    """The format of an answer that must be a tool call."""

    format: Format
    tools: tuple[ForcedTool, ...]
    """The tools of which one must be called."""


@dataclass(frozen=True)
class ForcedTool:
    """A tool that a call may be of."""

    index: int
    name: str
    schema: PreparedSchema
    """The schema of its arguments."""


def forced_call(
    template: ChatTemplate, conversation: Conversation, special_tokens: Mapping[int, str] | None = None
) -> ForcedCall:
    """Returns the format of one call to one of the forced tools, in the model's own way of writing.

    Args:
        template: The model's chat template, which can offer tools.
        conversation: A conversation with forced tools.
        special_tokens: The tokens, by id, that stand for no text in a grammar, besides those of the template.

    Raises:
        InvalidRequestError: If the schema of a tool's arguments cannot be enforced in the model's way of writing.
    """
    tokens = {**template.special_markers, **(special_tokens or {})}
    calls, tools, rules = [], [], ['text[stop="</parameter>"]: /(.|\\n)*/']
    for index, tool in enumerate(conversation.tools):
        if tool.name in conversation.forced:
            try:
                schema = _arguments(tool)
                body, argument_rules = _call(template.call_framing, tool.name, schema, index, tokens)
            except SchemaError as error:
                raise invalid_tool(index, tool.name, error) from error
            tools.append(ForcedTool(index, tool.name, schema))
            calls.append(f"call_{index}")
            rules += [*argument_rules, f"call_{index}: {body}"]
    return ForcedCall(Format("grammar", "\n".join([f"start: {' | '.join(calls)}", *rules])), tuple(tools))


def invalid_tool(index: int, name: str, error: SchemaError) -> InvalidRequestError:
    """Returns the error of a tool whose arguments cannot be held to their schema."""
    return invalid_format(f"tools[{index}].parameters_json_schema", f"tool {name!r}: {error}", error.limit)


def _arguments(tool: ToolDefinition) -> PreparedSchema:
    prepared = prepare_schema({"type": "object"} | parse_schema(tool.schema))
    kind = prepared.schema["type"]
    if kind not in ("object", ["object"]):
        raise SchemaError(("type",), f"arguments are an object, got {json.dumps(kind)[:80]}")
    return prepared


def _call(
    framing: CallFraming | None, name: str, arguments: PreparedSchema, index: int, tokens: Mapping[int, str]
) -> tuple[str, list[str]]:
    """Returns the body of the rule for a call, and the rules for its arguments."""
    if framing is None:
        return _elements(name, arguments, index, tokens)
    opening = _literal(f"{framing.before}{name}{framing.between}", tokens)
    body, rules = json_rules(arguments, _JSON_STYLE, f"json_{index}")
    return f"{opening} {body} {_literal(framing.after, tokens)}", rules


def _elements(name: str, arguments: PreparedSchema, index: int, tokens: Mapping[int, str]) -> tuple[str, list[str]]:
    """Returns the body and the rules of a call with an element for each argument, in the schema's order."""
    schema = arguments.schema
    for keyword in _WHOLE_OBJECT_KEYWORDS:
        if keyword in schema:
            raise SchemaError((keyword,), "this model writes each argument apart: a required call cannot hold to it")
    rules, parts = [], [_literal(f"<tool_call>\n<function={name}>\n", tokens)]
    properties, required = schema.get("properties", {}), schema.get("required", [])
    shared: dict[str, Any] = {key: schema[key] for key in ("$schema", "$defs") if key in schema}
    for place, (key, value) in enumerate(properties.items()):
        pointer = ("properties", key)
        if not key or _NOT_IN_KEY.search(key):
            raise SchemaError(pointer, "this model writes names as they are: they must have no >, and not be empty")
        rule = f"argument_{index}_{place}"
        argument = replace(arguments, schema=shared | (value if isinstance(value, dict) else {}))
        body, argument_rules = _value(argument, value, pointer, rule)
        rules += argument_rules
        rules.append(f"{rule}: {_quoted(f'<parameter={key}>{_LINE}')} {body}")
        parts.append(rule if key in required else f"{rule}?")
    if unknown := [key for key in required if key not in properties]:
        raise SchemaError(("required",), f"it names {unknown[0]!r}, which is not one of the properties")
    parts.append(_literal("</function>\n</tool_call>", tokens))
    return " ".join(parts), rules


def _value(argument: PreparedSchema, schema: Any, pointer: tuple[str, ...], rule: str) -> tuple[str, list[str]]:
    """Returns the grammar of an argument's value and the end of its element, and the rules that it needs.

    A string is written as it is, any other value as JSON.
    """
    target = _resolved(schema, argument.schema)
    kind = target.get("type") if isinstance(target, dict) else None
    if kind in _JSON_TYPES:
        body, rules = json_rules(argument, _JSON_STYLE, f"json_{rule}")
        return f"{body} {_quoted(_ELEMENT_END)}", rules
    if kind == _TEXT_TYPE and not any(keyword in target for keyword in _JSON_ONLY_KEYWORDS):
        allowed = target.get("enum", [target["const"]] if "const" in target else None)
        if allowed is None:
            return rf"text {_quoted(_LINE)}", []
        if words := [word for word in allowed if isinstance(word, str)]:
            return f"({' | '.join(map(_quoted, words))}) {_quoted(_ELEMENT_END)}", []
        raise SchemaError(pointer, "it is unsatisfiable: it allows no text")
    types, keywords = ", ".join((_TEXT_TYPE, *_JSON_TYPES)), ", ".join(_JSON_ONLY_KEYWORDS)
    raise SchemaError(
        pointer,
        f"this model writes arguments as plain text: for a call that is required, each argument must have one "
        f"type ({types}), and a string must have none of the keywords {keywords}",
    )


def _resolved(schema: Any, shared: dict[str, Any]) -> Any:
    """Returns the schema that decides on the form of a value: that of a reference, where nothing stands beside it."""
    for _ in range(len(shared.get("$defs", ())) + 1):
        if not isinstance(schema, dict) or set(schema) != {"$ref"}:
            break
        schema = shared["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def _literal(text: str, tokens: Mapping[int, str]) -> str:
    """Returns a text as a part of a grammar, in which markers that are tokens are named by their id."""
    for id, marker in tokens.items():
        before, is_marked, after = text.partition(marker)
        if is_marked:
            parts = (before and _literal(before, tokens), f"<[{id}]>", after and _literal(after, tokens))
            return " ".join(part for part in parts if part)
    return _quoted(text) if text else ""


def _quoted(text: str) -> str:
    """Returns a text as a grammar's literal."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
