"""Everything that is wrong with a configuration, each fault with its file and line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from abstractllm.errors import ConfigurationError

__all__ = ["ConfigurationFaultsError", "at_line", "faults_of", "line_of"]

_INDEX = re.compile(r"\[\d+\]")


class ConfigurationFaultsError(ConfigurationError):
    """Several faults of a configuration; its message has a line for each.

    Attributes:
        faults: The faults, by their lines in the file.
    """

    def __init__(self, faults: Sequence[ConfigurationError]) -> None:
        super().__init__("\n".join(fault.message for fault in faults), field=faults[0].field)
        self.faults = tuple(faults)


def faults_of(error: ConfigurationError) -> tuple[ConfigurationError, ...]:
    """Returns the faults that an error stands for, one or several."""
    return error.faults if isinstance(error, ConfigurationFaultsError) else (error,)


def line_of(error: ConfigurationError, lines: Mapping[str, int]) -> int | None:
    """Returns the line of the key that an error is about, or of the nearest one around it; None if there is none."""
    return next((lines[key] for key in _keys(error.field or "") if key in lines), None)


def at_line(error: ConfigurationError, path: Path | None, line: int | None) -> ConfigurationError:
    """Returns an error of one line that puts the file and the line in front of the message, where they are known."""
    place = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
    # A key may hold what a terminal would obey, or nobody would see.
    message = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in place + error.message
    )
    return ConfigurationError(message, field=error.field, limit=error.limit, requested=error.requested)


def _keys(field: str) -> Iterator[str]:
    """Yields the paths under which a field may stand in the file, the nearest first."""
    # A generation parameter may stand beside an LLM's other keys.
    for path in (field, _INDEX.sub("", field)):
        yield path.replace(".parameters.", ".")
        yield path
    while field := re.sub(r"(^|\.)[^.]*$", "", _INDEX.sub("", field)):
        yield field
