"""The options for generation parameters, one for each field of `abstractllm.parameters.GenerationParameters`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from abstractllm_cli._options import read_pairs, usage

_VALUES = "abstractllm_cli.parameters"
_TYPES = {"number": float, "integer": int, "string": str, "array": list[str], "object": list[str]}
"""The types of options, by the type in the parameter's JSON Schema; an option for a list or a map is repeatable."""
_MODEL = "model"
"""The one parameter whose option, `--model`, is the command's own: it also names the model to load in this process."""


class ParameterCommand(TyperCommand):
    """A command that has, beside the options of its function, an option for each generation parameter.

    The options are made when the command is looked at, not when it is defined: the library, which knows the parameters,
    must not be imported by commands that do not generate.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """Returns the function's parameters and the options, the help option last."""
        params = super().get_params(ctx)
        help_option = self.get_help_option(ctx)
        return [*(param for param in params if param is not help_option), *_options().values(), help_option]

    def invoke(self, ctx: Any) -> Any:
        """Runs the function; it gets the values of the options from `request_parameters`."""
        ctx.meta[_VALUES] = {name: ctx.params.pop(name) for name in _options()}
        return super().invoke(ctx)


def request_parameters(context: typer.Context) -> dict[str, Any]:
    """Returns the options of a request that the command line sets, as `generate` of every LLM takes them.

    Their bounds are checked by the library or the server.

    Args:
        context: The context of a `ParameterCommand` whose function has the parameters `option` and `timeout`.

    Raises:
        typer.BadParameter: Naming an option whose value is not of the option's form.
    """
    values = {
        name: _read_token_map(value, f"--{_hyphenated(name)}") if _schema(name)["type"] == "object" else value
        for name, value in context.meta[_VALUES].items()
        if value is not None and value not in ((), [])
    }
    if context.params["timeout"] is not None:
        values["timeout"] = context.params["timeout"]
    if provider_options := read_pairs(context.params["option"] or (), "--option"):
        values["provider_options"] = provider_options
    return values


@functools.cache
def _options() -> dict[str, Any]:
    """Makes the options by the parameters' names, as typer makes them of a function's arguments."""
    arguments = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(name))
        for name in _schemas()["properties"]
        if name != _MODEL
    ]

    def command(**_values: Any) -> None:
        pass

    command.__signature__ = inspect.Signature(arguments)  # type: ignore[attr-defined]
    command.__annotations__ = {argument.name: argument.annotation for argument in arguments}
    app = typer.Typer(add_completion=False)
    app.command()(command)
    return {str(option.name): option for option in typer.main.get_command(app).params}


def _annotation(name: str) -> Any:
    schema = _schema(name)
    option = typer.Option(f"--{_hyphenated(name)}", metavar=_metavar(name, schema), help=_help(name, schema))
    return Annotated[_TYPES[schema["type"]] | None, option]


def _metavar(name: str, schema: Mapping[str, Any]) -> str:
    match schema["type"]:
        case "integer":
            return "COUNT" if "unit" in _schemas()["properties"][name] else "INTEGER"
        case "object":
            return f"TOKEN={name.rpartition('_')[2].upper()}"
        case "number":
            return "NUMBER"
        case _:
            return "LEVEL" if "enum" in schema else "TEXT"


def _help(name: str, schema: Mapping[str, Any]) -> str:
    """Returns a parameter's description and, in brackets, the values that it may have."""
    description = _schemas()["properties"][name].get("description", "")
    match schema["type"]:
        case "array":
            values = f"repeatable, at most {schema['maxItems']:,}"
        case "object":
            values = f"repeatable, at most {schema['maxProperties']:,}; each {_range(schema['additionalProperties'])}"
        case "string":
            values = ", ".join(schema.get("enum", ()))
        case _:
            values = _range(schema)
    return f"{description} [{values}]" if values else description


def _range(schema: Mapping[str, Any]) -> str:
    """Returns the bounds of a number in words; empty if they are those of every 64-bit integer."""
    minimum, maximum = schema.get("minimum"), schema.get("maximum")
    if minimum == -(2**63):
        return ""
    if minimum is None:
        return f"more than {schema['exclusiveMinimum']:,}, at most {maximum:,}"
    return f"{minimum:,} to {maximum:,}"


def _read_token_map(pairs: list[str], option: str) -> dict[int, float]:
    """Reads `TOKEN=NUMBER` pairs."""
    values: dict[int, float] = {}
    for pair in pairs:
        token, _, number = pair.partition("=")
        try:
            key, value = int(token), float(number)
        except ValueError:
            usage(f"must be a token's id, =, and a number, got {pair!r}", option)
        if key in values:
            usage(f"token {key} is given twice", option)
        values[key] = value
    return values


@functools.cache
def _schemas() -> dict[str, Any]:
    from abstractllm.parameters import GenerationParameters

    return GenerationParameters.model_json_schema()


def _schema(name: str) -> dict[str, Any]:
    """Returns the JSON Schema of a parameter's value where it is set."""
    schema: dict[str, Any] = next(
        form for form in _schemas()["properties"][name]["anyOf"] if form.get("type") != "null"
    )
    reference = schema.get("$ref")
    return _schemas()["$defs"][reference.rpartition("/")[2]] if reference else schema


def _hyphenated(name: str) -> str:
    return name.replace("_", "-")
