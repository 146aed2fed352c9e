"""Whatever a chat template drops: all of a conversation is in the prompt, or the request is refused by name."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abstractllm.errors import ModelLoadError, UnsupportedFeatureError
from abstractllm.providers.huggingface.protocol.messages import Conversation, ToolCall, ToolDefinition, Turn
from tests.cases.local.scripted_model import scripted_tokenizer

CALL = '<tool_call>\n{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>'
DROPS = [
    "m.role == 'system'",
    "m.role == 'system' and not loop.first",
    "m.role == 'system' and tools",
    "m.role == 'tool'",
    "m.role == 'assistant' and not loop.last",
    "m.role == 'user' and not loop.last and loop.nextitem.role == 'user'",
    "m.role == 'user' and loop.first and not loop.last",
    "loop.index > 3",
    "m.role == 'assistant' and m.tool_calls and m.content",
]
CALLS = [
    "{% for c in m.tool_calls %}" + CALL + "{% endfor %}",
    "{% if m.tool_calls %}{% set c = m.tool_calls[0] %}" + CALL + "{% endif %}",
    "{% if m.tool_calls | length > 1 %}{{ raise_exception('one call at a time') }}{% endif %}"
    "{% for c in m.tool_calls %}" + CALL + "{% endfor %}",
    "",
]
CONTENTS = [
    "{{ m.content }}",
    "{% if not m.tool_calls %}{{ m.content }}{% endif %}",
    "{% for part in m.content %}{{ part.text }}{% endfor %}",
    "{% if m.role == 'user' %}{% for part in m.content %}{{ part.text }}{% endfor %}"
    "{% else %}{{ m.content }}{% endif %}",
]
TOOLS = [
    "{{ tools | tojson }}",
    "{% for t in tools %}{{ t.function.name }}: {{ t.function.parameters | tojson }}{% endfor %}",
    "{% for t in tools[:1] %}{{ t | tojson }}{% endfor %}",
]


def template(drop: str, calls: str, content: str, tools: str) -> str:
    return (
        "{% if tools %}<tools>" + tools + "</tools> Call as <tool_call>{}</tool_call>\n{% endif %}"
        "{% for m in messages %}{% if not ("
        + drop
        + ") %}<|im_start|>{{ m.role }}\n"
        + content
        + calls
        + "<|im_end|>\n"
        "{% endif %}{% endfor %}"
    )


@functools.lru_cache(maxsize=512)
def builder(source: str) -> Any:
    from abstractllm.providers.huggingface.worker.prompt.prompt_builder import PromptBuilder

    tokenizer = scripted_tokenizer()
    tokenizer.chat_template = source
    return PromptBuilder(tokenizer, 100_000), tokenizer


TEMPLATES = st.builds(
    template,
    st.sampled_from(["false", *DROPS]),
    st.sampled_from(CALLS),
    st.sampled_from(CONTENTS),
    st.sampled_from(TOOLS),
)
ROLES = st.lists(st.sampled_from(["system", "user", "assistant", "calls", "text and calls"]), min_size=1, max_size=6)


def conversation(roles: list[str], tools: int) -> tuple[Conversation, list[str]]:
    """A conversation in which each text is a word of its own, and the words."""
    words: list[str] = []

    def word() -> str:
        words.append(f"text{len(words)}end")
        return words[-1]

    turns: list[Turn] = []
    for role in roles:
        place = len(turns)
        if "calls" not in role:
            turns.append(Turn(role, word(), message=place))
            continue
        calls = tuple(ToolCall(f"callnr00{n}", word(), json.dumps({"k": word()})) for n in range(1 + place % 2))
        text = word() if "text" in role else ""
        turns.append(Turn("assistant", text, calls=calls, message=place))
        turns += [Turn("tool", word(), call_id=call.id, name=call.name, message=place + 1) for call in calls]
    turns.append(Turn("user", word(), message=len(turns)))
    schema = json.dumps({"type": "object", "properties": {"k": {"type": "string"}}})
    definitions = tuple(ToolDefinition(word(), word(), schema) for _ in range(tools))
    return Conversation(tuple(turns), definitions), words


@settings(max_examples=300, deadline=None)
@given(source=TEMPLATES, roles=ROLES, tools=st.integers(0, 2))
def test_all_of_a_conversation_is_in_the_prompt_or_refused_by_name(source: str, roles: list[str], tools: int) -> None:
    try:
        prompts, tokenizer = builder(source)
    except ModelLoadError:
        return  # a template that never shows a first question cannot be used at all
    request, words = conversation(roles, tools)
    refused: UnsupportedFeatureError | None = None
    try:
        prompt = tokenizer.decode(prompts.encode(request))
    except UnsupportedFeatureError as error:
        refused = error
    if refused is None:
        assert [word for word in words if word not in prompt] == []
    else:
        assert refused.field


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("calls", CALLS[:3])
def test_a_template_that_drops_nothing_is_given_everything(content: str, calls: str) -> None:
    """Also where text and calls, or two calls, must be given apart."""
    prompts, tokenizer = builder(template("false", calls, content, TOOLS[0]))
    request, words = conversation(["system", "user", "text and calls", "assistant", "user", "calls"], 2)
    prompt = tokenizer.decode(prompts.encode(request))
    assert [word for word in words if word not in prompt] == []
    assert prompts.takes_system_prompt() and prompts.takes_chat()


def test_the_same_structure_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, _ = builder(template("false", CALLS[0], CONTENTS[0], TOOLS[0]))
    request, _ = conversation(["user", "calls", "system"], 1)
    prompts.encode(request)
    monkeypatch.setattr(prompts._parts, "_render", None)  # is not called again
    longer = Conversation((*request.turns[:-1], Turn("user", "another text", message=9)), request.tools)
    assert len(prompts.encode(longer)) > 0
