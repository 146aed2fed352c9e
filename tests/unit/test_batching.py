"""The batch loop: every request gets the answer that it gets alone, and releases all that it held."""

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from abstractllm.providers.huggingface.protocol.messages import (
    Begun,
    Conversation,
    Delta,
    Done,
    Failed,
    Generate,
    Load,
    Sampling,
    Turn,
)
from abstractllm.providers.huggingface.worker.batching import attention
from abstractllm.providers.huggingface.worker.batching.engine import BatchEngine
from abstractllm.providers.huggingface.worker.batching.scheduling import BatchRequest
from abstractllm.providers.huggingface.worker.batching.start import start
from abstractllm.providers.huggingface.worker.loading import load_model
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.output import OutputProcessor
from abstractllm.providers.huggingface.worker.request import EngineRequest
from tests.unit.tiny_models import build
from tests.waiting import wait_until

HANG = 60
MEBIBYTE = 1 << 20


class Harness:
    """A batch loop in this process, and its messages about each request."""

    def __init__(
        self,
        loaded: LoadedModel,
        max_batch_size: int = 32,
        cache_bytes: int = 64 * MEBIBYTE,
        prefix_sharing: bool = True,
        overlaps: bool = False,
    ) -> None:
        self.loaded = loaded
        self.texts: dict[int, str] = {}
        self.done: dict[int, Done] = {}
        self.failed: dict[int, Failed | Exception] = {}
        self.begun: list[int] = []
        self.released = 0
        self._changed = threading.Condition()
        self._next = 0
        self.engine = BatchEngine(
            loaded,
            max_batch_size=max_batch_size,
            cache_bytes=cache_bytes,
            prefix_sharing=prefix_sharing,
            overlaps=overlaps,
            send=self._send,
            end=self._end,
            crash=self._crash,
        )
        self.engine.start()

    def _send(self, batch):
        with self._changed:
            for message in batch.messages:
                match message:
                    case Begun():
                        self.begun.append(message.id)
                    case Delta():
                        self.texts[message.id] = self.texts.get(message.id, "") + message.text
                    case Done():
                        self.done[message.id] = message
                    case Failed():
                        self.failed[message.id] = message
            self._changed.notify_all()

    def _end(self, request):
        with self._changed:
            self.released += 1
            self._changed.notify_all()

    def _crash(self):
        with self._changed:
            self.failed[-1] = RuntimeError("the loop crashed")
            self._changed.notify_all()

    def submit(self, prompt: str, max_tokens: int = 16, caller: str = "", **sampling) -> EngineRequest:
        self._next += 1
        message = Generate(
            self._next,
            Conversation((Turn("user", prompt),)),
            Sampling(max_tokens=max_tokens, **sampling),
            caller=caller,
        )
        request = EngineRequest(
            message, prompt=tuple(self.loaded.prompt_builder.encode(message.conversation)), max_tokens=max_tokens
        )
        self.engine.submit(request)
        return request

    def wait_until(self, condition) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: condition() or -1 in self.failed, HANG)
            assert -1 not in self.failed

    def answer(self, *requests: EngineRequest) -> list[tuple[str, str, int]]:
        ids = [request.message.id for request in requests]
        self.wait_until(lambda: all(id in self.done or id in self.failed for id in ids))
        return [(self.texts.get(id, ""), self.done[id].finish_reason, self.done[id].output_tokens) for id in ids]

    def is_empty(self) -> bool:
        counters = self.engine.counters
        return not (counters.active or counters.waiting or counters.blocks_in_use)


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "llama", "llama", max_position_embeddings=512)


@pytest.fixture
def loaded(directory) -> LoadedModel:
    return load_model(
        Load(model=str(directory), is_directory=True, cache_dir=str(directory), threads=1), lambda *_, **__: None
    )


@pytest.fixture
def harness(loaded) -> Iterator[Harness]:
    harness = Harness(loaded)
    yield harness
    harness.engine.stop()


MIXED = [
    {"temperature": 0.0},
    {"temperature": 1.0, "seed": 1},
    {"temperature": 0.7, "top_k": 5, "seed": 2},
    {"temperature": 1.3, "top_p": 0.8, "seed": 3},
    {"temperature": 1.0, "min_p": 0.1, "seed": 4},
    {"temperature": 0.9, "top_k": 30, "top_p": 0.9, "repetition_penalty": 1.3, "seed": 5},
    {"temperature": 0.0, "presence_penalty": 1.0, "frequency_penalty": 0.5},
    {"temperature": 1.0, "logit_bias": {20: 5.0}, "seed": 6},
    {"temperature": 1.0, "seed": 7, "stop": ("e", "th")},
    {"temperature": 0.0, "top_logprobs": 3},
]


def test_a_mixed_batch_gives_everyone_what_it_would_have_got_alone(harness):
    wishes = [(f"hello number {index} " * (1 + index % 5), MIXED[index % len(MIXED)]) for index in range(40)]
    alone = [harness.answer(harness.submit(prompt, **sampling))[0] for prompt, sampling in wishes]
    together = harness.answer(*[harness.submit(prompt, **sampling) for prompt, sampling in wishes])
    assert together == alone
    late = []
    for prompt, sampling in wishes:
        late.append(harness.submit(prompt, **sampling))
        time.sleep(0.004)
    assert harness.answer(*late) == alone
    assert len(harness.begun) == len(set(harness.begun)) == 120


def test_evictions_change_no_text(loaded, monkeypatch):
    def evict(request: BatchRequest) -> BatchRequest:
        evicted.append(request.request_id)
        return real(request)

    evicted: list[str] = []
    real = BatchRequest.create_equivalent_initial_request
    monkeypatch.setattr(BatchRequest, "create_equivalent_initial_request", evict)
    roomy = Harness(loaded)
    wishes = [(f"tell {index} me", MIXED[index % len(MIXED)]) for index in range(8)]
    wanted = roomy.answer(*[roomy.submit(prompt, max_tokens=120, **sampling) for prompt, sampling in wishes])
    roomy.engine.stop()
    # Room for about three of the eight: the others are evicted, again and again.
    page = 2 * 16 * loaded.model.config.num_key_value_heads * loaded.model.config.head_dim * 4
    narrow = Harness(loaded, max_batch_size=8, cache_bytes=page * loaded.model.config.num_hidden_layers * 28)
    try:
        evicted_answers = narrow.answer(
            *[narrow.submit(prompt, max_tokens=120, **sampling) for prompt, sampling in wishes]
        )
        assert evicted_answers == wanted
        assert len(evicted) > 3
        assert len(narrow.begun) == 8
        wait_until(narrow.is_empty)
    finally:
        narrow.engine.stop()


def test_whatever_is_cancelled_whenever_is_released(harness):
    generator = random.Random(1)
    requests = []
    for index in range(150):
        requests.append(
            harness.submit("a long prompt " * generator.randint(1, 30), max_tokens=generator.randint(1, 60))
        )
        if index % 3 == 0:
            generator.choice(requests).cancelled = True
            time.sleep(generator.random() * 0.01)
    for request in requests[::2]:
        request.cancelled = True
    harness.answer(*requests)
    assert harness.released == 150
    assert harness.failed == {}
    wait_until(harness.is_empty)
    assert harness.answer(harness.submit("still here", temperature=0.0))[0][2] > 0


def test_a_prompt_longer_than_a_step_is_taken_in_pieces(loaded):
    harness = Harness(loaded, max_batch_size=4)
    try:
        prompt = "one two three four five six seven " * 20
        assert 100 < len(loaded.prompt_builder.encode(Conversation((Turn("user", prompt),)))) < 480
        requests = [harness.submit(f"{prompt}{index}", temperature=0.0) for index in range(4)]
        together = harness.answer(*requests)
        assert together == [
            harness.answer(harness.submit(f"{prompt}{index}", temperature=0.0))[0] for index in range(4)
        ]
    finally:
        harness.engine.stop()


def test_long_prompts_of_one_caller_hold_up_no_short_one_of_another(loaded):
    harness = Harness(loaded, max_batch_size=16, prefix_sharing=False)
    try:
        long = "one two three four five six seven " * 20
        with harness.engine.limited_steps(32):
            many = [
                harness.submit(f"{index} {long}", max_tokens=1, caller="many", temperature=0.0) for index in range(12)
            ]
            harness.wait_until(lambda: bool(harness.begun))
            before = len(harness.done)
            harness.answer(harness.submit("hello", max_tokens=1, caller="one", temperature=0.0))
            overtaken = len(harness.done) - 1 - before
            harness.answer(*many)
        # Each of the twelve takes several steps, the one between them a single one.
        assert overtaken <= 3
    finally:
        harness.engine.stop()


def test_a_request_that_fails_harms_nobody_else(harness, monkeypatch):
    good = harness.submit("hello", temperature=0.0)
    wanted = harness.answer(good)

    def write_text(processor: OutputProcessor, text: str, is_last: bool = False) -> None:
        if processor._request.message.sampling.max_tokens == 8:
            raise ZeroDivisionError
        real(processor, text, is_last)

    real = OutputProcessor._write_text
    monkeypatch.setattr(OutputProcessor, "_write_text", write_text)
    bad = harness.submit("hello", temperature=0.0, max_tokens=8)
    other = harness.submit("hello", temperature=0.0)
    assert harness.answer(other) == wanted
    harness.wait_until(lambda: bad.message.id in harness.failed)
    assert (harness.failed[bad.message.id].reason, harness.released) == ("INTERNAL", 3)
    wait_until(harness.is_empty)


def settings(directory: Path, **more) -> Load:
    return Load(model=str(directory), is_directory=True, cache_dir=str(directory), threads=1, **more)


def test_a_sound_model_passes_the_equivalence_check(loaded, directory):
    engine = start(loaded, settings(directory), send=lambda _: None, end=lambda _: None, crash=lambda: None)
    assert engine is not None
    assert (loaded.description.slots, loaded.description.longest, loaded.description.note) == (64, 512, "")
    engine.stop()


def test_a_model_that_answers_differently_in_a_batch_is_asked_one_request_at_a_time(loaded, directory, monkeypatch):
    def blind(*arguments, **options):
        output, weights = real(*arguments, **options)
        return output * 0.9, weights

    real = attention.paged_attention
    monkeypatch.setattr(attention, "paged_attention", blind)
    before = loaded.model.config._attn_implementation
    engine = start(loaded, settings(directory), send=lambda _: None, end=lambda _: None, crash=lambda: None)
    assert engine is None
    assert loaded.description.slots == 1
    assert "one at a time" in loaded.description.note
    assert "differs in a batch" in loaded.description.note
    assert loaded.model.config._attn_implementation == before
    prompt = torch.tensor([[1, 2, 3]])
    assert loaded.model.generate(prompt, max_new_tokens=2).shape[1] > 3


def test_an_answer_that_is_wanted_whole_comes_in_one_piece(harness):
    pieces = harness.submit("hello there", temperature=0.0, top_logprobs=1)
    wanted = harness.answer(pieces)
    message = Generate(
        100, Conversation((Turn("user", "hello there"),)), Sampling(temperature=0.0, top_logprobs=1), whole=True
    )
    whole = EngineRequest(message, prompt=pieces.prompt, max_tokens=16)
    sent: list[Delta] = []
    real, harness.engine._send = harness.engine._send, lambda batch: (sent.extend(batch.messages), real(batch))
    harness.engine.submit(whole)
    assert harness.answer(whole) == wanted
    # Beside it only counts of the tokens so far.
    deltas = [message for message in sent if isinstance(message, Delta) and message.text]
    assert [delta.text for delta in deltas] == [wanted[0][0]]
    assert len(deltas[0].logprobs) >= wanted[0][2] - 1
    assert harness.done[100].since_first_token is not None
