"""The contract's enums <-> the client's, by name; unknown numbers pass through."""

from __future__ import annotations

import re
from enum import StrEnum
from types import ModuleType
from typing import Any, Generic, TypeVar

from abstractllm_api.v1 import config_pb2, errors_pb2, generation_pb2, models_pb2
from abstractllm_client import _check, enums
from abstractllm_client.enums import FinishReason, ParametersPolicy, Role, ToolChoiceMode
from abstractllm_client.errors import ErrorReason

E = TypeVar("E", bound=StrEnum)


class Codec(Generic[E]):
    """One enum of the contract and the client's enum of the same name.

    Args:
        kind: The client's enum.
        module: The generated module that has the contract's.
    """

    def __init__(self, kind: type[E], module: ModuleType) -> None:
        prefix = re.sub("(?<!^)(?=[A-Z])", "_", kind.__name__).upper()
        numbers = dict(getattr(module, kind.__name__).items())
        self._kind = kind
        self._numbers: dict[E, int] = {member: numbers[f"{prefix}_{member.name}"] for member in kind}
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
        """Returns the member of a number, or the number where there is none."""
        return self._members.get(number, number)


ERROR_REASONS = Codec(ErrorReason, errors_pb2)
FINISH_REASONS = Codec(FinishReason, generation_pb2)
PARAMETERS_POLICIES = Codec(ParametersPolicy, generation_pb2)
ROLES = Codec(Role, generation_pb2)
TOOL_CHOICE_MODES = Codec(ToolChoiceMode, generation_pb2)

BY_NAME: dict[str, Codec[Any]] = {
    name: Codec(getattr(enums, name), module)
    for module in (config_pb2, generation_pb2, models_pb2)
    for name in module.DESCRIPTOR.enum_types_by_name
    if name in enums.__all__
}
"""The codecs of all enums of the contract that the client has too, by their common name."""
