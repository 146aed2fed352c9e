"""The page of figures, `docs/reliability.md`: rows that are measured anew replace their lines, the others stay."""

from __future__ import annotations

import json
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


class Results:
    """The lines of the table, by row.

    Args:
        page: The page whose lines are kept until a row is measured anew.
    """

    def __init__(self, page: Path) -> None:
        text = page.read_text("utf-8") if page.exists() else ""
        inside = text.partition(_BEGIN)[2].partition(_END)[0]
        lines = (line for line in inside.splitlines() if _LINE.fullmatch(line))
        self._lines = {_LINE.fullmatch(line)["numbers"]: line for line in lines}  # type: ignore[index]

    def put(self, row: Row, outcome: Outcome, *, small: bool) -> None:
        """Replaces the line of a row."""
        numbers = ", ".join(map(str, row.numbers))
        flags = f"--rows {','.join(map(str, row.numbers))}" + (" --small" if small else "")
        shown = "; ".join(f"{figure}" if figure.passed else f"**{figure}**" for figure in outcome.figures)
        today = datetime.now(UTC).strftime("%Y-%m-%d")
        cells = (
            numbers,
            row.title,
            row.pass_mark,
            shown.replace("|", "\\|").replace("\n", " "),
            "pass" if outcome.passed else "**missed**",
            f"{today}, `{flags}`",
        )
        self._lines[numbers] = f"| {' | '.join(cells)} |"

    def table(self) -> str:
        """Returns the table in Markdown."""
        head = "| row | situation | pass mark | measured | | date, flags |\n|---|---|---|---|---|---|\n"
        lines = sorted(self._lines.items(), key=lambda item: json.loads(f"[{item[0]}]"))
        return head + "\n".join(line for _, line in lines) + "\n"


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
    page.write_text(f"{before}{_BEGIN}\n{_machine()}\n\n{results.table()}{_END}{after}", "utf-8")


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"Machine of the latest measurement: {os.cpu_count()} CPU cores, {memory:.0f} GiB, {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}; attackers and good callers share its cores."
    )
