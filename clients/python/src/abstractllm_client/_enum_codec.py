"""The contract's enums <-> the client's, by name; unknown numbers pass through."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Generic, TypeVar

from abstractllm_api.v1 import config_pb2, errors_pb2, generation_pb2, models_pb2
from abstractllm_client import _check
from abstractllm_client.enums import (
    FinishReason,
    LlmState,
    ParametersPolicy,
    Quantization,
    ReasoningEffort,
    Role,
    ToolChoiceMode,
)
from abstractllm_client.errors import ErrorReason

E = TypeVar("E", bound=StrEnum)


class Codec(Generic[E]):
    """One enum of the contract and its twin.

    Args:
        kind: The client's enum.
        numbers: The contract's values, by their full names.
        prefix: What the full names begin with.
    """

    def __init__(self, kind: type[E], numbers: Mapping[str, int], prefix: str) -> None:
        self._kind = kind
        self._numbers = {member: numbers[prefix + member.name] for member in kind}
        self._members = {number: member for member, number in self._numbers.items()}

    def encode(self, value: Any, field: str) -> Any:
        """Takes a member, its text, or a number that this client need not know.

        Raises:
            InvalidRequestError: For anything else.
        """
        if isinstance(value, int) and not isinstance(value, bool):
            return _check.integer(value, field, 32)
        try:
            return self._numbers[self._kind(value)]
        except ValueError:
            names = ", ".join(self._kind)
            raise _check.refuse(field, f"must be one of {names}", value, limit=names) from None

    def decode(self, number: int) -> E | int:
        """The member, or the number where there is none."""
        return self._members.get(number, number)


REASONING_EFFORTS = Codec(ReasoningEffort, dict(generation_pb2.ReasoningEffort.items()), "REASONING_EFFORT_")
ROLES = Codec(Role, dict(generation_pb2.Role.items()), "ROLE_")
TOOL_CHOICE_MODES = Codec(ToolChoiceMode, dict(generation_pb2.ToolChoiceMode.items()), "TOOL_CHOICE_MODE_")
PARAMETERS_POLICIES = Codec(ParametersPolicy, dict(generation_pb2.ParametersPolicy.items()), "PARAMETERS_POLICY_")
FINISH_REASONS = Codec(FinishReason, dict(generation_pb2.FinishReason.items()), "FINISH_REASON_")
LLM_STATES = Codec(LlmState, dict(models_pb2.LlmState.items()), "LLM_STATE_")
QUANTIZATIONS = Codec(Quantization, dict(config_pb2.Quantization.items()), "QUANTIZATION_")
ERROR_REASONS = Codec(ErrorReason, dict(errors_pb2.ErrorReason.items()), "ERROR_REASON_")
