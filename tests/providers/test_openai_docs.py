"""The page on the openai provider says what the code does."""

from abstractllm.config import LLMConfig
from abstractllm.parameters import GENERATION_PARAMETERS
from abstractllm.providers.openai import OpenAIConfig
from abstractllm.providers.openai.messages import PROVIDER_OPTIONS
from abstractllm.providers.openai.models import (
    _FAMILIES,
    _UNKNOWN,
    COMPATIBLE,
    DEFAULT_MODEL,
    WITHOUT_REASONING,
    Family,
)

EXTENSIONS = [name for name in GENERATION_PARAMETERS if name not in (*COMPATIBLE.parameters, "model")]
"""Not OpenAI's; vLLM, SGLang and others take them under these names, beside OpenAI's own."""


def parameters_table() -> str:
    """The table of parameters, made from the code: a row a family."""
    head = ["models", "parameters", "images", "JSON schema", "context window", "output at most"]
    rows = [
        [
            family.name,
            ", ".join(_takes(family)),
            "yes" if family.image_input else "no",
            "yes" if family.json_schema else "no",
            _number(family.context_window),
            _number(family.max_output_tokens),
        ]
        for family in (*_FAMILIES, _UNKNOWN, COMPATIBLE)
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows])


def _takes(family: Family) -> list[str]:
    takes = [*family.parameters, *(EXTENSIONS if family is COMPATIBLE else ())]
    conditional = WITHOUT_REASONING if family.reasoning_is_optional else EXTENSIONS
    mark = " (1)" if family.reasoning_is_optional else " (2)"
    return [f"`{name}`{mark if name in conditional else ''}" for name in GENERATION_PARAMETERS if name in takes]


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def test_the_table_of_parameters_is_the_code_s(repository):
    page = (repository / "docs/providers/openai.md").read_text()
    begin, end = "<!-- parameters: begin -->", "<!-- parameters: end -->"
    assert page[page.index(begin) + len(begin) : page.index(end)].strip() == parameters_table()


def test_every_key_option_and_default_is_named(repository):
    page = (repository / "docs/providers/openai.md").read_text()
    keys = set(OpenAIConfig.model_fields) - set(LLMConfig.model_fields)
    for name in (*keys, *PROVIDER_OPTIONS, DEFAULT_MODEL):
        assert f"`{name}`" in page, name
