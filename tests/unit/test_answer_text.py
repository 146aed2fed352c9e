"""From tokens to an answer's text: the pieces, the whole text, the log-probabilities' bytes and the stops agree."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abstractllm.providers.huggingface.protocol.messages import (
    Conversation,
    Delta,
    Done,
    Generate,
    Sampling,
    ToolDefinition,
    Turn,
)
from tests.cases.local.scripted_model import scripted_tokenizer
from tests.unit.chat_templates import HERMES
from tests.unit.tiny_models import decoded

SPECIAL = ("<|eom|>", "<|pad|>")
TOOLS = (ToolDefinition("weather", "", '{"type": "object"}'),)


@functools.cache
def loaded(kind: str, has_template: bool) -> Any:
    """Returns the parts of a model that `OutputProcessor` needs: a tokenizer and end tokens, no weights."""
    from abstractllm.providers.huggingface.worker.prompt.prompt_builder import PromptBuilder
    from abstractllm.providers.huggingface.worker.token_decoder import TokenDecoder

    tokenizer = scripted_tokenizer(kind, special=SPECIAL)
    if has_template:
        tokenizer.chat_template = HERMES
    return SimpleNamespace(
        tokenizer=tokenizer,
        token_decoder=TokenDecoder(tokenizer),
        ends=frozenset({tokenizer.eos_token_id}),
        rules=SimpleNamespace(forced_eos_token_id=None),
        prompt_builder=PromptBuilder(tokenizer, len(tokenizer)),
    )


def answer(
    model: Any, tokens: list[int], *, stop: tuple[str, ...] = (), whole: bool = False, tools: bool = False, **turn: Any
) -> tuple[list[Delta], Done]:
    """Returns the messages of an answer that consists of these tokens."""
    from abstractllm.providers.huggingface.worker.output import OutputProcessor
    from abstractllm.providers.huggingface.worker.request import EngineRequest

    turns = (Turn("user", "The quick"),) if not turn else (Turn("user", "Go"), Turn("assistant", turn["prefill"]))
    conversation = Conversation(turns, TOOLS if tools else ())
    request = EngineRequest(Generate(1, conversation, Sampling(stop=stop, top_logprobs=1), whole))
    request.prompt = model.prompt_builder.encode(conversation)
    request.max_tokens = len(tokens) + 1
    deltas: list[Delta] = []
    output = OutputProcessor(model, request, deltas.append)
    for token in [*tokens, next(iter(model.ends))]:
        if output.take(token, (-1.0, [token], [-1.0])):
            break
    return deltas, output.done()


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def bytes_of(deltas: list[Delta]) -> bytes:
    return b"".join(logprob.token_bytes for delta in deltas for logprob in delta.logprobs)


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
@pytest.mark.parametrize("has_template", [True, False])
@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_streamed_whole_and_decoded_text_and_the_bytes_of_tokens_agree(
    kind: str, has_template: bool, data: st.DataObject
) -> None:
    model = loaded(kind, has_template)
    words = model.tokenizer(" Paris, 你好 🙂", add_special_tokens=False)["input_ids"]
    known = st.sampled_from([*words, *map(model.tokenizer.convert_tokens_to_ids, SPECIAL)])
    size = len(model.tokenizer) + 5
    tokens = [id for id in data.draw(st.lists(known | st.integers(0, size), max_size=30)) if id not in model.ends]
    turn = data.draw(st.sampled_from([{}, {"prefill": "The quick"}])) if has_template else {}
    streamed, done = answer(model, tokens, **turn)
    whole, whole_done = answer(model, tokens, whole=True, **turn)
    prompt = model.tokenizer("The quick")["input_ids"] if turn or not has_template else []
    assert text_of(streamed) == text_of(whole) == decoded(model.tokenizer.backend_tokenizer, tokens, prompt)
    assert bytes_of(streamed) == bytes_of(whole)
    assert done.finish_reason == whole_done.finish_reason == "stop"
    assert [logprob.token_id for delta in streamed for logprob in delta.logprobs] == tokens
    if "\ufffd" not in text_of(streamed):
        assert bytes_of(streamed) == text_of(streamed).encode()


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_stop_cuts_the_streamed_and_the_whole_text_at_the_same_place(kind: str, data: st.DataObject) -> None:
    model = loaded(kind, True)
    parts = st.sampled_from(["a", "b", " ", "\n", "ab", "<tool", *SPECIAL])
    written = data.draw(st.lists(parts, max_size=20))
    stop = data.draw(st.lists(st.lists(parts, min_size=1, max_size=3).map("".join), max_size=3))
    tools = data.draw(st.booleans())
    tokens = [id for part in written for id in model.tokenizer(part, add_special_tokens=False)["input_ids"]]
    streamed, done = answer(model, tokens, stop=tuple(stop), tools=tools)
    whole, whole_done = answer(model, tokens, stop=tuple(stop), tools=tools, whole=True)
    assert text_of(streamed) == text_of(whole)
    assert (done.finish_reason, done.stop_sequence) == (whole_done.finish_reason, whole_done.stop_sequence)
    assert (done.finish_reason == "stop_sequence") == bool(done.stop_sequence)
    assert not any(one in text_of(streamed) for one in stop)
    if not stop:
        assert text_of(streamed).rstrip() == decoded(model.tokenizer.backend_tokenizer, tokens).rstrip()


def test_log_probabilities_of_what_is_no_text_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from abstractllm.providers.huggingface.worker.logprobs import LogprobAligner

    kept: list[int] = []
    drop = LogprobAligner.drop

    def counted_drop(self: LogprobAligner, settled: int) -> None:
        drop(self, settled)
        kept.append(len(self._unassigned) + len(self._unsent))

    monkeypatch.setattr(LogprobAligner, "drop", counted_drop)
    model = loaded("byte_level", True)
    call = '<tool_call>{"name": "weather", "arguments": {"a": "' + "long " * 300 + '"}}</tool_call>'
    tokens = model.tokenizer("Go." + call + "Done.", add_special_tokens=False)["input_ids"]
    deltas, done = answer(model, tokens, tools=True)
    assert done.finish_reason == "tool_calls"
    assert bytes_of(deltas) == b"Go.Done."
    assert max(kept) < 60


def test_a_special_token_has_no_bytes_of_text_but_its_name_among_the_likeliest() -> None:
    model = loaded("byte_level", True)
    special = model.tokenizer.convert_tokens_to_ids("<|pad|>")
    deltas, _ = answer(model, [special])
    (logprob,) = (logprob for delta in deltas for logprob in delta.logprobs)
    assert (logprob.token_id, logprob.token_bytes) == (special, b"")
    assert [top.token_bytes for top in logprob.top] == [b"<|pad|>"]


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_text_that_is_whole_is_sent_with_its_token_while_tools_are_offered(kind: str) -> None:
    model = loaded(kind, True)
    tokens = model.tokenizer("The quick brown fox", add_special_tokens=False)["input_ids"]
    deltas, _ = answer(model, tokens, tools=True)
    assert len([delta for delta in deltas if delta.text]) == len(tokens)
