"""The check that a model gives the same answers in a batch as alone.

Continuous batching hands a model packed sequences and a cache of another kind. A model that computes its positions or
its masks in an unforeseen way then gives wrong answers without any error. So each model is checked once after loading.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from abstractllm.errors import ModelLoadError
from abstractllm.providers.huggingface.protocol.messages import Conversation, Generate, Sampling
from abstractllm.providers.huggingface.worker.batching.engine import BatchEngine
from abstractllm.providers.huggingface.worker.batching.sampling_state import SamplingState
from abstractllm.providers.huggingface.worker.batching.scheduling import BatchRequest
from abstractllm.providers.huggingface.worker.generation_config import neutral_config, own_config_set_aside
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.request import EngineRequest
from abstractllm.providers.huggingface.worker.sampling_settings import SamplingSettings

__all__ = ["CheckFailedError", "Reference", "references", "run_probes"]

_NEW_TOKENS = 4
_PROMPT_LENGTHS = (3, 21, 70)
_STEP_TOKENS = 32
"""Prompt tokens of one step while the check runs, so that the longest prompt is taken in pieces."""
_LONGEST_PROMPT = 520
"""A sliding window that is smaller is exceeded by the longest prompt; for a larger one, loading would take too long."""
_PROMPT_VOCABULARY = 1000
"""Prompts consist of the first tokens of the vocabulary: those that stand for images come last."""
_COMPARED_TOKENS = 32
"""The number of likeliest tokens whose log-probabilities are compared at each step."""
_TOLERANCE = {torch.float32: 0.005, torch.float16: 0.05, torch.bfloat16: 0.3}
"""The largest difference of log-probabilities that rounding explains, as a share of the spread of the logits.

Measured with random models of 2 and 12 layers: at most 7e-5 in float32, 0.04 in float16 and 0.13 in bfloat16, but 0.45
where a token goes to another expert; 0.05 with weights and activations in 8 bits. Models that answer wrongly in a batch
are off by 2 to 4.
"""
_TIMEOUT_SECONDS = 600


class CheckFailedError(Exception):
    """The model's answers in a batch are not those it gives alone."""


@dataclass
class Reference:
    """A prompt, and the model's answer to it alone."""

    prompt: list[int]
    tokens: list[int]
    logprobs: torch.Tensor
    """`[new tokens, vocabulary]`: of the raw logits."""
    spread: float
    """The standard deviation of the logits over the vocabulary."""


@dataclass
class _Probe:
    """A request of the check; it takes the place of a `RequestOutput`, and keeps the tokens that it is given."""

    request: EngineRequest
    sampling_state: SamplingState
    done: threading.Event
    tokens: list[int] = field(default_factory=list)
    likeliest: list[tuple[list[int], list[float]]] = field(default_factory=list)
    """The likeliest tokens of each step and their log-probabilities."""
    error: Exception | None = None

    @property
    def is_at_limit(self) -> bool:
        """True if one more token is the last."""
        return len(self.tokens) + 1 >= _NEW_TOKENS

    def begin(self, cached_tokens: int) -> None:
        """Does nothing, since nobody waits for the beginning."""

    def take(self, token: int) -> bool:
        """Keeps a token and the likeliest tokens' log-probabilities, or the error of the sampler."""
        if self.sampling_state.error is not None:
            self.fail(self.sampling_state.error)
            return True
        assert self.sampling_state.logprobs is not None
        self.tokens.append(token)
        self.likeliest.append(self.sampling_state.logprobs[1:])
        if len(self.tokens) == _NEW_TOKENS:
            self.done.set()
        return self.done.is_set()

    def cancel(self) -> None:
        """Does nothing, since a probe is not cancelled."""

    def fail(self, error: Exception) -> None:
        """Keeps the error of a request that the manager could not take."""
        self.error = error
        self.done.set()


def references(loaded: LoadedModel) -> list[Reference]:
    """Has the model itself answer some prompts, before its attention is switched.

    A prompt for which its numbers overflow tells nothing, and is left out.

    Raises:
        ModelLoadError: If the model cannot generate at all, or its numbers overflow for each prompt.
    """
    config = neutral_config(
        loaded.model,
        max_new_tokens=_NEW_TOKENS,
        eos_token_id=loaded.vocabulary_size,  # no token
        output_logits=True,
        return_dict_in_generate=True,
    )
    answers = [_reference(loaded, config, index, length) for index, length in enumerate(_prompt_lengths(loaded))]
    finite = [answer for answer in answers if not answer.logprobs.isnan().any()]
    if not finite:
        raise ModelLoadError(
            f"the model's logits are not finite, whatever the prompt is: its numbers overflow in {loaded.model.dtype}, "
            "or its weights are broken; the key dtype sets another precision",
            field="model",
        )
    return finite


def _prompt_lengths(loaded: LoadedModel) -> list[int]:
    """Returns the lengths of the prompts: within the context window, and one beyond a small sliding window."""
    longest = loaded.description.context_window - _NEW_TOKENS - 1
    window = getattr(loaded.model.config.get_text_config(decoder=True), "sliding_window", None) or 0
    lengths = (*_PROMPT_LENGTHS, window + 8) if window + 8 <= _LONGEST_PROMPT else _PROMPT_LENGTHS
    return sorted({max(1, min(length, longest)) for length in lengths})


def _reference(loaded: LoadedModel, config: Any, seed: int, length: int) -> Reference:
    generator = torch.Generator().manual_seed(seed)
    prompt = torch.randint(0, min(_PROMPT_VOCABULARY, loaded.vocabulary_size), (1, length), generator=generator)
    prompt = prompt.to(loaded.model.device)
    try:
        with torch.no_grad(), own_config_set_aside(loaded.model):
            answer = loaded.model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=config)
    except Exception as error:
        raise ModelLoadError(f"the model cannot generate: {type(error).__name__}: {error}", field="model") from error
    logits = torch.cat(answer.logits).float().cpu()
    tokens = answer.sequences[0, length:].tolist()
    return Reference(prompt[0].tolist(), tokens, logits.log_softmax(dim=-1), _spread(logits))


def _spread(logits: torch.Tensor) -> float:
    """Returns the standard deviation of the logits over the vocabulary, but for tokens that can never come."""
    values = torch.where(logits.isfinite(), logits, torch.nan)
    return (values - values.nanmean(dim=-1, keepdim=True)).square().nanmean(dim=-1).sqrt().mean().item()


def run_probes(engine: BatchEngine, references: Sequence[Reference], broken: threading.Event) -> None:
    """Has the running loop answer the same prompts, all at once and in small steps, and compares the answers.

    Args:
        engine: The loop.
        references: The prompts, and the model's answers to them alone.
        broken: Set when the loop cannot go on.

    Raises:
        CheckFailedError: If an answer differs by more than rounding, or the loop breaks.
    """
    with engine.limited_steps(_STEP_TOKENS):
        probes = [_add_probe(engine, index, reference) for index, reference in enumerate(references)]
        for probe in probes:
            _wait_for(probe, engine, broken)
    is_exact = engine.dtype in _TOLERANCE and not engine.is_quantized
    tolerance = _TOLERANCE[engine.dtype if is_exact else torch.bfloat16]
    for probe, reference in zip(probes, references, strict=True):
        _compare(probe, reference, tolerance)


def _add_probe(engine: BatchEngine, index: int, reference: Reference) -> _Probe:
    sampling_state = SamplingState(SamplingSettings(temperature=0.0), seed=0, top_logprobs=_COMPARED_TOKENS)
    request = EngineRequest(Generate(-index, Conversation(()), Sampling()), prompt=tuple(reference.prompt))
    probe = _Probe(request, sampling_state, threading.Event())
    output: Any = probe
    engine.add(
        BatchRequest(request_id=f"probe{index}", initial_tokens=reference.prompt, max_new_tokens=None, output=output)
    )
    return probe


def _wait_for(probe: _Probe, engine: BatchEngine, broken: threading.Event) -> None:
    waited = 0.0
    while not probe.done.wait(0.01):
        waited += 0.01
        if broken.is_set() or waited > _TIMEOUT_SECONDS:
            raise CheckFailedError(
                f"the batch loop broke while it was tried: {_described(engine.failure)}"
            ) from engine.failure
    if probe.error:
        raise CheckFailedError(f"the batch loop refused a request: {_described(probe.error)}") from probe.error


def _compare(probe: _Probe, reference: Reference, tolerance: float) -> None:
    """Compares the log-probabilities step by step, up to a place where two tokens are equally likely.

    Half of the steps may differ: now and then, rounding sends a token of a mixture of experts to another expert.

    Raises:
        CheckFailedError: If the median of the differences is more than rounding explains.
    """
    differences = []
    for token, (ids, values), expected, logprobs in zip(
        probe.tokens, probe.likeliest, reference.tokens, reference.logprobs, strict=True
    ):
        differences.append((torch.tensor(values) - logprobs[ids]).abs().max().item() / max(reference.spread, 1e-6))
        if token != expected:
            break
    difference = sorted(differences, key=lambda value: (value != value, value))[len(differences) // 2]
    if not difference <= tolerance:
        raise CheckFailedError(
            f"the answer to a prompt of {len(reference.prompt)} tokens differs in a batch: log-probabilities by "
            f"{difference:.2g} of the logits' standard deviation, of which rounding explains {tolerance:g}"
        )


def _described(error: Exception | None) -> str:
    return f"{type(error).__name__}: {error}" if error else "it did not answer"
