"""The rules of a model's generation configuration, applied to the logits of a batch.

Each rule is one of transformers' logits processors, which are made for requests of one length. Here each request is at
its own place. What depends on the tokens so far is looked up on the host, in tables that grow with the answer, and
applied to all requests at once; so a step takes a few operations for each rule that is set, however many requests
there are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessorList

from abstractllm.providers.huggingface.worker.device_tensors import index_tensor, to_device
from abstractllm.providers.huggingface.worker.generation_rules import GenerationRules, end_growth, raised_ends
from abstractllm.providers.huggingface.worker.sampling_settings import SamplingSettings

__all__ = ["LogitsRules", "RequestRules"]

_Entry = tuple[int, int, float]
"""A row of the logits, a token, and a number."""


class LogitsRules:
    """The rules of one model, as a batch needs them.

    Args:
        rules: The rules.
        vocabulary_size: The number of logits at each position.
        device: The device of the logits.
    """

    def __init__(self, rules: GenerationRules, vocabulary_size: int, device: torch.device) -> None:
        self.rules = rules
        self.names = ", ".join(rules.logits_rules)
        """The names of the rules that change logits."""
        self.has_filters = rules.has_filters
        """True if a sampled token is chosen among fewer than the cuts of a request leave."""
        self.vocabulary_size = vocabulary_size
        biases = [(sequence[0], bias) for sequence, bias in (rules.sequence_bias or {}).items() if len(sequence) == 1]
        bad_tokens = [sequence[0] for sequence in rules.bad_words_ids or () if len(sequence) == 1]
        self._biased_ids = torch.tensor([token for token, _ in biases], dtype=torch.long, device=device)
        self._biases = torch.tensor([bias for _, bias in biases], dtype=torch.float32, device=device)
        self._bad_ids = torch.tensor(bad_tokens, dtype=torch.long, device=device)
        self._suppressed_ids = torch.tensor(self.inside(rules.suppress_tokens), dtype=torch.long, device=device)
        self._ends = torch.tensor(rules.ends, dtype=torch.long, device=device)
        self.begin_suppressed = self.inside(rules.begin_suppress_tokens)
        self.biases_by_prefix = _by_prefix(rules.sequence_bias)
        """By the length of the prefix, then by the prefix: the last tokens of biased sequences, and their biases."""
        self.bad_words_by_prefix = _by_prefix(rules.bad_words_ids)
        """The same for sequences that are forbidden."""
        first = {"sequence_bias", "encoder_repetition_penalty"}
        self.comes_before_penalties = bool(first & set(rules.logits_rules))
        """True if a rule applies before the penalties of requests."""
        self.comes_after_penalties = bool(set(rules.logits_rules) - first)
        """True if a rule applies after the penalties of requests."""

    def inside(self, tokens: Sequence[int]) -> list[int]:
        """Returns the tokens that have logits."""
        return [token for token in tokens if 0 <= token < self.vocabulary_size]

    def before_penalties(self, logits: torch.Tensor, requests: Sequence[RequestRules]) -> None:
        """Applies, in place, the rules that come before the penalties of requests.

        Args:
            logits: `[requests, vocabulary]`.
            requests: The requests, in the order of the logits.
        """
        if len(self._biased_ids):
            logits.index_add_(1, self._biased_ids, self._biases.expand(len(logits), -1))
        _add(logits, _entries(requests, RequestRules.biased_tokens))
        if self.rules.encoder_repetition_penalty != 1.0:
            self._favour_prompts(logits, requests)

    def after_penalties(self, logits: torch.Tensor, requests: Sequence[RequestRules]) -> None:
        """Applies, in place, the rules that come after the penalties of requests; see `before_penalties`."""
        if len(self._bad_ids):
            logits.index_fill_(1, self._bad_ids, -torch.inf)
        _set(logits, _entries(requests, RequestRules.forbidden_tokens))
        forced = _entries(requests, RequestRules.forced_tokens)
        if forced:
            rows = index_tensor(sorted({row for row, _, _ in forced}), logits.device)
            logits.index_fill_(0, rows, -torch.inf)
            _set(logits, forced)
        if self.rules.remove_invalid_values:
            limits = torch.finfo(logits.dtype)
            logits.nan_to_num_(nan=0.0, posinf=limits.max, neginf=limits.min)
        self._favour_ends(logits, requests)
        if len(self._suppressed_ids):
            logits.index_fill_(1, self._suppressed_ids, -torch.inf)
        _set(logits, _entries(requests, RequestRules.suppressed_at_begin))

    def filter(self, scores: torch.Tensor, settings: SamplingSettings) -> torch.Tensor:
        """Returns the scores of requests with the same cuts, minus infinity for each token that must not be sampled.

        Args:
            scores: `[requests, vocabulary]`: the logits over the temperature.
            settings: The settings that the requests share.
        """
        filters = LogitsProcessorList(
            [*self.rules.first_filters(), *settings.cuts(), *self.rules.last_filters(scores.device)]
        )
        # None of them looks at the tokens so far.
        no_tokens: Any = torch.empty((len(scores), 0), dtype=torch.long, device=scores.device)
        result: torch.Tensor = filters(no_tokens, scores)
        return result

    def _favour_prompts(self, logits: torch.Tensor, requests: Sequence[RequestRules]) -> None:
        """Applies the penalty of the tokens that are not in the prompt, by favouring those that are."""
        ids = [request.prompt_ids(logits.device) for request in requests]
        lengths = index_tensor([len(tokens) for tokens in ids], logits.device)
        rows = torch.arange(len(ids), device=logits.device).repeat_interleave(lengths, output_size=sum(map(len, ids)))
        places, factor = (rows, torch.cat(ids)), 1 / self.rules.encoder_repetition_penalty
        values = logits[places]
        logits.index_put_(places, torch.where(values < 0, values * factor, values / factor))

    def _favour_ends(self, logits: torch.Tensor, requests: Sequence[RequestRules]) -> None:
        """Raises the logits of the end tokens, the more the longer the answer is."""
        decay = self.rules.exponential_decay_length_penalty
        if decay is None or not any(request.generated > decay[0] for request in requests):
            return
        factors = [end_growth(decay[1], request.generated - decay[0]) for request in requests]
        column = to_device(np.array(factors, dtype=np.float32), logits.device).unsqueeze(1)
        logits[:, self._ends] = raised_ends(logits[:, self._ends], column)


class RequestRules:
    """The rules of one model for one request, and the tables that they need of its tokens.

    Args:
        shared: The rules.
        prompt: The prompt's tokens.
        max_tokens: The most tokens to generate.
        has_format: Whether the answer is held to a format, which no token that is forced may break.
    """

    def __init__(self, shared: LogitsRules, prompt: Sequence[int], max_tokens: int, has_format: bool) -> None:
        rules = shared.rules
        self.shared = shared
        self.generated = 0
        """The number of tokens that were generated."""
        self._prompt = prompt
        self._prompt_ids: torch.Tensor | None = None
        self._least_tokens = rules.least_new_tokens(len(prompt)) if rules.ends else 0
        self._first_place = rules.first_place(len(prompt))
        self._forced_first = None if has_format or len(prompt) != 1 else rules.forced_bos_token_id
        self._forced_last = () if has_format else rules.forced_eos_token_id
        self._last_place = max_tokens - 1
        self._size = rules.no_repeat_ngram_size
        self._prompt_size = rules.encoder_no_repeat_ngram_size
        prefixes = [*shared.biases_by_prefix, *shared.bad_words_by_prefix]
        self._needed = max((self._size - 1, self._prompt_size - 1, *prefixes))
        """The number of the last tokens that any rule looks at."""
        self._followers: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        """The tokens that came after each sequence of one token less than must not be repeated."""
        self._prompt_followers: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        """The same of the prompt alone, by the size for sequences of the prompt."""
        self._recent: list[int] = []
        """The last tokens, prompt and answer."""
        for sequence in _windows(prompt, self._prompt_size):
            self._prompt_followers[sequence[:-1]].append(sequence[-1])
        for sequence in _windows(prompt, self._size):
            self._followers[sequence[:-1]].append(sequence[-1])
        if self._needed > 0:
            self._recent = list(prompt[-self._needed :])

    def record(self, token: int) -> None:
        """Records that a token was generated."""
        self.generated += 1
        if self._size and len(self._recent) >= self._size - 1:
            self._followers[self._last(self._size - 1)].append(token)
        if self._needed > 0:
            self._recent.append(token)
            del self._recent[: -self._needed]

    def prompt_ids(self, device: torch.device) -> torch.Tensor:
        """Returns the prompt's distinct tokens that have logits."""
        if self._prompt_ids is None:
            tokens = self.shared.inside(list(dict.fromkeys(self._prompt)))
            self._prompt_ids = index_tensor(tokens, device)
        return self._prompt_ids

    def biased_tokens(self) -> Iterator[tuple[int, float]]:
        """Yields the tokens that would complete a biased sequence, and the biases."""
        yield from self._completions(self.shared.biases_by_prefix)

    def forbidden_tokens(self) -> Iterator[tuple[int, float]]:
        """Yields the tokens that must not come next, and minus infinity."""
        tokens: list[int] = [token for token, _ in self._completions(self.shared.bad_words_by_prefix)]
        for size, followers in ((self._size, self._followers), (self._prompt_size, self._prompt_followers)):
            if size and len(self._recent) >= size - 1:
                tokens += self.shared.inside(followers.get(self._last(size - 1), []))
        if self.generated < self._least_tokens:
            tokens += self.shared.rules.ends
        for token in tokens:
            yield token, -torch.inf

    def forced_tokens(self) -> Iterator[tuple[int, float]]:
        """Yields the tokens of which one must come next, if there are such, and 0."""
        if self._forced_last and self.generated == self._last_place:
            for token in self._forced_last:
                yield token, 0.0
        elif self._forced_first is not None and self.generated == 0:
            yield self._forced_first, 0.0

    def suppressed_at_begin(self) -> Iterator[tuple[int, float]]:
        """Yields the tokens that must not come first, if none has come, and minus infinity."""
        if self.generated == self._first_place:
            for token in self.shared.begin_suppressed:
                yield token, -torch.inf

    def _completions(
        self, by_prefix: dict[int, dict[tuple[int, ...], list[tuple[int, float]]]]
    ) -> Iterator[tuple[int, float]]:
        for length, by_tokens in by_prefix.items():
            if length <= len(self._recent):
                yield from by_tokens.get(self._last(length), ())

    def _last(self, count: int) -> tuple[int, ...]:
        return tuple(self._recent[len(self._recent) - count :])


def _entries(
    requests: Sequence[RequestRules], tokens_of: Callable[[RequestRules], Iterator[tuple[int, float]]]
) -> list[_Entry]:
    return [(row, token, value) for row, request in enumerate(requests) for token, value in tokens_of(request)]


def _add(logits: torch.Tensor, entries: Sequence[_Entry]) -> None:
    if entries:
        places, values = _tensors(logits, entries)
        logits.index_put_(places, values, accumulate=True)


def _set(logits: torch.Tensor, entries: Sequence[_Entry]) -> None:
    if entries:
        places, values = _tensors(logits, entries)
        logits.index_put_(places, values)


def _tensors(logits: torch.Tensor, entries: Sequence[_Entry]) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    rows, tokens, values = zip(*entries, strict=True)
    places = to_device(np.array((rows, tokens), dtype=np.int64), logits.device)
    return (places[0], places[1]), to_device(np.array(values, dtype=np.float32), logits.device)


def _by_prefix(
    sequences: dict[tuple[int, ...], float] | None,
) -> dict[int, dict[tuple[int, ...], list[tuple[int, float]]]]:
    """Returns the sequences of several tokens, by the length of the prefix and the prefix: all but the last token."""
    table: dict[int, dict[tuple[int, ...], list[tuple[int, float]]]] = {}
    for sequence, value in (sequences or {}).items():
        if len(sequence) > 1:
            by_tokens = table.setdefault(len(sequence) - 1, {})
            by_tokens.setdefault(sequence[:-1], []).append((sequence[-1], value))
    return table


def _windows(tokens: Sequence[int], size: int) -> Iterator[tuple[int, ...]]:
    """Yields all sequences of `size` consecutive tokens; none if the size is 0."""
    if size:
        yield from zip(*(tokens[begin:] for begin in range(size)), strict=False)
