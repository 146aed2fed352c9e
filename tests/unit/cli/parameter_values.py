"""A value for each generation parameter, made from the table of parameters, and the arguments that set it."""

from typing import Any

from abstractllm.parameters import GENERATION_PARAMETERS, GenerationParameters

SCHEMA = GenerationParameters.model_json_schema()
SAMPLED = [name for name in GENERATION_PARAMETERS if name != "model"]
"""The parameters but the model, which names a model of the LLM's own."""


def schema_of(name: str) -> dict[str, Any]:
    """The JSON Schema of a parameter's value where it is set."""
    (schema,) = (form for form in SCHEMA["properties"][name]["anyOf"] if form.get("type") != "null")
    return SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def value_of(name: str) -> Any:
    """A good value of a parameter."""
    schema = schema_of(name)
    match schema["type"]:
        case "array":
            return ("END", "a = b")
        case "object":
            return {5: -1.5, 7: 2.0}
        case "string":
            return schema["enum"][-1] if "enum" in schema else "text"
        case kind:
            return {"integer": int, "number": float}[kind](schema["maximum"])


def arguments_of(name: str) -> list[str]:
    """The command line that sets a parameter to its value."""
    value = value_of(name)
    if isinstance(value, dict):
        texts = [f"{key}={item}" for key, item in value.items()]
    else:
        texts = list(value) if isinstance(value, tuple) else [str(value)]
    return [f"--{name.replace('_', '-')}={text}" for text in texts]
