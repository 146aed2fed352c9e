"""Every test that docs/bugs.md names is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    line
    for line in (ROOT / "docs/bugs.md").read_text("utf-8").splitlines()
    if line.startswith("| ") and not line.startswith(("| Bug ", "|---"))
]


def missing(cell: str) -> list[str]:
    """Lists what a row's last cell names that is not there: files, and functions in the file named before them."""
    absent = []
    file: Path | None = None
    for name in re.findall(r"`([^`]+)`", cell):
        path, _, function = name.partition("::")
        if path:
            file = next((place for base in ("tests", "") if (place := ROOT / base / path).is_file()), None)
        is_there = file is not None and re.search(
            rf"\b{re.escape(function.partition('[')[0])}\b", file.read_text("utf-8")
        )
        if not is_there:
            absent.append(name)
    return absent


@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
def test_row_names_tests_that_are_there(row: str) -> None:
    cells = row.strip("| ").split(" | ")
    assert len(cells) >= 2, row
    assert re.search("`[^`]+`", cells[-1]), f"names no test: {row}"
    assert missing(cells[-1]) == []


def test_a_test_that_is_not_there_is_noticed() -> None:
    there = "test_every_link_within_the_page_leads_somewhere"
    assert missing(f"`unit/test_reference.py::{there}`, `::{there}`, `unit/test_reference.py`") == []
    assert missing("`unit/test_reference.py::test_gone`, `unit/test_none.py`, `::test_of_it`") == [
        "unit/test_reference.py::test_gone",
        "unit/test_none.py",
        "::test_of_it",
    ]
