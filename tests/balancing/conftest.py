"""The fixtures of the tests of balancing."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.server.support import Serving, serving


@pytest.fixture
async def served() -> AsyncIterator[Serving]:
    """A server with one scripted LLM that says what it is told."""
    async with serving() as running:
        yield running
