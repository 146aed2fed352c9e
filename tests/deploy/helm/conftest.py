"""Fixtures of the charts' tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import helm
from tools.charts import Charts
from tools.charts import charts as copies


@pytest.fixture(scope="session")
def helm_program() -> Path:
    """Helm; the first time it is built, which takes a minute or two."""
    program = helm.binary()
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("go, which builds helm, is not installed")
    return program


@pytest.fixture(scope="session")
def charts(helm_program: Path) -> Iterator[Charts]:
    """Copies of the charts, for Helm to work with."""
    with copies(helm_program) as those:
        yield those
