"""Following an answer that has a format, and telling which tokens may come next."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from llguidance import LLMatcher

from abstractllm.errors import AbstractLLMError
from abstractllm.providers.huggingface.worker.device_tensors import index_tensor, is_on_cpu, to_device
from abstractllm.providers.huggingface.worker.structured.format_errors import failed_step, invalid_format
from abstractllm.providers.huggingface.worker.structured.token_masks import TokenMasks, logit_changes, tokens_in

__all__ = ["Matcher", "forbid"]


class Matcher:
    """Follows one answer and tells which tokens may come next.

    Args:
        masks: The model's masks.
        inner: llguidance's matcher, at the beginning of the format.
        field: The field of the request that the format comes from.
        allowed: `[bytes]`: the mask of the tokens that the format may allow at all.
    """

    def __init__(self, masks: TokenMasks, inner: LLMatcher, field: str, allowed: torch.Tensor) -> None:
        self.masks = masks
        self.inner = inner
        self.allowed = allowed
        self.field = field
        """The field of the request that the format comes from."""
        self.is_active = True
        """True once the format applies: it does not while the model still reasons."""
        self.reasoning_start: int | None = None
        """A token that may come first although the format does not allow it; the format then applies later."""
        self.error: AbstractLLMError | None = None
        """The error because of which the answer cannot go on."""

    @property
    def is_complete(self) -> bool:
        """True once the answer has its format and nothing but an end may follow."""
        return self.inner.is_stopped() and not self.inner.is_error() and self.inner.is_accepting()

    def accept(self, token: int) -> None:
        """Takes the next token of the answer, which is not one that ends it.

        Raises:
            InvalidRequestError: If the format turns out to be too complex, or to allow no token of the model.
            InternalError: If the token is not one that was allowed.
        """
        reasoning_start, self.reasoning_start = self.reasoning_start, None
        if token == reasoning_start:
            self.is_active = False
            return
        if self.error is None:
            self.inner.consume_token(token)
            self.check()
        if self.error is not None:
            raise self.error

    def allowed_tokens(self) -> list[int]:
        """Returns the tokens that may come next, those that end the answer included.

        The sampler uses `forbid` instead, for all requests of a batch together.

        Raises:
            InvalidRequestError: If the format is too complex, or allows no token.
        """
        mask = torch.frombuffer(bytearray(self.inner.compute_bitmask()), dtype=torch.uint8)
        mask = mask[: len(self.allowed)] & self.allowed
        self.check(bool(mask.any()))
        if self.error is not None:
            raise self.error
        return tokens_in(mask)

    def check(self, has_next: bool = True) -> None:
        """Sets `error` if the answer cannot go on.

        Args:
            has_next: Whether any token is allowed.
        """
        if self.inner.is_error():
            self.error = failed_step(self.field, self.inner.get_error())
        elif not has_next:
            self.error = invalid_format(self.field, "it allows no further token that is text")


def forbid(logits: torch.Tensor, matchers: Sequence[Matcher], rows: Sequence[int]) -> None:
    """Sets the logits of all tokens that must not come next to minus infinity.

    A matcher whose answer cannot go on sets its error and forbids special tokens alone: its request fails with the next
    token.

    Args:
        logits: `[rows, vocabulary]`, changed in place.
        matchers: The matchers of the requests that have a format, of one model.
        rows: The row of each of them.
    """
    masks, changes = to_device(_next_masks(matchers).numpy(), logits.device), logit_changes(logits.device)
    index = index_tensor(rows, logits.device)
    # On a CPU one after another, so that what is added stays in the processor's cache.
    step = 1 if is_on_cpu(logits) else len(masks)
    for begin in range(0, len(masks), step):
        part = masks[begin : begin + step].int()
        # Adding is eight times as fast as filling by a mask: random bits mislead the processor's branch prediction.
        added = changes.index_select(0, part.flatten()).view(len(part), -1)[:, : logits.shape[1]]
        logits.index_add_(0, index[begin : begin + step], added)


def _next_masks(matchers: Sequence[Matcher]) -> torch.Tensor:
    """Returns the masks of the tokens that may come next, `[matchers, bytes]`, until the next call."""
    shared = matchers[0].masks
    masks = shared.buffer(len(matchers))
    active = [(matcher.inner, index) for index, matcher in enumerate(matchers) if matcher.is_active]
    if active:  # llguidance refuses an empty list
        shared.executor.unsafe_compute_mask_ptr(active, masks.data_ptr(), masks.shape[1], len(masks))
    for matcher, mask in zip(matchers, masks, strict=True):
        mask &= matcher.allowed
    have_next = masks.any(dim=1).tolist()
    for matcher, mask, has_next in zip(matchers, masks, have_next, strict=True):
        if not matcher.is_active:
            mask.copy_(shared.unconstrained)
            continue
        matcher.check(has_next)
        if matcher.error is not None:
            mask.copy_(matcher.allowed)
        elif matcher.reasoning_start is not None:
            mask[matcher.reasoning_start // 8] |= 1 << matcher.reasoning_start % 8
    return masks
