"""Reasoning of local models: split off, counted, switched by the chat template.

The model that switches answers in a real engine process, the others by the same worker in this process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from abstractllm import create_llm
from abstractllm.errors import UnsupportedParameterError
from abstractllm.interface import AbstractLLMInterface
from abstractllm.types import (
    ChatMessage,
    Finished,
    FinishReason,
    JsonSchemaFormat,
    ParametersPolicy,
    Reasoning,
    ReasoningDelta,
    Role,
    Text,
    TextDelta,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from tests.cases.local.in_process_engine import engines_in_process
from tests.unit import chat_templates
from tests.unit.taught_models import Lesson, teach
from tests.unit.tiny_models import byte_level_tokenizer

PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}
ADD = {"type": "function", "function": {"name": "add", "description": "", "parameters": PARAMETERS}}
ADDED = '<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>'
THINK = ("<think>", "</think>")
THOUGHT = "<think>\nTwo and two.\n\nFour.\n</think>\n\nIt is 4."


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AbstractLLMInterface]:
    lessons = [
        Lesson([user("2+2?")], THOUGHT),
        Lesson([user("2+2?")], "Just 4.", variables={"enable_thinking": False}),
        Lesson([user("Hi!")], "Hello you."),
        Lesson([user("Add.")], f"<think>\nHm.\n</think>\n\n{ADDED}", [ADD]),
    ]
    with create_llm(
        "huggingface",
        model=str(teach(tmp_path_factory.mktemp("thinking"), chat_templates.THINKING, lessons, THINK)),
        max_tokens=100,
    ) as llm:
        llm.generate("Hi!")
        yield llm


@pytest.fixture(scope="module")
def opened(thinking: AbstractLLMInterface, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AbstractLLMInterface]:
    """A model whose template opens the reasoning; `thinking` has its process already."""
    lessons = [
        Lesson([user("2+2?")], THOUGHT.removeprefix("<think>\n")),
        Lesson([user("Hi!")], "\n</think>\n\nHello."),
        Lesson([user("Add.")], f"Hm.\n</think>\n\n{ADDED}", [ADD]),
    ]
    directory = teach(tmp_path_factory.mktemp("opened"), chat_templates.OPENED, lessons)
    with engines_in_process(), create_llm("huggingface", model=str(directory), max_tokens=100) as llm:
        llm.generate("Hi!")
        yield llm


@pytest.mark.parametrize("name", ["thinking", "opened"])
def test_reasoning_comes_apart_from_text_streamed_and_whole(name: str, request: pytest.FixtureRequest) -> None:
    llm: AbstractLLMInterface = request.getfixturevalue(name)
    events = list(llm.stream("2+2?", top_logprobs=0))
    reasoning = [event for event in events if isinstance(event, ReasoningDelta)]
    texts = [event for event in events if isinstance(event, TextDelta)]
    assert "".join(event.text for event in reasoning) == "Two and two.\n\nFour."
    assert "".join(event.text for event in texts) == "It is 4."
    assert events.index(reasoning[-1]) < events.index(texts[0])
    assert b"".join(logprob.token_bytes for event in texts for logprob in event.logprobs).strip() == b"It is 4."
    finished = events[-1]
    assert isinstance(finished, Finished)
    whole = llm.complete("2+2?")
    assert whole.message == finished.message
    assert whole.message.parts == (Reasoning("Two and two.\n\nFour."), Text("It is 4."))
    assert (whole.text, whole.finish_reason) == ("It is 4.", FinishReason.STOP)
    assert whole.usage.reasoning_tokens == finished.usage.reasoning_tokens
    assert whole.usage.reasoning_tokens is not None
    assert whole.usage.output_tokens is not None
    text_tokens = sum(len(event.logprobs) for event in texts)
    assert 0 < whole.usage.reasoning_tokens < whole.usage.output_tokens - text_tokens + 1


def test_an_answer_without_reasoning_is_all_text(thinking: AbstractLLMInterface, opened: AbstractLLMInterface) -> None:
    answer = thinking.complete("Hi!")
    assert (answer.text, answer.reasoning, answer.usage.reasoning_tokens) == ("Hello you.", "", 0)
    answer = opened.complete("Hi!")
    assert (answer.text, answer.reasoning) == ("Hello.", "")
    assert answer.usage.reasoning_tokens


def test_reasoning_that_is_cut_off_is_reasoning(opened: AbstractLLMInterface) -> None:
    answer = opened.complete("2+2?", max_tokens=5)
    assert (answer.text, answer.finish_reason) == ("", FinishReason.MAX_TOKENS)
    assert "Two and two.\n\nFour.".startswith(answer.reasoning)
    assert answer.usage.reasoning_tokens == answer.usage.output_tokens == 5


def test_stop_sequences_are_not_looked_for_in_reasoning(opened: AbstractLLMInterface) -> None:
    answer = opened.complete("2+2?", stop=["Four", "think"])
    assert (answer.text, answer.finish_reason) == ("It is 4.", FinishReason.STOP)
    answer = opened.complete("2+2?", stop=["is"])
    assert (answer.text, answer.stop_sequence) == ("It ", "is")


def test_the_templates_switch_turns_reasoning_off_and_on(thinking: AbstractLLMInterface) -> None:
    assert "reasoning_effort" in thinking.get_capabilities()["parameters"]
    answer = thinking.complete("2+2?", reasoning_effort="none")
    assert (answer.text, answer.reasoning) == ("Just 4.", "")
    for effort in ("minimal", "low", "medium", "high", "xhigh"):
        assert thinking.complete("2+2?", reasoning_effort=effort).reasoning == "Two and two.\n\nFour."


def test_a_template_without_a_switch_refuses_the_effort_by_name_or_drops_it(opened: AbstractLLMInterface) -> None:
    with create_llm("huggingface", model=opened.config.model, max_tokens=100) as unloaded:
        for llm in (unloaded, opened):
            with pytest.raises(UnsupportedParameterError) as refused:
                llm.complete("2+2?", reasoning_effort="none")
            assert refused.value.field == "parameters.reasoning_effort"
            assert "reasoning_effort" not in llm.get_capabilities()["parameters"]
        answer = unloaded.complete("2+2?", reasoning_effort="none", parameters_policy=ParametersPolicy.DROP_UNSUPPORTED)
        assert (answer.text, answer.dropped_parameters) == ("It is 4.", ("parameters.reasoning_effort",))


def test_earlier_reasoning_goes_back_to_the_template(thinking: AbstractLLMInterface) -> None:
    question = ChatMessage(Role.USER, (Text("2+2?"),))
    bare = ChatMessage(Role.ASSISTANT, (Text("It is 4."),))
    reasoned = ChatMessage(Role.ASSISTANT, (Reasoning("Two and two."), Text("It is 4.")))
    assert thinking.count_tokens([question, reasoned, question]) > thinking.count_tokens([question, bare, question])


SUM = {"type": "object", "properties": {"sum": {"enum": [4, 5]}}, "required": ["sum"], "additionalProperties": False}
FORMAT = JsonSchemaFormat(json.dumps(SUM))


def check_formats(llm: AbstractLLMInterface) -> None:
    """A format, or a call that is required, holds only behind the reasoning."""
    answer = llm.complete("2+2?", response_format=FORMAT)
    assert answer.reasoning == "Two and two.\n\nFour."
    assert (json.loads(answer.text)["sum"] in (4, 5), answer.finish_reason) == (True, FinishReason.STOP)
    tool = Tool("add", "", json.dumps(PARAMETERS))
    called = llm.complete("Add.", tools=[tool], tool_choice=ToolChoice(ToolChoiceMode.REQUIRED))
    (call,) = called.tool_calls
    assert (called.reasoning, call.name, call.arguments_json) == ("Hm.", "add", "{}")
    assert called.finish_reason is FinishReason.TOOL_CALLS


@pytest.mark.parametrize("name", ["thinking", "opened"])
def test_a_format_or_a_forced_call_holds_only_behind_the_reasoning(name: str, request: pytest.FixtureRequest) -> None:
    llm: AbstractLLMInterface = request.getfixturevalue(name)
    check_formats(llm)
    if name == "thinking":  # reasoning is off: the answer is held to the format from its first token on
        assert llm.complete("2+2?", response_format=FORMAT, reasoning_effort="none").reasoning == ""


def test_a_model_that_is_not_batched_reasons_too(thinking: AbstractLLMInterface) -> None:
    with (
        engines_in_process(),
        create_llm("huggingface", model=thinking.config.model, max_tokens=100, max_batch_size=1) as alone,
    ):
        for parameters in ({}, {"max_tokens": 5}, {"reasoning_effort": "none"}):
            answer, batched = alone.complete("2+2?", **parameters), thinking.complete("2+2?", **parameters)
            assert (answer.message, answer.usage.reasoning_tokens) == (batched.message, batched.usage.reasoning_tokens)
        check_formats(alone)


def encoded(template: str, effort: str) -> str:
    import transformers

    from abstractllm.providers.huggingface.protocol.messages import Conversation, Turn
    from abstractllm.providers.huggingface.worker.prompt.prompt_builder import PromptBuilder

    tokenizer: Any = transformers.PreTrainedTokenizerFast(tokenizer_object=byte_level_tokenizer())
    tokenizer.chat_template = template
    ids = PromptBuilder(tokenizer, 10_000).encode(Conversation((Turn("user", "hi"),), effort=effort))
    return str(tokenizer.decode(ids))


def test_levels_are_passed_on_where_the_template_takes_levels() -> None:
    for effort in ("low", "medium", "high"):
        assert f"Reasoning: {effort}" in encoded(chat_templates.LEVELS, effort)
    assert "Reasoning: medium" in encoded(chat_templates.LEVELS, "")
    for effort in ("none", "xhigh"):
        with pytest.raises(UnsupportedParameterError, match="low, medium, high") as refused:
            encoded(chat_templates.LEVELS, effort)
        assert refused.value.requested == effort


def test_levels_that_a_template_compares_with_are_those_it_takes() -> None:
    template = chat_templates.LEVELS.replace(
        "reasoning_effort if reasoning_effort is defined else 'medium'",
        "'deep' if reasoning_effort == 'xhigh' else ('no' if reasoning_effort == 'none' else 'some')",
    )
    assert "Reasoning: deep" in encoded(template, "xhigh")
    assert "Reasoning: no" in encoded(template, "none")
    with pytest.raises(UnsupportedParameterError, match="none, xhigh"):
        encoded(template, "low")


@pytest.mark.parametrize("variable", ["enable_thinking", "thinking", "reasoning"])
def test_the_switch_is_the_variable_that_changes_the_prompt(variable: str) -> None:
    template = chat_templates.THINKING.replace("enable_thinking", variable)
    assert encoded(template, "none").endswith("<think>\n\n</think>\n\n")
    assert encoded(template, "high").endswith("assistant\n")
    unused = chat_templates.HERMES + "{% if enable_thinking %}{% endif %}"
    with pytest.raises(UnsupportedParameterError):
        encoded(unused, "none")
