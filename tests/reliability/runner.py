"""Runs rows, each under a limit of time."""

from __future__ import annotations

import asyncio
import importlib
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path

from tests.reliability.figures import Figure, Figures, Row, Setting

ROWS = Path(__file__).with_name("rows")


@dataclass(frozen=True)
class Outcome:
    """The figures of a row that was measured."""

    figures: list[Figure]
    passed: bool


def rows() -> list[Row]:
    """Returns every row of the folder `rows`, by number."""
    names = sorted(path.stem for path in ROWS.glob("row_*.py"))
    modules = [importlib.import_module(f"tests.reliability.rows.{name}") for name in names]
    return sorted((module.ROW for module in modules), key=lambda row: row.numbers)


async def measure(row: Row, *, full: bool) -> Outcome:
    """Measures a row; a fault of the measurement itself is a figure that fails."""
    limit = row.seconds if full else row.quick_seconds
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        try:
            async with asyncio.timeout(limit):
                figures = await row.measure(Setting(Path(folder), full))
        except TimeoutError as error:
            figures = Figures()
            figures.holds("the measurement ends", passed=False, value=f"not within {limit:g} s: {error}")
        except Exception as error:
            traceback.print_exc()
            figures = Figures()
            figures.holds("the measurement ends well", passed=False, value=f"{type(error).__name__}: {error}"[:500])
    return Outcome(figures.figures, figures.passed)
