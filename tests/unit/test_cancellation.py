"""Cancelling a request wherever it is: its place is free within two batches, and everything it held comes back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from abstractllm.errors import ContextLengthExceededError
from abstractllm.providers.huggingface import HuggingFaceProvider
from abstractllm.providers.huggingface.protocol.messages import Batch, Begun, Done, Failed, Load
from abstractllm.providers.huggingface.worker.batching.scheduling import BatchRequest
from abstractllm.providers.huggingface.worker.loading import load_model
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.output import OutputProcessor
from abstractllm.providers.huggingface.worker.request import EngineRequest
from tests.unit.test_batching import Harness
from tests.unit.tiny_models import build
from tests.waiting import until, wait_until

PATIENCE = 90.0
ENDLESS = {1: -100.0, 3: -100.0}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "llama", "llama", max_position_embeddings=4096)


@pytest.fixture
def loaded(directory: Path) -> LoadedModel:
    settings = Load(model=str(directory), is_directory=True, cache_dir=str(directory), threads=1)
    return load_model(settings, lambda *_, **__: None)


# The loop alone: how many steps it takes.


class Counting(Harness):
    """Notes after how many steps each request was over."""

    def __init__(self, loaded: LoadedModel, **sizes: Any) -> None:
        self.steps: dict[int, int] = {}
        super().__init__(loaded, **sizes)

    def _send(self, batch: Batch) -> None:
        for message in batch.messages:
            if isinstance(message, Done | Failed):
                self.steps[message.id] = batch.counters.steps
        super()._send(batch)


def cancel_each(harness: Counting, requests: list[EngineRequest], is_there: Callable[[EngineRequest], bool]) -> None:
    """Cancels each request as soon as it is where it is wanted, and asserts that it is over within two steps."""
    for request in requests:
        wait_until(lambda request=request: is_there(request))
        before = harness.engine.counters.steps
        request.cancelled = True
        harness.wait_until(lambda request=request: request.message.id in harness.done)
        assert harness.done[request.message.id].finish_reason == "cancelled"
        # The step that is under way when the flag is set, and the one after it.
        assert harness.steps[request.message.id] - before <= 2


def state_of(harness: Harness, request: EngineRequest) -> Any:
    scheduler = harness.engine._manager.scheduler
    name = str(request.message.id)
    return scheduler.active_requests.get(name) or scheduler.waiting_requests.get(name)


def status_of(harness: Harness, request: EngineRequest) -> str:
    state = state_of(harness, request)
    return "" if state is None else state.status.name


def test_in_decode(loaded: LoadedModel) -> None:
    harness = Counting(loaded, max_batch_size=10)
    for _ in range(10):
        requests = [harness.submit("hello", max_tokens=4000, logit_bias=ENDLESS) for _ in range(10)]
        cancel_each(harness, requests, lambda request: request.output_tokens > 2)
    assert harness.released == 100
    wait_until(harness.is_empty)
    harness.engine.stop()


def test_while_it_waits_for_a_place_in_the_batch(loaded: LoadedModel) -> None:
    harness = Counting(loaded, max_batch_size=2)
    running = [harness.submit("hello", max_tokens=4000, logit_bias=ENDLESS) for _ in range(2)]
    requests = [harness.submit("hello", max_tokens=4000) for _ in range(100)]
    cancel_each(harness, requests, lambda request: status_of(harness, request) == "PENDING")
    assert not {request.message.id for request in requests} & set(harness.begun)
    for request in running:
        request.cancelled = True
    harness.answer(*running)
    assert harness.released == 102
    wait_until(harness.is_empty)
    harness.engine.stop()


def test_between_the_pieces_of_its_prompt(loaded: LoadedModel) -> None:
    harness = Counting(loaded, max_batch_size=4, prefix_sharing=False)  # the others' beginning is theirs alone
    with harness.engine.limited_steps(16):
        requests: list[EngineRequest] = []
        for number in range(101):
            # One is always behind it: a loop without any work sleeps for a tenth of a second.
            if number < 100:
                requests.append(
                    harness.submit("one two three four five six seven eight " * 150 + str(number), max_tokens=100)
                )
                assert len(requests[-1].prompt) > 16 * 90
            if number:
                cancelled = requests[number - 1 : number]
                cancel_each(harness, cancelled, lambda request: status_of(harness, request) == "PREFILLING")
    assert harness.begun == [request.message.id for request in requests]
    assert {harness.done[request.message.id].output_tokens for request in requests} == {0}
    assert harness.released == 100
    wait_until(harness.is_empty)
    harness.engine.stop()


def test_when_it_is_evicted(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    evicted: dict[int, int] = {}

    def evict(batch_request: BatchRequest) -> BatchRequest:
        request = batch_request.output.request
        request.cancelled = True
        evicted[request.message.id] = harness.engine.counters.steps
        return real(batch_request)

    real = BatchRequest.create_equivalent_initial_request
    monkeypatch.setattr(BatchRequest, "create_equivalent_initial_request", evict)
    page = 2 * 16 * loaded.model.config.num_key_value_heads * loaded.model.config.head_dim * 4
    # Room for some of the prompts and for few of the answers.
    harness = Counting(loaded, max_batch_size=8, cache_bytes=page * loaded.model.config.num_hidden_layers * 40)
    while len(evicted) < 40:
        requests = [harness.submit(f"{number} tell me " * 12, max_tokens=40, logit_bias=ENDLESS) for number in range(8)]
        harness.answer(*requests)
    assert harness.failed == {}
    for number, steps in evicted.items():
        assert harness.done[number].finish_reason == "cancelled"
        assert harness.steps[number] - steps <= 2
    wait_until(harness.is_empty)
    harness.engine.stop()


def test_failure_in_the_first_step_comes_after_the_beginning(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[type] = []

    class Noting(Harness):
        def _send(self, batch: Batch) -> None:
            order.extend(type(message) for message in batch.messages if message.id == 2)
            super()._send(batch)

    def take(processor: OutputProcessor, *arguments: Any) -> bool:
        if processor._request.message.id == 2:
            raise ZeroDivisionError
        return real(processor, *arguments)

    real = OutputProcessor.take
    monkeypatch.setattr(OutputProcessor, "take", take)
    harness = Noting(loaded)
    requests = [harness.submit("hello", temperature=0.0) for _ in range(3)]
    harness.answer(requests[0], requests[2])
    harness.wait_until(lambda: 2 in harness.failed)
    assert order == [Begun, Failed]
    wait_until(harness.is_empty)
    harness.engine.stop()


def test_a_beginning_that_was_asked_before_is_taken_from_the_cache_unless_that_is_switched_off(
    loaded: LoadedModel,
) -> None:
    prompt = "one two three four five six seven " * 20
    for sharing in (True, False):
        harness = Harness(loaded, prefix_sharing=sharing)
        requests = []
        for _ in range(3):
            requests.append(harness.submit(prompt, temperature=0.0))
            harness.answer(requests[-1])
        answers = [harness.done[request.message.id] for request in requests]
        assert len({harness.texts[done.id] for done in answers}) == 1
        tokens = len(requests[0].prompt)
        expected = [0, *[(tokens - 1) // 16 * 16] * 2] if sharing else [0, 0, 0]
        assert [done.cached_tokens for done in answers] == expected
        counters = harness.engine.counters
        assert (counters.prompt_tokens, counters.cached_tokens) == (3 * tokens, sum(expected))
        assert counters.generated_tokens == sum(done.output_tokens for done in answers)
        harness.engine.stop()


# Through the provider and a real engine process.


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def llm(directory: Path) -> AsyncIterator[HuggingFaceProvider]:
    llm = HuggingFaceProvider(
        {
            "model": str(directory),
            "temperature": 0,
            "threads": 1,
            "max_batch_size": 8,
            "max_queue": 400,
            "kv_cache_bytes": 1 << 20,
        }
    )
    await asyncio.wait_for(llm.load(), PATIENCE)
    yield llm
    await llm.close_async()


async def hundred(
    llm: HuggingFaceProvider, when: Callable[[], Awaitable[None]], prompt: str = "hello", **parameters: Any
) -> None:
    """Cancels a hundred requests at a certain moment, and asserts that nothing is left of them."""
    before = llm.counters
    parameters = {"logit_bias": ENDLESS} | parameters
    calls = [asyncio.create_task(llm.generate_async(f"{prompt} {number}", **parameters)) for number in range(100)]
    await when()
    for call in calls:
        call.cancel()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError | str) for end in ends)
    await until(lambda: is_at_rest(llm))
    assert llm.counters.accepted - before.accepted == 100
    assert (await llm.complete_async("still there", max_tokens=2)).usage.output_tokens == 2


def is_at_rest(llm: HuggingFaceProvider) -> bool:
    counters = llm.counters
    held = (
        counters.queued,
        counters.running,
        counters.active,
        counters.waiting,
        counters.blocks_in_use,
        llm.running,
    )
    return not any(held) and counters.accepted == counters.released


@pytest.mark.asyncio(loop_scope="module")
async def test_queued_sent_ahead_and_running_at_once(llm: HuggingFaceProvider) -> None:
    async def when() -> None:
        await until(lambda: llm.counters.running == 8 and llm.counters.queued == 92)

    await hundred(llm, when)


@pytest.mark.asyncio(loop_scope="module")
async def test_as_soon_as_it_is_sent(llm: HuggingFaceProvider) -> None:
    before = llm.counters.accepted
    await hundred(llm, lambda: until(lambda: llm.counters.accepted > before))


@pytest.mark.asyncio(loop_scope="module")
async def test_while_its_prompt_becomes_tokens(llm: HuggingFaceProvider) -> None:
    before = llm.counters.accepted
    # Each takes milliseconds to tokenize; they are refused afterwards, unless they are cancelled before.
    calls = [asyncio.create_task(llm.generate_async(f"{number} " + "word " * 3_000)) for number in range(100)]
    await until(lambda: llm.counters.accepted > before)
    await asyncio.sleep(0.05)
    for call in calls:
        call.cancel()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(end) for end in ends} <= {asyncio.CancelledError, ContextLengthExceededError}
    await until(lambda: is_at_rest(llm))
    assert llm.counters.accepted - before == 100


@pytest.mark.asyncio(loop_scope="module")
async def test_while_it_finishes(llm: HuggingFaceProvider) -> None:
    chance = random.Random(3)

    async def one(number: int) -> None:
        call = asyncio.create_task(llm.generate_async(f"hello {number}", max_tokens=3, logit_bias=ENDLESS))
        await asyncio.sleep(chance.random() * 0.3)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    before = llm.counters
    await asyncio.wait_for(asyncio.gather(*(one(number) for number in range(100))), PATIENCE)
    await until(lambda: is_at_rest(llm))
    assert llm.counters.accepted - before.accepted <= 100


@pytest.mark.asyncio(loop_scope="module")
async def test_prompts_that_do_not_fit_name_both_numbers_and_harm_nobody(llm: HuggingFaceProvider) -> None:
    good = [asyncio.create_task(llm.complete_async(f"hello {number}", max_tokens=20)) for number in range(8)]
    window = llm.get_capabilities()["context_window"]
    assert window == 4096
    for prompt, wanted, field in (
        ("word " * 3_000, "prompt", "prompt"),
        ("word " * 100, "max_tokens", "parameters.max_tokens"),
    ):
        with pytest.raises(ContextLengthExceededError) as refused:
            await llm.generate_async(prompt, max_tokens=5000 if wanted == "max_tokens" else None)
        assert refused.value.field == field
        assert isinstance(refused.value.limit, int)
        assert isinstance(refused.value.requested, int)
        assert str(refused.value.requested) in refused.value.message
        assert str(window) in refused.value.message
    twins = [llm.complete_async("twins", max_tokens=5, request_id="the same") for _ in range(2)]
    one, other = await asyncio.gather(*twins)
    assert one.text == other.text
    assert len(await asyncio.gather(*good)) == 8
    await until(lambda: is_at_rest(llm))
