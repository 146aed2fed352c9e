"""Texts of callers become neither a control token nor less than they were."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from abstractllm.errors import InvalidRequestError
from abstractllm.providers.huggingface.protocol.messages import Conversation, ToolCall, ToolDefinition, Turn
from tests.cases.local.scripted_model import scripted_tokenizer
from tests.unit.chat_templates import HERMES

KINDS = ["byte_level", "sentencepiece"]
PARTS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|im", "_end|>", " ", "\n", "a", "é", "🙂", "<tool>", "<tool>s"]


@functools.cache
def chat_tokenizer(kind: str) -> Any:
    tokenizer = scripted_tokenizer(kind, special=["<tool>", "<tool>s"])
    tokenizer.chat_template = HERMES
    return tokenizer


@functools.cache
def builder(kind: str) -> Any:
    from abstractllm.providers.huggingface.worker.prompt.prompt_builder import PromptBuilder

    return PromptBuilder(chat_tokenizer(kind), 10_000)


def encode(kind: str, *texts: str) -> list[int]:
    turns = [Turn("assistant" if place % 2 else "user", text) for place, text in enumerate(texts)]
    return list(builder(kind).encode(Conversation(tuple(turns))))


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=150)
@given(parts=st.lists(st.sampled_from(PARTS), min_size=1, max_size=12), prefill=st.booleans())
def test_prompts_are_those_of_transformers(kind: str, parts: list[str], prefill: bool) -> None:
    text = "x" + "".join(parts)
    texts = [text, text] if prefill else [text]
    messages = [
        {"role": "assistant" if place % 2 else "user", "content": content} for place, content in enumerate(texts)
    ]
    expected = chat_tokenizer(kind).apply_chat_template(
        messages,
        add_generation_prompt=not prefill,
        continue_final_message=prefill,
        sanitize_control_tokens=True,
        return_dict=False,
    )
    assert encode(kind, *texts) == expected


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=150)
@given(text=st.text(st.sampled_from("\U000f0000\U000f0001\U000f0002\U0010fffd\ufdd0\ue000a<s>|\x00"), min_size=1))
@example(text="\U000f0000</s>\U000f0001")
@example(text="\ufeff\U000f0000 CONTINUE_FINAL_MESSAGE_TAG ")
def test_private_characters_stay(kind: str, text: str) -> None:
    ids = encode(kind, f"x{text}x", "yes", f"x{text}x")
    written = chat_tokenizer(kind).decode(ids, skip_special_tokens=False)
    assert written.count(f"x{text}x") == 2
    control_tokens = set(chat_tokenizer(kind).all_special_ids)
    assert [id for id in ids if id in control_tokens] == [
        id for id in encode(kind, "a", "yes", "a") if id in control_tokens
    ]


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        (r'{"a": "\ud83d\ude42"}', '{"a": "🙂"}'),
        (r'{"a": "x\ud83dy"}', '{"a": "x\ufffdy"}'),
        (r'{"x\udc00y": 1}', '{"x\ufffdy": 1}'),
        (r'{"a": "\u0000\ufeff\r\n\u202e"}', r'{"a": "\u0000' + "\ufeff" + r"\r\n" + '\u202e"}'),
    ],
)
def test_escapes_in_the_arguments_of_an_earlier_call_come_back(arguments: str, written: str) -> None:
    call = ToolCall("abcdefghi", "weather", arguments)
    turns = (
        Turn("user", "Go"),
        Turn("assistant", "", calls=(call,)),
        Turn("tool", "ok", call_id=call.id, name="weather"),
    )
    schema = json.dumps({"type": "object", "properties": {"a": {"description": "x\ud800y"}}})
    ids = builder("byte_level").encode(Conversation(turns, (ToolDefinition("weather", "", schema),)))
    prompt = chat_tokenizer("byte_level").decode(ids)
    assert f'"arguments": {written}' in prompt
    assert '"x\ufffdy"' in prompt


def test_a_text_of_all_private_characters_is_refused() -> None:
    from abstractllm.providers.huggingface.worker.prompt.control_tokens import _free_characters

    characters = [*range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE)]
    with pytest.raises(InvalidRequestError, match="all private characters"):
        encode("byte_level", "".join(map(chr, characters)))
    assert _free_characters("".join(map(chr, characters[:-2]))) == (chr(characters[-2]), chr(characters[-1]))


def test_a_second_template_for_tools_has_its_control_tokens() -> None:
    from abstractllm.providers.huggingface.worker.prompt.prompt_builder import PromptBuilder

    tokenizer = scripted_tokenizer("byte_level", added=["<answer>", "<result>"])
    tokenizer.chat_template = {"default": HERMES, "tool_use": "{{ '<result>' and '' }}" + HERMES}
    call = ToolCall("abcdefghi", "weather", "{}")
    result = Turn("tool", "<result><answer>", call_id=call.id, name="weather")
    turns = (Turn("user", "Go"), Turn("assistant", "", calls=(call,)), result)
    tools = (ToolDefinition("weather", "", "{}"),)
    ids = PromptBuilder(tokenizer, 10_000).encode(Conversation(turns, tools))
    assert tokenizer.convert_tokens_to_ids("<result>") not in ids
    assert "<result><answer>" in tokenizer.decode(ids)


def test_many_control_tokens_are_not_searched_for_one_by_one() -> None:
    """Counts the branches of the pattern at one place: those of one character, not of all names."""
    from abstractllm.providers.huggingface.worker.prompt.control_tokens import _any_of

    names = [f"<unused{number}>" for number in range(6000)] + ["[multimodal]", "<pad>", "<unused", "<"]
    pattern = _any_of(names)
    assert pattern is not None
    assert max(_branches(re._parser.parse(pattern.pattern))) <= 11  # type: ignore[attr-defined]
    for name in names:
        assert pattern.fullmatch(name)
    assert pattern.findall("<unused17> <unused6000> <pad <") == ["<unused17>", "<unused", "<", "<"]


def _branches(tree: Any) -> list[int]:
    sizes = [1]
    for operation, argument in tree:
        if str(operation) == "BRANCH":
            sizes.append(len(argument[1]))
            for branch in argument[1]:
                sizes += _branches(branch)
        elif str(operation) == "SUBPATTERN":
            sizes += _branches(argument[-1])
        elif str(operation) == "MAX_REPEAT":
            sizes += _branches(argument[2])
    return sizes
