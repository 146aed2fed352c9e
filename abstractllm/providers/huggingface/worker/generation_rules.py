"""The rules that a model's generation configuration sets, and transformers' processors that apply them to an answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any

import torch
from transformers import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    InfNanRemoveLogitsProcessor,
    LogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TopHLogitsWarper,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)
from transformers.generation.logits_process import EpsilonLogitsWarper, EtaLogitsWarper, TypicalLogitsWarper

from abstractllm.errors import ModelLoadError
from abstractllm.providers.huggingface.worker.generation_config import TREATMENTS, Treatment, refused_fields

__all__ = ["GenerationRules", "end_growth", "raised_ends", "read_rules"]

_LARGEST_GROWTH = 1e30
"""With a larger one, an end could not be likelier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRules:
    """The rules of a model's generation configuration; the defaults change nothing.

    The fields have transformers' names.
    """

    ends: tuple[int, ...] = ()
    """The tokens that end an answer, in ascending order."""
    sequence_bias: dict[tuple[int, ...], float] | None = None
    encoder_repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    encoder_no_repeat_ngram_size: int = 0
    bad_words_ids: dict[tuple[int, ...], float] | None = None
    """Minus infinity for each sequence."""
    min_length: int = 0
    min_new_tokens: int | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: tuple[int, ...] = ()
    remove_invalid_values: bool = False
    exponential_decay_length_penalty: tuple[int, float] | None = None
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    guidance_scale: float = 1.0
    watermarking_config: Any = None
    top_h: float | None = None
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0
    max_new_tokens: int | None = None
    max_length: int | None = None
    stop_strings: tuple[str, ...] = ()

    @property
    def active(self) -> tuple[str, ...]:
        """The names of the fields that are set."""
        names = (field.name for field in fields(self) if getattr(self, field.name) != field.default)
        return tuple(name for name in names if name in TREATMENTS)

    @property
    def logits_rules(self) -> tuple[str, ...]:
        """The names of the fields that are set and change the logits of some step before the temperature."""
        return tuple(name for name in self.active if name in _LOGITS_RULES)

    @property
    def has_filters(self) -> bool:
        """True if a sampled token is chosen among fewer than the cuts of a request leave."""
        return bool(set(self.active) & {"top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"})

    @property
    def not_in_a_batch(self) -> str:
        """The reason why requests are answered one at a time; empty if they need not be."""
        names = [name for name in self.active if TREATMENTS[name] is Treatment.ONE_AT_A_TIME]
        return f"the model's generation configuration sets {' and '.join(names)}" if names else ""

    def new_token_limit(self, prompt_tokens: int) -> int | None:
        """Returns the most tokens to generate for a request that names none; None if there is no such limit."""
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        return None if self.max_length is None else max(0, self.max_length - prompt_tokens)

    def least_new_tokens(self, prompt_tokens: int) -> int:
        """Returns the number of tokens before which no end token may come."""
        if self.min_new_tokens is not None:
            return self.min_new_tokens
        return max(0, self.min_length - prompt_tokens)

    def first_place(self, prompt_tokens: int) -> int:
        """Returns the number of generated tokens behind which `begin_suppress_tokens` are forbidden."""
        return 0 if prompt_tokens > 1 or self.forced_bos_token_id is None else 1

    def before_penalties(self, prompt: Any, model: Any) -> list[LogitsProcessor]:
        """Returns transformers' processors of one answer that come before the penalties of its request.

        Args:
            prompt: `[1, tokens]`, a tensor.
            model: The model, for guidance.
        """
        processors: list[LogitsProcessor] = []
        if self.guidance_scale != 1.0:
            processors.append(UnbatchedClassifierFreeGuidanceLogitsProcessor(self.guidance_scale, model))
        if self.sequence_bias:
            processors.append(SequenceBiasLogitsProcessor(_as_lists(self.sequence_bias)))
        if self.encoder_repetition_penalty != 1.0:
            processors.append(EncoderRepetitionPenaltyLogitsProcessor(self.encoder_repetition_penalty, prompt))
        return processors

    def after_penalties(self, prompt: Any, max_tokens: int, has_format: bool) -> list[LogitsProcessor]:
        """Returns transformers' processors of one answer that come after the penalties of its request.

        Args:
            prompt: `[1, tokens]`, a tensor.
            max_tokens: The most tokens to generate.
            has_format: Whether the answer is held to a format, which no token that is forced may break.
        """
        processors: list[LogitsProcessor] = []
        length, device = prompt.shape[1], prompt.device
        ends = torch.tensor(self.ends, dtype=torch.long, device=device)
        if self.no_repeat_ngram_size:
            processors.append(NoRepeatNGramLogitsProcessor(self.no_repeat_ngram_size))
        if self.encoder_no_repeat_ngram_size:
            processors.append(EncoderNoRepeatNGramLogitsProcessor(self.encoder_no_repeat_ngram_size, prompt))
        if self.bad_words_ids:
            processors.append(SequenceBiasLogitsProcessor(_as_lists(self.bad_words_ids)))
        if self.ends and (least := self.least_new_tokens(length)):
            processors.append(MinNewTokensLengthLogitsProcessor(length, least, ends))
        if self.forced_bos_token_id is not None and not has_format:
            processors.append(ForcedBOSTokenLogitsProcessor(self.forced_bos_token_id))
        if self.forced_eos_token_id and not has_format:
            forced = torch.tensor(self.forced_eos_token_id, device=device)
            processors.append(ForcedEOSTokenLogitsProcessor(length + max_tokens, forced))
        if self.remove_invalid_values:
            processors.append(InfNanRemoveLogitsProcessor())
        if self.exponential_decay_length_penalty and self.ends:
            processors.append(_EndGrowth(self.exponential_decay_length_penalty, ends, length))
        if self.suppress_tokens:
            processors.append(SuppressTokensLogitsProcessor(self.suppress_tokens, str(device)))
        if self.begin_suppress_tokens:
            place = length + self.first_place(length)
            processors.append(SuppressTokensAtBeginLogitsProcessor(self.begin_suppress_tokens, place, str(device)))
        return processors

    def first_filters(self) -> list[LogitsProcessor]:
        """Returns transformers' processors of sampled answers that come before the cuts of a request."""
        return [] if self.top_h is None else [TopHLogitsWarper(self.top_h)]

    def last_filters(self, device: torch.device) -> list[LogitsProcessor]:
        """Returns transformers' processors of sampled answers that come after the cuts of a request."""
        filters: list[LogitsProcessor] = []
        if self.typical_p < 1.0:
            filters.append(TypicalLogitsWarper(self.typical_p))
        if self.epsilon_cutoff:
            filters.append(EpsilonLogitsWarper(self.epsilon_cutoff))
        if self.eta_cutoff:
            filters.append(EtaLogitsWarper(self.eta_cutoff, device=str(device)))
        return filters


_LOGITS_RULES = frozenset(
    {
        "sequence_bias",
        "encoder_repetition_penalty",
        "no_repeat_ngram_size",
        "encoder_no_repeat_ngram_size",
        "bad_words_ids",
        "min_length",
        "min_new_tokens",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "remove_invalid_values",
        "exponential_decay_length_penalty",
        "suppress_tokens",
        "begin_suppress_tokens",
    }
)


def read_rules(config: Any, vocabulary_size: int, ends: Collection[int]) -> GenerationRules:
    """Reads a model's generation configuration.

    Args:
        config: Its `GenerationConfig`.
        vocabulary_size: The number of logits at each position.
        ends: The tokens that end an answer.

    Raises:
        ModelLoadError: If it sets a field that is refused, or one to a value that transformers does not understand.
    """
    for name, reason in refused_fields(config):
        raise _load_error(f"{name} = {getattr(config, name)!r} ({reason}) is not supported")
    try:
        return _tried_rules(config, vocabulary_size, ends)
    except Exception as error:
        name = _faulty_field(config, vocabulary_size, ends)
        fault = f"{name} = {getattr(config, name)!r}: " if name else ""
        raise _load_error(f"{fault}{type(error).__name__}: {error}") from error


def _tried_rules(config: Any, vocabulary_size: int, ends: Collection[int]) -> GenerationRules:
    """Returns the rules of a configuration, tried once: what transformers cannot take is not left to a request."""
    rules = _read(config, tuple(sorted(end for end in ends if end < vocabulary_size)))
    RepetitionPenaltyLogitsProcessor(float(_or(config.repetition_penalty, 1.0)))
    prompt, scores = torch.zeros((1, 1), dtype=torch.long), torch.zeros((1, vocabulary_size))
    for processor in (
        *(processor for processor in rules.before_penalties(prompt, None) if _needs_no_model(processor)),
        *rules.after_penalties(prompt, 1, has_format=False),
        *rules.first_filters(),
        *rules.last_filters(scores.device),
    ):
        processor(prompt, scores)
    return rules


def _faulty_field(config: Any, vocabulary_size: int, ends: Collection[int]) -> str:
    """Returns the first field of a configuration that cannot be taken by itself; empty if each can."""
    for name in TREATMENTS:
        alone = SimpleNamespace(**{**dict.fromkeys(TREATMENTS), name: getattr(config, name, None)})
        try:
            _tried_rules(alone, vocabulary_size, ends)
        except Exception:  # of whatever kind, as that of all fields together
            return name
    return ""


def _read(config: Any, ends: tuple[int, ...]) -> GenerationRules:
    values = {name: getattr(config, name, None) for name in TREATMENTS}
    bias, bad_words = values["sequence_bias"], values["bad_words_ids"]
    decay, cutoffs = values["exponential_decay_length_penalty"], (values["epsilon_cutoff"], values["eta_cutoff"])
    epsilon, eta = (cutoff if cutoff is not None and 0.0 < cutoff < 1.0 else 0.0 for cutoff in cutoffs)
    stops = values["stop_strings"] or ()
    return GenerationRules(
        ends=ends,
        sequence_bias=None if bias is None else SequenceBiasLogitsProcessor(bias).sequence_bias,
        encoder_repetition_penalty=_or(values["encoder_repetition_penalty"], 1.0),
        no_repeat_ngram_size=max(0, _or(values["no_repeat_ngram_size"], 0)),
        encoder_no_repeat_ngram_size=max(0, _or(values["encoder_no_repeat_ngram_size"], 0)),
        bad_words_ids=None if bad_words is None else _forbidden_sequences(bad_words, ends),
        min_length=_or(values["min_length"], 0),
        min_new_tokens=values["min_new_tokens"],
        forced_bos_token_id=values["forced_bos_token_id"],
        forced_eos_token_id=_as_tuple(values["forced_eos_token_id"]),
        remove_invalid_values=values["remove_invalid_values"] is True,
        exponential_decay_length_penalty=None if decay is None else (int(decay[0]), float(decay[1])),
        suppress_tokens=_as_tuple(values["suppress_tokens"]),
        begin_suppress_tokens=_as_tuple(values["begin_suppress_tokens"]),
        guidance_scale=float(_or(values["guidance_scale"], 1.0)),
        watermarking_config=values["watermarking_config"],
        top_h=values["top_h"],
        typical_p=min(1.0, _or(values["typical_p"], 1.0)),
        epsilon_cutoff=epsilon,
        eta_cutoff=eta,
        max_new_tokens=values["max_new_tokens"],
        max_length=values["max_length"],
        stop_strings=(stops,) if isinstance(stops, str) else tuple(stops),
    )


def end_growth(factor: float, steps: int) -> float:
    """Returns what is added to each unit of an end token's logit after a number of steps; 0 before the first."""
    if steps <= 0:
        return 0.0
    try:
        return min(factor**steps - 1, _LARGEST_GROWTH)
    except OverflowError:
        return _LARGEST_GROWTH


def raised_ends(logits: torch.Tensor, growth: torch.Tensor | float) -> torch.Tensor:
    """Returns the logits of end tokens, raised in proportion to their size, but never to infinity."""
    raised = (logits + logits.abs() * growth).clamp(max=torch.finfo(logits.dtype).max)
    return torch.where(logits.isfinite(), raised, logits)


class _EndGrowth(LogitsProcessor):
    """Raises the logits of the end tokens, the more the longer the answer is.

    transformers' own processor fails, or gives infinity, where the factor has grown beyond what a number can hold.

    Args:
        decay: The number of tokens that are free of it, and the factor for each further one.
        ends: The end tokens.
        prompt_tokens: The number of tokens of the prompt.
    """

    def __init__(self, decay: tuple[int, float], ends: torch.Tensor, prompt_tokens: int) -> None:
        self._begin = prompt_tokens + decay[0]
        self._factor = decay[1]
        self._ends = ends

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        growth = end_growth(self._factor, input_ids.shape[1] - self._begin)
        if not growth:
            return scores
        return scores.index_copy(1, self._ends, raised_ends(scores[:, self._ends], growth))


def _needs_no_model(processor: LogitsProcessor) -> bool:
    return not isinstance(processor, UnbatchedClassifierFreeGuidanceLogitsProcessor)


def _forbidden_sequences(bad_words: Any, ends: Collection[int]) -> dict[tuple[int, ...], float] | None:
    """Returns minus infinity for each sequence; the tokens that end an answer are not bad words."""
    if all(list(word) in [[end] for end in ends] for word in bad_words):
        return None
    sequences: dict[tuple[int, ...], float] = NoBadWordsLogitsProcessor(bad_words, sorted(ends)).sequence_bias
    return sequences


def _as_lists(sequences: dict[tuple[int, ...], float]) -> list[list[list[int] | float]]:
    return [[list(sequence), value] for sequence, value in sequences.items()]


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _as_tuple(value: int | Sequence[int] | None) -> tuple[int, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)


def _load_error(text: str) -> ModelLoadError:
    return ModelLoadError(f"generation_config: {text}", field="model")
