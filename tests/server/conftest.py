"""The fixtures of the server's tests; see `support.py`."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.server.support import Serving, serving


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own: none lists or clears the user's model cache."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
async def served() -> AsyncIterator[Serving]:
    """A server with one scripted LLM, `echo`, that says what it is told."""
    async with serving() as running:
        yield running
