"""The one form in which every benchmark gives its figures: a table on the terminal, and JSON for the report.

A program builds its parser, and hands it to `run` with a function that measures:

    def measure(options: argparse.Namespace) -> Results:
        return Results([figure("Time", "to the first token", "ms", [12.1, 12.9, 11.8])])

    if __name__ == "__main__":
        sys.exit(run(parser, measure))

`--json FILE` writes what `Results.to_json` returns:

    {"figures": [{"table": "Time", "name": "to the first token", "unit": "ms", "value": 12.1, "low": 11.8,
                  "high": 12.9, "runs": 3, "ratio": {"to": "the SDK alone", "value": 1.1, "low": 1.0, "high": 1.2},
                  "target": {"of": "ratio", "most": 1.5}, "series": "ours", "at": 64}],
     "versions": {"grpcio": "1.85.1"}, "notes": ["..."], "command": "python -m benchmarks.start"}

`ratio`, `target`, `series` and `at` may be absent. The report (`python -m benchmarks`) reads it with
`benchmarks.report.reading`, shows a line for each figure, under the heading of its table, and draws the plots that
`benchmarks.parts` names.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = [
    "Figure",
    "Ratio",
    "Results",
    "Target",
    "figure",
    "number",
    "positive",
    "rounds",
    "run",
    "table_rows",
    "versions",
]

SECONDS_VARIABLE = "BENCHMARK_SECONDS"
"""The environment variable with the seconds that a program may take, which the report sets."""
_CLOSE_TO_ZERO = 1e-12
_BEGAN = time.monotonic()
_SLOWER = 1.2
"""The factor by which the next round may take longer than the longest one so far."""
_notes: list[str] = []


@dataclass(frozen=True)
class Ratio:
    """A figure over another one of the same run: the median of the runs' ratios, and their range."""

    to: str
    """The thing that it is compared with."""
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Target:
    """A bound that a figure, or its ratio, should keep."""

    least: float | None = None
    most: float | None = None
    of: str = "value"
    """`value` or `ratio`."""

    def __str__(self) -> str:
        """Returns the bound in words."""
        return f"at least {number(self.least)}" if self.least is not None else f"at most {number(self.most or 0.0)}"

    def is_met_by(self, one: Figure) -> bool:
        """Returns True if a figure is within the bound."""
        value = one.ratio.value if self.of == "ratio" and one.ratio else one.value
        return value >= self.least if self.least is not None else value <= (self.most or 0.0)


@dataclass(frozen=True)
class Figure:
    """One measured figure: the median of the runs, and their range."""

    table: str
    """The heading of the table that it stands in."""
    name: str
    unit: str
    """Such as `ms`, `tokens/s` or `MiB`; empty for a plain number."""
    value: float
    low: float
    high: float
    runs: int = 1
    ratio: Ratio | None = None
    target: Target | None = None
    series: str = ""
    """The line of a plot that it is a point of."""
    at: float | None = None
    """Its place on the horizontal axis of that plot."""


@dataclass(frozen=True)
class Results:
    """The figures of one program."""

    figures: Sequence[Figure]
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of the packages and programs that the figures depend on."""
    notes: Sequence[str] = ()
    """Sentences that a reader of the figures needs."""
    command: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns the results as JSON has them."""
        return {
            "figures": [_without_none(dataclasses.asdict(one)) for one in self.figures],
            "versions": dict(self.versions),
            "notes": list(self.notes),
            "command": self.command,
        }


def figure(
    table: str,
    name: str,
    unit: str,
    values: Sequence[float],
    *,
    over: Sequence[float] | None = None,
    to: str = "",
    target: Target | None = None,
    series: str = "",
    at: float | None = None,
) -> Figure:
    """Returns the figure of some runs.

    Args:
        table: The heading of its table.
        name: Its name.
        unit: The unit of the values.
        values: The value of each run.
        over: The value of something else in each of the same runs; the ratios are taken run by run.
        to: The name of that.
        target: A bound.
        series: The line of a plot that it is a point of.
        at: Its place on the horizontal axis of that plot.

    Raises:
        ValueError: If there is no value, or not as many others.
    """
    if not values:
        raise ValueError(f"no run gave a value of {name!r}")
    ratio = None
    if over is not None:
        if len(over) != len(values):
            raise ValueError(f"{name!r} has {len(values)} runs, and what it is compared with {len(over)}")
        ratios = [value / max(other, _CLOSE_TO_ZERO) for value, other in zip(values, over, strict=True)]
        ratio = Ratio(to, statistics.median(ratios), min(ratios), max(ratios))
    median = statistics.median(values)
    return Figure(table, name, unit, median, min(values), max(values), len(values), ratio, target, series, at)


def positive(text: str) -> int:
    """Returns the whole number of a command line, which is at least 1.

    Raises:
        argparse.ArgumentTypeError: If it is not.
    """
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1 is needed, got {text!r}")
    return value


def rounds(count: int, least: int = 1, share: float = 1.0) -> Iterator[int]:
    """Yields the numbers of rounds, from 0 on, as far as there is time; a note tells of those that there was none for.

    Args:
        count: Their number.
        least: The number that is run in any case.
        share: The part of the time in which they should be over.
    """
    seconds = float(os.environ.get(SECONDS_VARIABLE, "inf")) * share
    longest = 0.0
    for number in range(count):
        began = time.monotonic()
        if number >= least and began - _BEGAN + _SLOWER * longest > seconds:
            _notes.append(f"There was time for {number} of {count} rounds, warming up included.")
            return
        yield number
        longest = max(longest, time.monotonic() - began)


def versions(*packages: str) -> dict[str, str]:
    """Returns the versions of installed packages; those that are not installed are left out."""
    known = {}
    for package in packages:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            continue
    return known


def run(
    parser: argparse.ArgumentParser,
    measure: Callable[[argparse.Namespace], Results],
    arguments: Sequence[str] | None = None,
) -> int:
    """Runs a benchmark's command line: measures, prints the tables, and writes the file of `--json`.

    SIGTERM ends the program as an exception does, so that it ends what it has started.

    Returns:
        The exit status: 0 once there are figures, whether targets are met or not.
    """
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    _notes.clear()
    results = measure(options)
    notes = [*results.notes, *dict.fromkeys(_notes)]
    results = dataclasses.replace(results, command=_command(parser.prog, arguments), notes=notes)
    for title in dict.fromkeys(one.table for one in results.figures):
        print(f"\n{title}\n")
        print(_aligned(table_rows([one for one in results.figures if one.table == title])))
    for note in results.notes:
        print(f"\n{note}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results.to_json(), indent=2) + "\n", "utf-8")
    return 0


def _command(prog: str, arguments: Sequence[str]) -> str:
    """Returns the command without where it writes to."""
    words, skip = [], False
    for word in arguments:
        if not skip and word != "--json" and not word.startswith("--json="):
            words.append(word)
        skip = word == "--json"
    return shlex.join([*"python -m".split(), prog, *words])


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    kept = {key: _without_none(value) if isinstance(value, dict) else value for key, value in values.items()}
    return {key: value for key, value in kept.items() if value is not None and value != ""}


def number(value: float) -> str:
    """Returns a number with about three digits that count."""
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.{1 if size >= 10 else 2 if size >= 1 else 3}f}"


def table_rows(figures: Sequence[Figure]) -> list[list[str]]:
    """Returns the head and the lines of a table; columns that would be empty are left out."""
    rows = [["", "value", "range", "ratio", "target"]]
    for one in figures:
        span = f"{number(one.low)} to {number(one.high)}" if one.runs > 1 else ""
        rows.append([one.name, f"{number(one.value)} {one.unit}".strip(), span, _ratio_cell(one), _target_cell(one)])
    kept = [place for place in range(5) if place < 2 or any(row[place] for row in rows[1:])]
    return [[row[place] for place in kept] for row in rows]


def _ratio_cell(one: Figure) -> str:
    if one.ratio is None:
        return ""
    span = f" ({one.ratio.low:.2f} to {one.ratio.high:.2f})" if one.runs > 1 else ""
    return f"{one.ratio.value:.2f} x {one.ratio.to}{span}"


def _target_cell(one: Figure) -> str:
    if one.target is None:
        return ""
    measured = "ratio " if one.target.of == "ratio" else ""
    return f"{measured}{one.target}: {'met' if one.target.is_met_by(one) else 'missed'}"


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
