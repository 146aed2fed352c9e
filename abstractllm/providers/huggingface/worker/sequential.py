"""One answer at a time through transformers' `model.generate`, which runs every architecture."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
)

from abstractllm.providers.huggingface.protocol.messages import Begun, Done, FromEngine, Sampling
from abstractllm.providers.huggingface.worker.output import OutputProcessor, Report
from abstractllm.providers.huggingface.worker.structured.grammar import Matcher, forbid

if TYPE_CHECKING:
    from abstractllm.providers.huggingface.worker.model import LoadedModel
    from abstractllm.providers.huggingface.worker.request import EngineRequest

__all__ = ["generate"]

_LEAST_TEMPERATURE = 1e-6
"""Dividing by less could overflow; at this one the likeliest token is already certain."""


def generate(loaded: LoadedModel, job: EngineRequest, send: Callable[[FromEngine], None]) -> Done:
    """Answers a request whose prompt is tokenized and fits the context window.

    What the request leaves unset comes from the model's own `generation_config`, and where that is silent too, nothing
    is cut off, penalized or, without a temperature, sampled.

    Returns:
        The last message of the answer; `output_tokens` counts every generated token, an end token included.
    """
    model, request = loaded.model, job.request
    send(Begun(request.id))
    prompt = torch.tensor([job.prompt], device=loaded.device)
    answer = OutputProcessor(loaded, job, send)
    follower = _Follower(answer, request.sampling.top_logprobs)
    torch.manual_seed(secrets.randbits(63) if request.sampling.seed is None else request.sampling.seed)
    reports = request.sampling.top_logprobs is not None
    hook = model.register_forward_hook(follower.keep_logits) if reports else None
    try:
        model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            generation_config=_generation_config(loaded, request.sampling, job.max_tokens),
            logits_processor=_processors(model.generation_config, job),
            stopping_criteria=StoppingCriteriaList([follower]),
        )
    finally:
        if hook:
            hook.remove()
    return answer.done()


def _generation_config(loaded: LoadedModel, sampling: Sampling, max_tokens: int) -> GenerationConfig:
    """The model's own configuration with the request's parameters in it.

    Everything that has a default of transformers' own is set: `generate` would put that, such as a `top_k` of 50, in
    place of what is not.
    """
    config: GenerationConfig = copy.deepcopy(loaded.model.generation_config)
    asks_to_sample = any(value is not None for value in (sampling.top_p, sampling.top_k, sampling.min_p))
    samples = bool(config.do_sample or asks_to_sample) if sampling.temperature is None else sampling.temperature > 0
    temperature = _first(sampling.temperature, config.temperature, 1.0)
    ends = sorted(loaded.ends)
    config.update(  # type: ignore[no-untyped-call]
        do_sample=samples,
        temperature=max(temperature, _LEAST_TEMPERATURE) if samples else 1.0,
        top_p=_first(sampling.top_p, config.top_p, 1.0) if samples else 1.0,
        top_k=_first(sampling.top_k, config.top_k, 0) if samples else 0,
        min_p=_first(sampling.min_p, config.min_p, 0.0) if samples else 0.0,
        repetition_penalty=1.0,  # applied in `_processors`, in a fixed order
        max_new_tokens=max_tokens,
        max_length=None,
        eos_token_id=ends,
        pad_token_id=_first(config.pad_token_id, ends[0] if ends else 0),
        num_beams=1,
        num_return_sequences=1,
        return_dict_in_generate=False,
        output_scores=False,
        output_logits=False,
        max_time=None,
        stop_strings=None,
        use_cache=True,
    )
    return config


def _processors(config: GenerationConfig, job: EngineRequest) -> LogitsProcessorList:
    """What changes the logits before temperature and cuts: bias, then penalties, then what the format forbids."""
    sampling = job.request.sampling
    processors = LogitsProcessorList()
    if sampling.logit_bias:
        processors.append(_LogitBias(sampling.logit_bias))
    repetition: float = _first(sampling.repetition_penalty, config.repetition_penalty, 1.0)
    if repetition != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(repetition))
    presence, frequency = sampling.presence_penalty or 0.0, sampling.frequency_penalty or 0.0
    if presence or frequency:
        processors.append(_Penalties(presence, frequency, len(job.prompt)))
    if job.matcher is not None:
        processors.append(_Format(job.matcher))
    return processors


class _LogitBias(LogitsProcessor):
    """Adds to the logits of some tokens."""

    def __init__(self, bias: dict[int, float]) -> None:
        self._ids = torch.tensor(list(bias))
        self._values = torch.tensor(list(bias.values()))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        values = self._values.to(scores).expand(scores.shape[0], -1)
        return scores.index_add(1, self._ids.to(scores.device), values)


class _Penalties(LogitsProcessor):
    """Subtracts from the logits of tokens that were generated before, once and for each time."""

    def __init__(self, presence: float, frequency: float, prompt_tokens: int) -> None:
        self._presence = presence
        self._frequency = frequency
        self._prompt_tokens = prompt_tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        counts = torch.zeros_like(scores)
        generated = input_ids[:, self._prompt_tokens :]
        counts.scatter_add_(1, generated, torch.ones_like(generated, dtype=scores.dtype))
        return scores - self._frequency * counts - self._presence * (counts > 0)


class _Format(LogitsProcessor):
    """Forbids what the answer's format does not allow."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        forbid(scores, [self._matcher], [0])
        return scores


class _Follower(StoppingCriteria):
    """Follows an answer token by token, and says when it is over."""

    def __init__(self, answer: OutputProcessor, top_logprobs: int | None) -> None:
        self._answer = answer
        self._count = top_logprobs
        self._logits: torch.Tensor | None = None

    def keep_logits(self, module: Any, arguments: Any, output: Any) -> None:
        """Keeps the model's raw logits of the last position; a forward hook: processors already see them changed."""
        self._logits = output.logits[0, -1]

    def __call__(self, input_ids: torch.Tensor, scores: Any, **options: Any) -> torch.Tensor:
        over = bool(self._answer.finish_reason)
        if not over:
            token = int(input_ids[0, -1])
            over = self._answer.take(token, self._report(token))
        return torch.full((input_ids.shape[0],), over, device=input_ids.device, dtype=torch.bool)

    def _report(self, token: int) -> Report | None:
        if self._count is None or self._logits is None:
            return None
        values = torch.log_softmax(self._logits.float(), dim=-1)
        likeliest = values.topk(min(self._count, len(values)))
        return values[token].item(), likeliest.indices.tolist(), likeliest.values.tolist()


def _first(*values: Any) -> Any:
    """The first value that is set."""
    return next(value for value in values if value is not None)
