"""The pages on the providers anthropic and ollama say what the code does."""

import pytest

from abstractllm.config import LLMConfig
from abstractllm.providers.anthropic import AnthropicConfig
from abstractllm.providers.anthropic import messages as anthropic
from abstractllm.providers.anthropic.models import _MODELS, _UNKNOWN, DEFAULT_MODEL, TABLE_DATE, UNKNOWN_MAX_TOKENS
from abstractllm.providers.ollama import OllamaConfig
from abstractllm.providers.ollama import messages as ollama
from abstractllm.providers.ollama.config import BASE_URL
from abstractllm.providers.ollama.config import DEFAULT_MODEL as OLLAMA_MODEL


def table(*lines: list[str]) -> str:
    """A table, its head first."""
    head, *rows = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows])


def models_table() -> str:
    """Claude models: what they take, a row for those that are alike."""
    alike = {}
    for name, facts in _MODELS.items():
        alike.setdefault(facts, []).append(f"`claude-{name}`")
    rows = [
        [
            ", ".join(names),
            "`max_tokens`, `stop`" + (", `reasoning_effort`" if facts.efforts else ""),
            ", ".join(facts.efforts) or "none",
            f"`{facts.thinking_off}`" if facts.efforts and facts.thinking_off else "cannot be asked for",
            _number(facts.context_window),
            _number(facts.max_output_tokens),
        ]
        for facts, names in [*alike.items(), (_UNKNOWN, ["others"])]
    ]
    return table(["models", "parameters", "efforts", "off (`none`)", "context window", "output at most"], *rows)


def parameters_table() -> str:
    """Parameters, and their place in the body of a request to Ollama."""
    rows = [[f"`{name}`", f"`options.{wire}`"] for name, wire in ollama.OPTIONS.items()]
    levels = ", ".join(f"{effort}: `{str(level).lower()}`" for effort, level in ollama._THINK.items())
    rows.append(["`top_logprobs`", "`logprobs`, `top_logprobs`"])
    rows.append(["`reasoning_effort`, if the model thinks", f"`think` ({levels})"])
    return table(["parameter", "sent as"], *rows)


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


@pytest.mark.parametrize(
    ("page", "mark", "made"),
    [("anthropic", "models", models_table), ("ollama", "parameters", parameters_table)],
)
def test_the_table_is_the_code_s(repository, page, mark, made):
    text = (repository / f"docs/providers/{page}.md").read_text()
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    assert text[text.index(begin) + len(begin) : text.index(end)].strip() == made()


@pytest.mark.parametrize(
    ("page", "config", "names"),
    [
        ("anthropic", AnthropicConfig, (*anthropic.PROVIDER_OPTIONS, DEFAULT_MODEL)),
        ("ollama", OllamaConfig, (*ollama.PROVIDER_OPTIONS, OLLAMA_MODEL, BASE_URL)),
    ],
)
def test_every_key_option_and_default_is_named(repository, page, config, names):
    text = (repository / f"docs/providers/{page}.md").read_text()
    for name in (*(set(config.model_fields) - set(LLMConfig.model_fields)), *names):
        assert f"`{name}`" in text, name


def test_the_date_and_the_default_limit_are_named(repository):
    text = (repository / "docs/providers/anthropic.md").read_text()
    assert TABLE_DATE in text
    assert f" {UNKNOWN_MAX_TOKENS} " in text
