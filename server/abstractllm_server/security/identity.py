"""The caller of a call, as the server knows them."""

from __future__ import annotations

from dataclasses import dataclass

from abstractllm.errors import PermissionDeniedError
from abstractllm_server.settings import Role

__all__ = ["Identity", "MethodForbiddenError"]


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller.

    Attributes:
        name: The name of their token or certificate, or the address of their connection.
        role: Their rights; None if nobody is asked for credentials.
    """

    name: str
    role: Role | None

    @property
    def caller(self) -> str:
        """The name under which callers take turns, and stand in logs: no two of different rights share one."""
        return f"{self.role}:{self.name}" if self.role else self.name


class MethodForbiddenError(PermissionDeniedError):
    """A refusal of a caller who is known: their role does not allow the method.

    Attributes:
        identity: The caller.
    """

    def __init__(self, message: str, identity: Identity) -> None:
        super().__init__(message)
        self.identity = identity
