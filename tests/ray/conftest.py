"""Fixtures of the tests with Ray: it runs once, for all of them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

from tests.ray.cluster import running_ray

# Read once, when Ray is imported, whichever test does that first: its file of tokens stays as it is.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """The address of the Ray of these tests."""
    with running_ray() as address:
        yield address
