"""One answer at a time through transformers' `model.generate`, which runs every architecture."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
)

from abstractllm.providers.huggingface.protocol.messages import Begun, Done, FromEngine
from abstractllm.providers.huggingface.worker.logprobs import TokenLogprobs
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.output import OutputProcessor
from abstractllm.providers.huggingface.worker.request import EngineRequest
from abstractllm.providers.huggingface.worker.sampling_settings import SamplingSettings, fill_in
from abstractllm.providers.huggingface.worker.structured.matcher import Matcher, forbid

__all__ = ["generate"]


def generate(loaded: LoadedModel, request: EngineRequest, send: Callable[[FromEngine], None]) -> Done:
    """Answers a request whose prompt is tokenized and fits the context window.

    Args:
        loaded: The model.
        request: The request.
        send: Called with each message but the last.

    Returns:
        The last message of the answer; its `output_tokens` counts every generated token, an end token included.
    """
    model, sampling = loaded.model, request.message.sampling
    send(Begun(request.message.id))
    prompt = torch.tensor([request.prompt], device=loaded.device)
    output = OutputProcessor(loaded, request, send)
    follower = _Follower(output, sampling.top_logprobs)
    settings = fill_in(sampling, model.generation_config)
    torch.manual_seed(secrets.randbits(63) if sampling.seed is None else sampling.seed)
    hook = model.register_forward_hook(follower.keep_logits) if sampling.top_logprobs is not None else None
    try:
        model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            generation_config=_generation_config(loaded, settings, request.max_tokens),
            logits_processor=_logits_processors(settings, request),
            stopping_criteria=StoppingCriteriaList([follower]),
        )
    finally:
        if hook:
            hook.remove()
    return output.done()


def _generation_config(loaded: LoadedModel, settings: SamplingSettings, max_tokens: int) -> GenerationConfig:
    """Returns the model's own configuration with the request's settings in it.

    Everything that has a default of transformers' own, such as a `top_k` of 50, is set, since `generate` would fill it
    in.
    """
    config: GenerationConfig = copy.deepcopy(loaded.model.generation_config)
    is_sampled = settings.temperature > 0
    ends = sorted(loaded.ends)
    pad_token = config.pad_token_id
    if pad_token is None:
        pad_token = ends[0] if ends else 0
    config.update(  # type: ignore[no-untyped-call]
        do_sample=is_sampled,
        temperature=settings.temperature if is_sampled else 1.0,
        top_p=settings.top_p if is_sampled else 1.0,
        top_k=settings.top_k if is_sampled else 0,
        min_p=settings.min_p if is_sampled else 0.0,
        repetition_penalty=1.0,  # applied in `_logits_processors`, in a fixed order
        max_new_tokens=max_tokens,
        max_length=None,
        eos_token_id=ends,
        pad_token_id=pad_token,
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


def _logits_processors(settings: SamplingSettings, request: EngineRequest) -> LogitsProcessorList:
    """Returns the changes of the logits before temperature and cuts: bias, then penalties, then the format."""
    processors = LogitsProcessorList()
    if settings.logit_bias:
        processors.append(_LogitBias(settings.logit_bias))
    if settings.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.presence_penalty or settings.frequency_penalty:
        processors.append(_Penalties(settings.presence_penalty, settings.frequency_penalty, len(request.prompt)))
    if request.matcher is not None:
        processors.append(_Format(request.matcher))
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
    """Forbids the tokens that the answer's format does not allow."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        forbid(scores, [self._matcher], [0])
        return scores


class _Follower(StoppingCriteria):
    """Hands each token to the output processor, and stops the generation when the answer is over."""

    def __init__(self, output: OutputProcessor, top_logprobs: int | None) -> None:
        self._output = output
        self._top_logprobs = top_logprobs
        self._logits: torch.Tensor | None = None

    def keep_logits(self, module: Any, arguments: Any, output: Any) -> None:
        """Keeps the model's raw logits of the last position.

        It is a forward hook, since logits processors run after others that have changed the logits.
        """
        self._logits = output.logits[0, -1]

    def __call__(self, input_ids: torch.Tensor, scores: Any, **options: Any) -> torch.Tensor:
        is_over = bool(self._output.finish_reason)
        if not is_over:
            token = int(input_ids[0, -1])
            is_over = self._output.take(token, self._logprobs_of(token))
        return torch.full((input_ids.shape[0],), is_over, device=input_ids.device, dtype=torch.bool)

    def _logprobs_of(self, token: int) -> TokenLogprobs | None:
        if self._top_logprobs is None or self._logits is None:
            return None
        values = torch.log_softmax(self._logits.float(), dim=-1)
        likeliest = values.topk(min(self._top_logprobs, len(values)))
        return values[token].item(), likeliest.indices.tolist(), likeliest.values.tolist()
