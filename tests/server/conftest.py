"""What the server's tests share; see `support.py`."""

from collections.abc import AsyncIterator

import pytest

from tests.server.support import Serving, serving


@pytest.fixture
async def served() -> AsyncIterator[Serving]:
    """A server with one scripted LLM, `echo`, that says what it is told."""
    async with serving() as found:
        yield found
