"""Fixtures of the tests with Ray: it runs once, for all of them, and ends with the last."""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.ray.cluster import running_ray

# Read once, when Ray is imported, whichever test does that first: its file of tokens stays as it is.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
_RUNNING = ExitStack()


@pytest.fixture(scope="session")
def ray_address() -> str:
    """The address of the Ray of these tests."""
    return _RUNNING.enter_context(running_ray())


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """Ends Ray behind the last test here: with its replicas it takes a fifth of two cores from all that comes after."""
    if nextitem is None or Path(__file__).parent not in nextitem.path.parents:
        _RUNNING.close()
