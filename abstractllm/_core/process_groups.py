"""The process groups that this process has started, for an end that cannot wait for anything."""

from __future__ import annotations

import contextlib
import os
import signal

from abstractllm._core.forks import forget_in_forked_child

__all__ = ["ProcessGroups", "process_groups"]


class ProcessGroups:
    """The groups of child processes that lead one, by the leader's process id.

    No method takes a lock: `kill_all` is for a process whose other threads may hold any.
    """

    def __init__(self) -> None:
        self._leaders: dict[int, None] = {}
        forget_in_forked_child(self)

    def add(self, leader: int) -> None:
        """Notes a group that was started."""
        self._leaders[leader] = None

    def discard(self, leader: int) -> None:
        """Forgets a group of which nothing is left."""
        self._leaders.pop(leader, None)

    def kill_all(self) -> None:
        """Sends SIGKILL to every group; one that is stopped ends, too."""
        for leader in list(self._leaders):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(leader, signal.SIGKILL)

    def forget(self) -> None:
        """Called in a forked child: the groups are its parent's."""
        self._leaders = {}


process_groups = ProcessGroups()
"""The groups of this process's children."""
