"""The keys of the configuration of every LLM before which requests wait."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from abstractllm._core.admission.limits import AdmissionLimits, CallerLimits
from abstractllm.config import Bytes, LLMConfig, plain_number

__all__ = ["AdmissionConfig"]

_MOST_CALLERS = 1000
_MOST_REQUESTS = 100_000
_MOST_TOKENS = 1_000_000_000_000

_Limit = Literal["max_running", "max_queue", "tokens_per_minute"]
_LARGEST: dict[_Limit, int] = {
    "max_running": _MOST_REQUESTS,
    "max_queue": _MOST_REQUESTS,
    "tokens_per_minute": _MOST_TOKENS,
}


def _check_callers(callers: dict[str, dict[_Limit, int]]) -> dict[str, dict[_Limit, int]]:
    for caller, limits in callers.items():
        for name, value in limits.items():
            least, most = 0 if name == "max_queue" else 1, _LARGEST[name]
            if not least <= value <= most:
                raise ValueError(f"{name} of {caller[:80]!r} must be {least} to {most}, got {value}")
    return callers


class AdmissionConfig(LLMConfig):
    """The configuration of an LLM before which requests wait."""

    max_queue: Annotated[int, Field(ge=0, le=_MOST_REQUESTS)] = 256
    """Requests that may wait for their turn; one more is refused."""
    max_queue_bytes: Bytes = 128 << 20
    """Bytes that the waiting requests may hold; a request beyond that is refused."""
    callers: Annotated[
        dict[
            Annotated[str, Field(min_length=1, max_length=256)],
            dict[_Limit, Annotated[int, BeforeValidator(plain_number)]],
        ],
        Field(max_length=_MOST_CALLERS),
        AfterValidator(_check_callers),
    ] = Field(default_factory=dict)
    """The limits of callers, by the name of their token or certificate; `*` stands for each one that is not named."""

    @property
    def admission_limits(self) -> AdmissionLimits:
        """The limits of its requests."""
        callers = {caller: CallerLimits(**limits) for caller, limits in self.callers.items()}
        return AdmissionLimits(self.max_queue, self.max_queue_bytes, callers)
