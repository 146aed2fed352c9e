"""Reading an Ollama server's progress with the download of a model."""

from __future__ import annotations

from typing import Any

from abstractllm.types import PullProgress

__all__ = ["PullReader"]

_DONE = "success"


class PullReader:
    """Reads a download's lines; a layer of the model counts as a file.

    The server mentions a layer when it comes to it, so the model's size is known at the end only.
    """

    def __init__(self) -> None:
        self._done: dict[str, int] = {}

    def read(self, line: Any) -> PullProgress | None:
        """Returns the report that a line makes; None for one without progress.

        Args:
            line: The SDK's `ProgressResponse`.
        """
        if line.status == _DONE:
            size = sum(self._done.values())
            return PullProgress("", 0, None, size, size, done=True)
        if not line.digest:
            return None
        # Lines come several times a second, and may repeat an earlier one.
        before, now = self._done.get(line.digest), max(self._done.get(line.digest, 0), line.completed or 0)
        if before == now:
            return None
        self._done[line.digest] = now
        return PullProgress(line.digest, now, line.total, sum(self._done.values()), None, done=False)
