"""The page of figures, `docs/reliability.md`: rows that are measured anew replace their lines, the others stay."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.reliability.figures import Row

if TYPE_CHECKING:
    from tests.reliability.runner import Outcome

_BEGIN, _END = (
    "<!-- The figures: written by `python -m tests.reliability --markdown`. -->",
    "<!-- End of the figures. -->",
)
_LINE = re.compile(r"\| (?P<numbers>[0-9, ]+) \| .* \|")
_HEADING = re.compile(r"^### Rows? (?P<numbers>[0-9, ]+): .*\n", re.MULTILINE)


class Results:
    """The lines of the table, and the lists of figures below it, by row.

    Args:
        page: The page whose lines are kept until a row is measured anew.
    """

    def __init__(self, page: Path) -> None:
        text = page.read_text("utf-8") if page.exists() else ""
        inside = text.partition(_BEGIN)[2].partition(_END)[0]
        self._lines = {match["numbers"]: match[0] for match in map(_LINE.fullmatch, inside.splitlines()) if match}
        headings = list(_HEADING.finditer(inside))
        ends = [heading.start() for heading in headings[1:]] + [len(inside)]
        self._lists = {
            heading["numbers"]: inside[heading.start() : end].strip()
            for heading, end in zip(headings, ends, strict=True)
        }

    def put(self, row: Row, outcome: Outcome, *, small: bool) -> None:
        """Replaces the line and the list of a row."""
        numbers = ", ".join(map(str, row.numbers))
        flags = f"--rows {','.join(map(str, row.numbers))}" + (" --small" if small else "")
        missed = [figure for figure in outcome.figures if not figure.passed]
        result = "; ".join(f"**{figure}**" for figure in missed) if missed else "pass"
        cells = (numbers, row.title, row.pass_mark, result.replace("|", "\\|").replace("\n", " "))
        self._lines[numbers] = f"| {' | '.join(cells)} |"
        today = datetime.now(UTC).strftime("%Y-%m-%d")
        heading = f"### Row{'s' if len(row.numbers) > 1 else ''} {numbers}: {row.title}"
        figures = (f"- {figure}" if figure.passed else f"- **{figure}**" for figure in outcome.figures)
        shown = "\n".join(figure.replace("\n", " ") for figure in figures)
        self._lists[numbers] = f"{heading}\n\n{today}, `{flags}`\n\n{shown}"

    def text(self) -> str:
        """Returns the table, and the figures of each row, in Markdown."""
        head = "| row | situation | pass mark | result |\n|---|---|---|---|\n"
        table = "\n".join(self._lines[numbers] for numbers in sorted(self._lines, key=_order))
        lists = "\n\n".join(self._lists[numbers] for numbers in sorted(self._lists, key=_order))
        return f"{head}{table}\n\n## All figures\n\n{lists}\n"


def _order(numbers: str) -> list[int]:
    return [int(number) for number in numbers.split(",")]


def write_page(page: Path, results: Results) -> None:
    """Puts the table into the page, between its two marks.

    Raises:
        ValueError: If the page lacks the marks.
    """
    text = page.read_text("utf-8")
    if _BEGIN not in text or _END not in text:
        raise ValueError(f"{page} lacks the marks of the table")
    before, _, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2]
    page.write_text(f"{before}{_BEGIN}\n{_machine()}\n\n{results.text()}{_END}{after}", "utf-8")


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"Machine of the latest measurement: {os.cpu_count()} CPU cores, {memory:.0f} GiB, {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}; attackers and good callers share its cores."
    )
