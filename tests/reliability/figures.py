"""The figures of a row, each with its bound."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

MEBIBYTE = 1 << 20
_LONGEST = 600
"""Characters of a value that are shown."""


@dataclass(frozen=True)
class Figure:
    """A measured value.

    Attributes:
        name: The quantity.
        value: Its value, in words.
        bound: The bound, in words; empty for a figure that only informs.
        passed: True if the value is within the bound.
    """

    name: str
    value: str
    bound: str
    passed: bool

    def __str__(self) -> str:
        return f"{self.name} {self.value}" + (f" ({self.bound})" if self.bound else "")


@dataclass
class Figures:
    """The figures of one row, in the order in which they were measured.

    Attributes:
        figures: The figures.
        slack: The factor by which bounds of time are wider than they say, for a machine that is busy.
    """

    figures: list[Figure] = field(default_factory=list)
    slack: float = 1.0

    def at_most(self, name: str, value: float, limit: float, unit: str = "") -> None:
        """Notes a value that must not exceed `limit`."""
        limit *= self.slack if unit in ("s", "ms") else 1
        self._note(name, f"{value:.4g}", unit, f"at most {limit:g}", value <= limit)

    def at_least(self, name: str, value: float, limit: float, unit: str = "") -> None:
        """Notes a value that must not be below `limit`."""
        self._note(name, f"{value:.4g}", unit, f"at least {limit:g}", value >= limit)

    def equal(self, name: str, value: object, expected: object) -> None:
        """Notes a value that must be `expected`."""
        shown = f"{value}" if len(f"{value}") <= _LONGEST else f"{value}"[:_LONGEST] + "..."
        self._note(name, shown, "", f"must be {expected}", value == expected)

    def holds(self, name: str, passed: bool, value: object = "") -> None:
        """Notes a condition; `value` says more about it."""
        self.figures.append(Figure(name, f"{value}" if value != "" else ("yes" if passed else "no"), "", passed))

    def inform(self, name: str, value: float | str, unit: str = "") -> None:
        """Notes a value without a bound."""
        shown = f"{value:.4g}" if isinstance(value, float) else f"{value}"
        self.figures.append(Figure(name, f"{shown} {unit}".strip(), "", passed=True))

    @property
    def passed(self) -> bool:
        """True if every figure is within its bound, and there is one."""
        return bool(self.figures) and all(figure.passed for figure in self.figures)

    @property
    def failures(self) -> list[Figure]:
        """The figures beyond their bounds."""
        return [figure for figure in self.figures if not figure.passed]

    def _note(self, name: str, value: str, unit: str, bound: str, passed: bool) -> None:
        self.figures.append(Figure(name, f"{value} {unit}".strip(), bound, passed))


@dataclass(frozen=True)
class Setting:
    """The conditions of a measurement.

    Attributes:
        folder: An empty folder for the row's files.
        full: True for the load that the pass mark names, False for a small one that takes seconds.
    """

    folder: Path
    full: bool = True

    def figures(self) -> Figures:
        """Returns the row's figures, none as yet; with a small load it is the mechanism that counts, not the time."""
        return Figures(slack=1.0 if self.full else 8.0)

    def load(self, full: int, small: int) -> int:
        """Returns the size of a load: `full`, or `small` where the row is to be quick."""
        return full if self.full else small


@dataclass(frozen=True)
class Row:
    """One row of the scorecard.

    Attributes:
        numbers: Its number; a measurement may answer for several rows.
        title: The situation, in a few words.
        pass_mark: The bound, in words.
        measure: Measures the row.
        quick: True if the small load is part of `make test`.
        seconds: Seconds after which a measurement counts as hanging.
        quick_seconds: The same for the small load.
        named_only: True if it is measured only where its number is named.
    """

    numbers: tuple[int, ...]
    title: str
    pass_mark: str
    measure: Callable[[Setting], Awaitable[Figures]]
    quick: bool = False
    seconds: float = 300.0
    quick_seconds: float = 60.0
    named_only: bool = False
