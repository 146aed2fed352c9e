"""The languages whose tools this machine has."""

from __future__ import annotations

import os
import shutil

import pytest

TOOLS = {"go": ("go",), "java": ("java", "javac", "mvn"), "node": ("node", "npm"), "python": ()}
"""The programs that a language's client is built and tested with."""


def missing(language: str) -> list[str]:
    """The programs that are not there."""
    return [tool for tool in TOOLS[language] if shutil.which(tool) is None]


def require(language: str) -> None:
    """Skips the test, or the module that calls it, where the language's tools are missing; with CI=true it fails."""
    if lacking := missing(language):
        line = f"the {language} client is not tested here: {', '.join(lacking)} not found"
        if os.environ.get("CI") == "true":
            pytest.fail(line, pytrace=False)
        pytest.skip(line, allow_module_level=True)
