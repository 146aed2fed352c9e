"""The errors of one request while its tokens are generated, by which it fails alone."""

from __future__ import annotations

import math

from abstractllm.errors import AbstractLLMError, InvalidRequestError, OverloadedError, ProviderProtocolError

__all__ = ["is_out_of_memory", "no_token_error", "out_of_memory_error"]

_OUT_OF_MEMORY_PHRASES = (
    "out of memory",  # CUDA, HIP, MPS, XPU
    "can't allocate memory",  # the allocator of PyTorch on a CPU
    "not enough memory",
    "_STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN, cuSPARSE
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether an error of Python or PyTorch means that there was too little memory for a step."""
    if isinstance(error, RuntimeError):
        return any(phrase in str(error) for phrase in _OUT_OF_MEMORY_PHRASES)
    return isinstance(error, MemoryError)


def out_of_memory_error(error: BaseException) -> OverloadedError:
    """Returns the error of a request that the device has too little memory for."""
    reason = (str(error).splitlines() or [""])[0][:300] or type(error).__name__
    return OverloadedError(f"the device has too little memory to go on with this request: {reason}")


def no_token_error(largest_logit: float, changes: str, field: str | None) -> AbstractLLMError:
    """Returns the error of a request for which no next token can be chosen.

    Args:
        largest_logit: The largest of its logits, after all changes: NaN if one of them is, or infinity.
        changes: The names of the model's own rules, of its generation configuration, that were applied.
        field: The field of the request that the answer's format comes from; None without a format.
    """
    if largest_logit != -math.inf:
        return ProviderProtocolError(
            f"the model's logits are not finite ({largest_logit}): its numbers overflow, as those of float16 may on a "
            "long prompt; the key dtype sets another precision"
        )
    if field is not None:
        return InvalidRequestError(
            f"{field}: all tokens that it allows next are excluded"
            + (f" by the model's generation configuration ({changes})" if changes else ": the model's logits are -inf"),
            field=field,
        )
    if changes:
        return ProviderProtocolError(f"the model's generation configuration ({changes}) excludes every next token")
    return ProviderProtocolError("the model's logits are not finite: all of them are -inf")
