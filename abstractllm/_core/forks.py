"""Forked children, which get a copy of their parent's memory but neither its threads nor its child processes."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["Forgetful", "forget_in_forked_child"]


class Forgetful(Protocol):
    """An object with locks, threads or processes, which a forked child must not use."""

    def forget(self) -> None:
        """Replaces them by new ones, without touching the parent's; called in a forked child."""


_owners: weakref.WeakSet[Forgetful] = weakref.WeakSet()


def forget_in_forked_child(owner: Forgetful) -> None:
    """Has `owner.forget` called in every child that this process forks from now on, as long as the object lives."""
    _owners.add(owner)


def _after_fork() -> None:
    for owner in tuple(_owners):
        owner.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
