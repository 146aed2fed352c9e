"""Fixtures of the tests with Ray: it runs once, for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ray.cluster import running_ray


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """The address of the Ray of these tests."""
    with running_ray() as address:
        yield address
