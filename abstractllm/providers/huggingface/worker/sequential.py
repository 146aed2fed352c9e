"""One answer at a time through transformers' `model.generate`, which runs every architecture."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
)

from abstractllm.providers.huggingface.protocol.messages import Begun, Done, FromEngine
from abstractllm.providers.huggingface.worker.checkpoint.positions import reset_positions
from abstractllm.providers.huggingface.worker.generation_config import neutral_config, own_config_set_aside
from abstractllm.providers.huggingface.worker.generation_errors import no_token_error
from abstractllm.providers.huggingface.worker.logprobs import TokenLogprobs
from abstractllm.providers.huggingface.worker.model import LoadedModel
from abstractllm.providers.huggingface.worker.output import OutputProcessor
from abstractllm.providers.huggingface.worker.request import EngineRequest
from abstractllm.providers.huggingface.worker.sampling_settings import SamplingSettings, fill_in
from abstractllm.providers.huggingface.worker.structured.matcher import Matcher, forbid

__all__ = ["before_each_layer", "generate"]


def generate(loaded: LoadedModel, request: EngineRequest, send: Callable[[FromEngine], None]) -> Done:
    """Answers a request whose prompt is tokenized and fits the context window.

    Args:
        loaded: The model.
        request: The request.
        send: Called with each message but the last.

    Returns:
        The last message of the answer; its `output_tokens` counts every generated token, an end token included.

    Raises:
        AbstractLLMError: If the answer cannot go on: its format allows no token, or the logits are not finite.
    """
    model, sampling = loaded.model, request.message.sampling
    request.begun_at = time.monotonic()
    send(Begun(request.message.id, len(request.prompt)))
    prompt = torch.tensor([request.prompt], device=loaded.device)
    output = OutputProcessor(loaded, request, send)
    raw_logits = _RawLogits()
    settings = fill_in(sampling, model.generation_config)
    config = _generation_config(loaded, settings, request.max_tokens)
    torch.manual_seed(secrets.randbits(63) if sampling.seed is None else sampling.seed)
    reset_positions(model)
    with own_config_set_aside(model):
        model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            generation_config=config,
            logits_processor=_logits_processors(loaded, settings, request, prompt, raw_logits),
            stopping_criteria=StoppingCriteriaList([_Follower(output, raw_logits, sampling.top_logprobs)]),
        )
    return output.done()


def before_each_layer(loaded: LoadedModel, call: Callable[[], None]) -> list[RemovableHandle]:
    """Has a function called before each layer of every forward pass: a long prompt is read in a single pass.

    Models name the class of their layers for those who divide a model over devices; of one that does not, the whole
    pass counts as one layer.

    Returns:
        The handles by which that is taken back.
    """
    names = set(getattr(loaded.model, "_no_split_modules", None) or ())
    layers = [module for module in loaded.model.modules() if type(module).__name__ in names]
    return [layer.register_forward_pre_hook(lambda *_: call()) for layer in layers or [loaded.model]]


def _generation_config(loaded: LoadedModel, settings: SamplingSettings, max_tokens: int) -> GenerationConfig:
    """Returns the configuration of one answer; what changes logits before the temperature is in other hands."""
    rules, ends = loaded.rules, sorted(loaded.ends)
    pad_token = loaded.model.generation_config.pad_token_id
    if pad_token is None:
        pad_token = ends[0] if ends else 0
    sampled: dict[str, Any] = {}
    if settings.temperature > 0:
        sampled = {
            "do_sample": True,
            "temperature": settings.temperature,
            "top_h": rules.top_h,
            "top_k": settings.top_k,
            "top_p": settings.top_p,
            "min_p": settings.min_p,
            "typical_p": rules.typical_p,
            "epsilon_cutoff": rules.epsilon_cutoff,
            "eta_cutoff": rules.eta_cutoff,
        }
    return neutral_config(
        loaded.model,
        max_new_tokens=max_tokens,
        eos_token_id=ends,
        pad_token_id=pad_token,
        watermarking_config=rules.watermarking_config,
        **sampled,
    )


def _logits_processors(
    loaded: LoadedModel,
    settings: SamplingSettings,
    request: EngineRequest,
    prompt: torch.Tensor,
    raw_logits: _RawLogits,
) -> LogitsProcessorList:
    """Returns what changes the logits before the temperature, in the order of the batch's sampler."""
    rules, matcher = loaded.rules, request.matcher
    processors = LogitsProcessorList([raw_logits, *rules.before_penalties(prompt, loaded.model)])
    if settings.logit_bias:
        processors.append(_LogitBias(settings.logit_bias))
    if settings.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.presence_penalty or settings.frequency_penalty:
        processors.append(_Penalties(settings.presence_penalty, settings.frequency_penalty, len(request.prompt)))
    processors += rules.after_penalties(prompt, request.max_tokens, has_format=matcher is not None)
    if matcher is not None:
        processors.append(_Format(matcher))
    field = None if matcher is None else matcher.field
    processors.append(_FiniteLogits(", ".join(rules.logits_rules), field))
    return processors


class _RawLogits(LogitsProcessor):
    """Keeps the model's raw logits of the last position."""

    logits: torch.Tensor

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.logits = scores[0]
        return scores


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


class _FiniteLogits(LogitsProcessor):
    """Ends an answer for which no token can be chosen.

    Args:
        changes: The names of the model's own rules that were applied.
        field: The field of the request that the answer's format comes from; None without a format.
    """

    def __init__(self, changes: str, field: str | None) -> None:
        self._changes = changes
        self._field = field

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        largest = scores.amax().item()
        if not math.isfinite(largest):
            raise no_token_error(largest, self._changes, self._field)
        return scores


class _Follower(StoppingCriteria):
    """Hands each token to the output processor, and stops the generation when the answer is over."""

    def __init__(self, output: OutputProcessor, raw_logits: _RawLogits, top_logprobs: int | None) -> None:
        self._output = output
        self._raw_logits = raw_logits
        self._top_logprobs = top_logprobs

    def __call__(self, input_ids: torch.Tensor, scores: Any, **options: Any) -> torch.Tensor:
        is_over = bool(self._output.finish_reason)
        if not is_over:
            token = int(input_ids[0, -1])
            is_over = self._output.take(token, self._logprobs_of(token))
        return torch.full((input_ids.shape[0],), is_over, device=input_ids.device, dtype=torch.bool)

    def _logprobs_of(self, token: int) -> TokenLogprobs | None:
        if self._top_logprobs is None:
            return None
        logits = self._raw_logits.logits
        if not logits.amax().isfinite():  # which a rule of the model's has removed
            logits = logits.nan_to_num()
        values = torch.log_softmax(logits, dim=-1)
        likeliest = values.topk(min(self._top_logprobs, len(values)))
        return values[token].item(), likeliest.indices.tolist(), likeliest.values.tolist()
