"""Waiting for a condition that sets no event, such as a counter in a server of the same process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

LONGEST_WAIT = 100.0
"""Seconds; shorter than the limit of a test, so that a condition that never holds is what the report names."""
_INTERVAL = 0.005


async def until(holds: Callable[[], object], timeout: float = LONGEST_WAIT) -> None:
    """Waits in an event loop until a condition holds.

    Args:
        holds: The condition.
        timeout: Seconds.

    Raises:
        TimeoutError: If it does not hold in time.
    """
    async with asyncio.timeout(timeout):
        while not holds():  # noqa: ASYNC110 # the condition sets no event
            await asyncio.sleep(_INTERVAL)


def wait_until(holds: Callable[[], object], timeout: float = LONGEST_WAIT) -> None:
    """Waits in a thread until a condition holds.

    Args:
        holds: The condition.
        timeout: Seconds.

    Raises:
        TimeoutError: If it does not hold in time.
    """
    end = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"the condition did not hold within {timeout:.0f} seconds")
        time.sleep(_INTERVAL)
