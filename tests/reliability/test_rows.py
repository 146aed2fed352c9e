"""The rows that are quick, with small loads: the mechanisms behind the figures of docs/reliability.md are in place."""

import re
from pathlib import Path

import pytest

from tests.reliability.figures import Row
from tests.reliability.http2 import frame, header_block
from tests.reliability.rows.row_36_overload import jain
from tests.reliability.runner import measure, rows

ROWS = rows()
QUICK = [row for row in ROWS if row.quick]


@pytest.mark.parametrize("row", QUICK, ids=lambda row: "-".join(map(str, row.numbers)))
async def test_row_holds_with_a_small_load(row: Row) -> None:
    outcome = await measure(row, full=False)
    assert outcome.passed, "\n".join(str(figure) for figure in outcome.figures if not figure.passed)


def test_every_row_of_the_scorecard_is_measured_once() -> None:
    assert sorted(number for row in ROWS for number in row.numbers) == list(range(1, 37))


def test_the_page_has_a_line_for_each_row(repository: Path) -> None:
    page = (repository / "docs" / "reliability.md").read_text("utf-8")
    written = {
        int(number) for cell in re.findall(r"^\| ([0-9, ]+) \|", page, re.MULTILINE) for number in cell.split(",")
    }
    assert written == set(range(1, 37))


def test_every_alert_has_an_entry_in_the_runbook(repository: Path) -> None:
    alerts = re.findall(r"alert: (\w+)", (repository / "deploy" / "prometheus" / "alerts.yaml").read_text("utf-8"))
    runbook = (repository / "docs" / "runbook.md").read_text("utf-8")
    assert len(alerts) > 10
    assert [name for name in alerts if f"\n### {name}\n" not in runbook] == []
    assert [name for name in re.findall(r"\n### (AbstractLLM\w+)\n", runbook) if name not in alerts] == []


def test_frames_are_those_of_the_standard() -> None:
    assert frame(4, 1, 0) == bytes.fromhex("000000040100000000")
    assert header_block("/a").startswith(b"\0\x07:method\x04POST")
    assert b"authorization" in header_block("/a", "t" * 300)


def test_the_index_of_fairness_is_jains() -> None:
    assert jain([3, 3, 3]) == 1
    assert jain([1, 0, 0, 0]) == 0.25
