"""Faults while tokens are generated: the request that has one fails alone, and its neighbours answer as ever."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from abstractllm.errors import AbstractLLMError, ModelLoadError
from abstractllm.providers.huggingface.engine.pending_request import as_error
from abstractllm.providers.huggingface.protocol.messages import (
    Batch,
    Conversation,
    Delta,
    Generate,
    Sampling,
    Turn,
)
from abstractllm.providers.huggingface.worker import sequential
from abstractllm.providers.huggingface.worker.batching import sampler, sampling_state
from abstractllm.providers.huggingface.worker.batching.equivalence_check import references
from abstractllm.providers.huggingface.worker.batching.row_settings import RowSettings
from abstractllm.providers.huggingface.worker.batching.sampling_state import SamplingState, TokenCounts
from abstractllm.providers.huggingface.worker.batching.start import start
from abstractllm.providers.huggingface.worker.batching.step_logprobs import StepLogprobs
from abstractllm.providers.huggingface.worker.batching.token_changes import TokenChanges
from abstractllm.providers.huggingface.worker.detokenizer import Detokenizer, ExactDetokenizer
from abstractllm.providers.huggingface.worker.generation_errors import no_token_error
from abstractllm.providers.huggingface.worker.logprobs import LogprobAligner
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.parsing.answer_parser import AnswerParser
from abstractllm.providers.huggingface.worker.request import EngineRequest, failure_message
from abstractllm.providers.huggingface.worker.structured.matcher import Matcher
from tests.unit.fault_harness import (
    BAD_SEED,
    CUDA_MEMORY,
    POISON,
    FaultHarness,
    ask_neighbours,
    is_bad,
    new_settings,
    poison,
    running,
)
from tests.unit.test_batching import MIXED
from tests.waiting import wait_until


def test_an_overflow_in_one_prompt_fails_that_request_alone(loaded: LoadedModel) -> None:
    poison(loaded)
    with running(loaded) as harness:
        wanted = harness.answer(*ask_neighbours(harness))
        for sampling in MIXED:
            first, bad, last = (
                ask_neighbours(harness),
                harness.submit(f"hello {POISON} world", **sampling),
                ask_neighbours(harness),
            )
            failure = harness.failure(bad)
            assert failure.reason == "PROVIDER_PROTOCOL"
            assert failure.message.startswith("the model's logits are not finite (nan)")
            assert harness.answer(*first) == harness.answer(*last) == wanted
        wait_until(harness.is_empty)


def test_nothing_of_an_overflow_stays_in_the_cache(loaded: LoadedModel) -> None:
    poison(loaded)
    with running(loaded) as harness:
        harness.failure(harness.submit(f"hello {'world ' * 30}hello {POISON} world", temperature=0.0))
        wait_until(harness.is_empty)
        assert not harness.engine._manager.cache.cache_tensor.view(torch.float32).isnan().any()
        prompt = f"hello {'world ' * 30}there"
        again = harness.submit(prompt, temperature=0.0)
        assert harness.answer(again) == harness.answer(harness.submit(prompt, temperature=0.0))
        assert again.cached_tokens == 0


ROWS = {
    "nan": torch.nan,
    "infinity": torch.inf,
    "minus infinity": -torch.inf,
}


@pytest.mark.parametrize("row", [*ROWS, "one nan", "one infinity"])
@pytest.mark.parametrize("sampling", MIXED, ids=str)
def test_whatever_is_not_finite_is_told_and_harms_no_neighbour(row: str, sampling: dict[str, Any]) -> None:
    logits = torch.randn((3, 1000), generator=torch.Generator().manual_seed(1))
    states = [new_state({"temperature": 0.0}), new_state(sampling), new_state({"temperature": 1.0, "seed": 1})]
    wanted = sampler.sample(logits.clone(), states)
    states = [new_state({"temperature": 0.0}), new_state(sampling), new_state({"temperature": 1.0, "seed": 1})]
    if row in ROWS:
        logits[1] = ROWS[row]
    else:
        logits[1, 700] = ROWS[row.removeprefix("one ")]
    tokens = sampler.sample(logits, states)
    assert [tokens[0], tokens[2]] == [wanted[0], wanted[2]]
    assert isinstance(states[1].error, AbstractLLMError)
    assert "the model's logits are not finite" in states[1].error.message
    assert (states[1].sampled, states[0].error, states[2].error) == (0, None, None)


def new_state(sampling: dict[str, Any]) -> SamplingState:
    message = Generate(1, Conversation(()), Sampling(**sampling))
    defaults = type("Defaults", (), dict.fromkeys(("do_sample", "temperature", "top_k", "top_p", "min_p"), None))()
    defaults.repetition_penalty = None
    return sampling_state.new_sampling_state(EngineRequest(message, prompt=(5, 6), max_tokens=9), defaults, None)


def test_a_single_minus_infinity_is_no_fault() -> None:
    logits = torch.zeros((1, 1000))
    logits[0, 1:] = -torch.inf
    states = [new_state({"temperature": 1.0, "seed": 1})]
    assert sampler.sample(logits, states) == [0]
    assert states[0].error is None


def fail_method(name: str) -> Any:
    """Returns a way of sampling that fails if the bad request is among those that it is done for."""
    real = sampler.METHODS[name]

    def method(logits: torch.Tensor, rows: RowSettings) -> Any:
        if any(map(is_bad, rows.states)):
            raise ZeroDivisionError
        return real(logits, rows)

    return method


@pytest.mark.parametrize("sampling", [*MIXED[1:6], {"temperature": 1.0}, {"top_k": 300}], ids=str)
def test_an_exception_in_any_way_of_sampling_fails_one_request(
    harness: FaultHarness, monkeypatch: pytest.MonkeyPatch, sampling: dict[str, Any]
) -> None:
    wanted = harness.answer(*ask_neighbours(harness))
    for name in sampler.METHODS:
        monkeypatch.setitem(sampler.METHODS, name, fail_method(name))
    first = ask_neighbours(harness)
    bad = harness.submit("hello", **{**sampling, "seed": BAD_SEED})
    last = ask_neighbours(harness)
    assert harness.failure(bad).reason == "INTERNAL"
    assert harness.answer(*first) == harness.answer(*last) == wanted
    wait_until(harness.is_empty)


FAULTS = {
    "bias": (TokenChanges, "_apply", {"temperature": 0.0, "logit_bias": {9: 1.0}}),
    "penalties": (TokenChanges, "_apply", {"temperature": 0.0, "presence_penalty": 1.0}),
    "counts": (TokenCounts, "add", {"temperature": 0.0, "presence_penalty": 1.0}),
    "record": (SamplingState, "record", {"temperature": 0.0}),
    "log-probabilities": (StepLogprobs, "_compute", {"temperature": 0.0, "top_logprobs": 2}),
    "their report": (StepLogprobs, "_gather", {"temperature": 0.0, "top_logprobs": 2}),
    "their place": (LogprobAligner, "assign", {"temperature": 0.0, "top_logprobs": 2}),
    "detokenizer": (Detokenizer, "push", {"temperature": 0.0}),
    "its end": (Detokenizer, "flush", {"temperature": 0.0}),
    "parser": (AnswerParser, "push", {"temperature": 0.0}),
    "its last piece": (AnswerParser, "end", {"temperature": 0.0}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_exception_anywhere_fails_one_request(
    harness: FaultHarness, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    owner, name, sampling = FAULTS[fault]
    wanted = harness.answer(*ask_neighbours(harness))
    real: Any = getattr(owner, name)
    broken = Broken(harness)

    def function(*arguments: Any, **options: Any) -> Any:
        broken.raise_for(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, function)
    first = ask_neighbours(harness)
    bad = broken.request = harness.submit("hello", **{**sampling, "seed": BAD_SEED})
    last = ask_neighbours(harness)
    assert harness.failure(bad).reason == "INTERNAL"
    assert harness.answer(*first) == harness.answer(*last) == wanted
    wait_until(harness.is_empty)


class Broken:
    """Raises an error in whatever is done for one request."""

    def __init__(self, harness: FaultHarness) -> None:
        self._harness = harness
        self.request: EngineRequest | None = None

    def raise_for(self, arguments: tuple[Any, ...]) -> None:
        """Raises an error if the arguments of a function belong to the request."""
        for output in [state.output for state in [*self._harness.engine._manager.scheduler.active_requests.values()]]:
            state, processor = output.sampling_state, output._processor
            if is_bad(state) and any(
                argument in (state, state.counts, processor._detokenizer, processor._parser, processor._logprobs)
                for argument in arguments
                if not isinstance(argument, torch.Tensor | list | dict | int | str) and argument is not None
            ):
                raise ZeroDivisionError
        indexes = arguments[-1]
        states = arguments[0]._states if isinstance(arguments[0], StepLogprobs | TokenChanges) else None
        is_step = isinstance(indexes, list) and states and isinstance(states[0], SamplingState)
        if is_step and any(is_bad(states[index]) for index in indexes):
            raise ZeroDivisionError


@pytest.mark.parametrize("name", ["forbid", "accept", "push"])
def test_an_exception_in_a_format_fails_one_request(
    harness: FaultHarness, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    wanted = harness.answer(*ask_neighbours(harness))
    good = harness.answer(harness.submit_with_format("hello", "[a-z]{1,5}", seed=1, temperature=1.0))
    bad_matchers: list[Matcher] = []
    real_forbid, real_accept, real_push = sampler.forbid, Matcher.accept, ExactDetokenizer.push

    def forbid(logits: torch.Tensor, matchers: list[Matcher], rows: list[int]) -> None:
        real_forbid(logits, matchers, rows)  # the fault comes when the logits have been changed
        if name == "forbid" and any(matcher in bad_matchers for matcher in matchers):
            raise ZeroDivisionError

    def accept(matcher: Matcher, token: int) -> None:
        if name == "accept" and matcher in bad_matchers:
            raise ZeroDivisionError
        real_accept(matcher, token)

    def is_bad_detokenizer(detokenizer: ExactDetokenizer) -> bool:
        states: Any = harness.engine._manager.scheduler.active_requests
        return any(
            state.output._processor._detokenizer is detokenizer and state.output.request is bad
            for state in states.values()
        )

    def push(detokenizer: ExactDetokenizer, id: int) -> str:
        if name == "push" and is_bad_detokenizer(detokenizer):
            raise ZeroDivisionError
        return real_push(detokenizer, id)

    monkeypatch.setattr(sampler, "forbid", forbid)
    monkeypatch.setattr(Matcher, "accept", accept)
    first = ask_neighbours(harness)
    bad = harness.submit_with_format("hello", "[a-z]{1,5}", seed=1, temperature=1.0)
    assert bad.matcher is not None
    bad_matchers.append(bad.matcher)
    monkeypatch.setattr(ExactDetokenizer, "push", push)
    held = harness.submit_with_format("hello", "[a-z]{1,5}", seed=1, temperature=1.0)
    assert harness.answer(held) == good
    assert harness.failure(bad).reason == "INTERNAL"
    assert harness.answer(*first) == wanted
    wait_until(harness.is_empty)


def test_a_caller_who_leaves_while_the_parser_fails_harms_nobody(
    harness: FaultHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = harness.answer(harness.submit("hello", temperature=0.0))

    def done(processor: Any) -> Any:
        if processor._request.cancelled:
            raise ZeroDivisionError
        return real(processor)

    from abstractllm.providers.huggingface.worker.output import OutputProcessor

    real = OutputProcessor.done
    monkeypatch.setattr(OutputProcessor, "done", done)
    leaving = harness.submit("hello", temperature=1.0, max_tokens=400)
    harness.wait_until(lambda: leaving.message.id in harness.texts)
    leaving.cancelled = True
    assert harness.failure(leaving).reason == "INTERNAL"
    assert harness.answer(harness.submit("hello", temperature=0.0)) == wanted
    wait_until(harness.is_empty)


@pytest.mark.parametrize("max_tokens", [1, 16])
def test_a_message_that_cannot_be_sent_fails_its_request(
    harness: FaultHarness, monkeypatch: pytest.MonkeyPatch, max_tokens: int
) -> None:
    wanted = harness.answer(*ask_neighbours(harness))
    bad_ids: list[int] = []
    real: Any = harness.engine._send

    def send(batch: Batch) -> None:
        for message in batch.messages:
            if isinstance(message, Delta) and message.id in bad_ids:
                "\ud800".encode()
        real(batch)

    monkeypatch.setattr(harness.engine, "_send", send)
    first = ask_neighbours(harness)
    bad_ids.append(harness._next + 1)
    bad = harness.submit("hello", temperature=0.0, max_tokens=max_tokens)
    last = ask_neighbours(harness)
    assert harness.failure(bad).reason == "INTERNAL"
    assert "UnicodeEncodeError" in harness.failure(bad).message
    assert bad.message.id not in harness.done
    assert harness.answer(*first) == harness.answer(*last) == wanted
    wait_until(harness.is_empty)


def test_a_broken_device_still_ends_the_process(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(logits: torch.Tensor, rows: RowSettings) -> Any:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setitem(sampler.METHODS, "greedy", broken)
    with running(loaded) as harness:
        harness.submit("hello", temperature=0.0)
        with pytest.raises(AssertionError):
            harness.wait_until(lambda: False)
        assert -1 in harness.failed


@pytest.mark.parametrize("sampling", [MIXED[0], MIXED[1], MIXED[-1]], ids=str)
def test_one_at_a_time_an_overflow_fails_by_name_too(loaded: LoadedModel, sampling: dict[str, Any]) -> None:
    poison(loaded)
    good = generate_alone(loaded, "hello", **sampling)
    with pytest.raises(AbstractLLMError, match=r"the model's logits are not finite \(nan\)") as caught:
        generate_alone(loaded, f"hello {POISON} world", **sampling)
    assert caught.value.reason == "PROVIDER_PROTOCOL"
    assert generate_alone(loaded, "hello", **sampling) == good


def generate_alone(loaded: LoadedModel, prompt: str, **sampling: Any) -> list[Any]:
    conversation = Conversation((Turn("user", prompt),))
    request = EngineRequest(
        Generate(1, conversation, Sampling(**sampling)),
        prompt=tuple(loaded.prompt_builder.encode(conversation)),
        max_tokens=8,
    )
    messages: list[Any] = []
    sequential.generate(loaded, request, messages.append)
    return messages


def test_a_model_whose_numbers_are_never_finite_is_refused(loaded: LoadedModel, directory: Path) -> None:
    with torch.no_grad():
        loaded.model.model.norm.weight[0] = torch.inf
    with pytest.raises(ModelLoadError, match=r"the model's logits are not finite, whatever the prompt is"):
        start(loaded, new_settings(directory), send=lambda _: None, end=lambda _: None, crash=lambda: None)


def test_a_prompt_that_overflows_does_not_keep_a_model_from_being_batched(
    loaded: LoadedModel, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither do tokens that can never come, with logits of minus infinity."""
    used = {token for reference in references(loaded) for token in (*reference.prompt, *reference.tokens)}
    poisoned = next(token for token in range(loaded.vocabulary_size) if token not in used)
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[poisoned] = torch.nan
    real = torch.randint

    def randint(low: int, high: int, size: tuple[int, ...], **options: Any) -> torch.Tensor:
        return torch.full(size, poisoned) if size == (1, 21) else real(low, high, size, **options)

    def exclude_last(module: Any, arguments: Any, output: Any) -> None:
        output.logits[..., -1] = -torch.inf

    monkeypatch.setattr(torch, "randint", randint)
    loaded.model.register_forward_hook(exclude_last)
    assert [len(reference.prompt) for reference in references(loaded)] == [3, 8, 70]
    engine = start(loaded, new_settings(directory), send=lambda _: None, end=lambda _: None, crash=lambda: None)
    assert engine is not None, loaded.description.note
    engine.stop()


def test_a_model_that_overflows_is_not_asked_again_by_itself() -> None:
    overflow = as_error(failure_message(1, no_token_error(math.nan, "", None)))
    assert (overflow.reason, overflow.is_billed) == ("PROVIDER_PROTOCOL", True)
    too_little = as_error(failure_message(1, CUDA_MEMORY))
    assert (too_little.reason, too_little.is_billed, too_little.retryable) == ("OVERLOADED", False, True)
