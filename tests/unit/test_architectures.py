"""Every architecture gives in a batch the answers of `model.generate`, or is answered one request at a time.

`python -m tests.unit.test_architectures` prints the table of `docs/providers/huggingface.md`.
"""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from abstractllm.providers.huggingface.protocol.messages import (
    Batch,
    Begun,
    Conversation,
    Delta,
    Done,
    Failed,
    Generate,
    Load,
    Sampling,
)
from abstractllm.providers.huggingface.worker.batching import sizes
from abstractllm.providers.huggingface.worker.batching.start import start
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.request import EngineRequest
from abstractllm.providers.huggingface.worker.sequential import generate
from tests.unit.architectures import ARCHITECTURES, SLIDING, Architecture, model_of, tokenizer

HANG = 60
STEP = 48
"""Prompt tokens of a step: the longer ones of `LENGTHS` are taken in pieces."""
LENGTHS = (1, 17, SLIDING + 3, STEP + 1, 150)
NEW_TOKENS = 16
SETTINGS = Load(model="", is_directory=True, cache_dir="", kv_cache_bytes=16 << 20, max_batch_size=len(LENGTHS))


@dataclass
class Outcome:
    """The result of one architecture."""

    batched: bool
    reason: str
    wrong: list[str]
    """Answers that differ from those of `model.generate`."""


@cache
def outcome(architecture: Architecture) -> Outcome:
    """Answers the same prompts by `model.generate` itself and through the engine, and compares the tokens."""
    model = model_of(architecture)
    loaded = LoadedModel(model, tokenizer(), SETTINGS)
    generator = torch.Generator().manual_seed(7)
    prompts = [torch.randint(2, len(tokenizer()), (length,), generator=generator).tolist() for length in LENGTHS]
    wanted = [alone(model, prompt) for prompt in prompts]
    followers = Followers()
    usual = sizes._BATCH_TOKENS["cpu"]
    sizes._BATCH_TOKENS["cpu"] = STEP
    try:
        engine = start(loaded, SETTINGS, send=followers.take_all, end=followers.end, crash=followers.crash)
    finally:
        sizes._BATCH_TOKENS["cpu"] = usual
    requests = [new_request(index, prompt) for index, prompt in enumerate(prompts)]
    if engine is None:
        for request in requests:
            followers.take(generate(loaded, request, followers.take))
    else:
        for request in requests:
            engine.submit(request)
        followers.wait(len(requests))
        engine.stop()
    wrong = [
        f"{len(prompt)} tokens: {tokens} instead of {answer.tokens}"
        for prompt, answer, tokens in zip(prompts, wanted, map(followers.tokens.get, range(len(prompts))), strict=True)
        if not answer.is_matched_by(tokens or [])
    ]
    return Outcome(engine is not None, loaded.description.note, wrong)


@dataclass
class Answer:
    """The answer of `model.generate`."""

    tokens: list[int]
    logprobs: torch.Tensor

    def is_matched_by(self, tokens: list[int]) -> bool:
        """Tells whether these are the same tokens, up to a place where two were equally likely but for rounding."""
        for place, (token, wanted) in enumerate(zip(tokens, self.tokens, strict=False)):
            if token != wanted:
                return bool(self.logprobs[place, wanted] - self.logprobs[place, token] < 1e-4)
        return len(tokens) == len(self.tokens)


def alone(model: Any, prompt: list[int]) -> Answer:
    config = copy.deepcopy(model.generation_config)
    config.update(do_sample=False, max_new_tokens=NEW_TOKENS, max_length=None, eos_token_id=1, pad_token_id=0)
    config.update(output_logits=True, return_dict_in_generate=True)
    ids = torch.tensor([prompt])
    output = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    tokens = output.sequences[0, len(prompt) :].tolist()
    return Answer([token for token in tokens if token != 1], torch.cat(output.logits).log_softmax(dim=-1))


def new_request(number: int, prompt: list[int]) -> EngineRequest:
    # The log-probabilities bring the token ids with them.
    sampling = Sampling(temperature=0.0, max_tokens=NEW_TOKENS, top_logprobs=0)
    return EngineRequest(Generate(number, Conversation(()), sampling), prompt=tuple(prompt), max_tokens=NEW_TOKENS)


class Followers:
    """Collects the tokens of the answers."""

    def __init__(self) -> None:
        self.tokens: dict[int, list[int]] = {}
        self._over = 0
        self._error: Exception | None = None
        self._changed = threading.Condition()

    def take(self, message: Begun | Delta | Done) -> None:
        if isinstance(message, Delta):
            self.tokens.setdefault(message.id, []).extend(logprob.token_id for logprob in message.logprobs)

    def take_all(self, batch: Batch) -> None:
        for message in batch.messages:
            self.take(message)
        with self._changed:
            self._over += sum(isinstance(message, (Done, Failed)) for message in batch.messages)
            self._changed.notify_all()

    def end(self, request: EngineRequest) -> None:
        """Called when a request is over, for which its last message stands."""

    def crash(self) -> None:
        with self._changed:
            self._error = RuntimeError("the loop crashed")
            self._changed.notify_all()

    def wait(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._over >= count or self._error, HANG)
        assert self._error is None


def answered_together(loaded: LoadedModel, load: Load, prompts: list[list[int]]) -> list[list[int]]:
    """Returns the greedy tokens of prompts that are answered at the same time."""
    followers = Followers()
    engine = start(loaded, load, send=followers.take_all, end=followers.end, crash=followers.crash)
    assert engine is not None, loaded.description.note
    try:
        for index, prompt in enumerate(prompts):
            engine.submit(new_request(index, prompt))
        followers.wait(len(prompts))
    finally:
        engine.stop()
    return [followers.tokens.get(index, []) for index in range(len(prompts))]


def table() -> str:
    """Returns the table of the documentation."""
    lines = [
        "| architecture | requests are answered | equal to `model.generate` | why not together |",
        "|---|---|---|---|",
    ]
    for architecture in ARCHITECTURES:
        result = outcome(architecture)
        reason = f"`{architecture.reason_alone}`" if architecture.reason_alone else ""
        manner, equal = "together" if result.batched else "one at a time", "no" if result.wrong else "yes"
        lines.append(f"| {architecture.name} | {manner} | {equal} | {reason} |".replace("  |", " |"))
    return "\n".join(lines)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda each: each.name)
def test_answers_are_those_of_generate(architecture: Architecture) -> None:
    result = outcome(architecture)
    assert result.wrong == []
    assert result.batched == (not architecture.reason_alone), result.reason
    assert architecture.reason_alone in result.reason


def test_the_table_stands_in_the_documentation(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{table()}")
    assert table() in (repository / "docs/providers/huggingface.md").read_text("utf-8")


if __name__ == "__main__":
    print(table())
