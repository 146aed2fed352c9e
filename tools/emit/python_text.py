"""Python text as ruff formats it."""

import subprocess
import sys

__all__ = ["formatted"]


def formatted(text: str) -> str:
    """Formats a module.

    Args:
        text: The module.

    Returns:
        The module with the formatting of the whole repository.

    Raises:
        subprocess.CalledProcessError: If it is not Python.
    """
    command = [sys.executable, "-m", "ruff", "format", "--line-length", "120", "--stdin-filename", "generated.py", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
