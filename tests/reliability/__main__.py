"""Measures the rows: `python -m tests.reliability [--rows 8,9] [--small] [--markdown]`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from tests.reliability.figures import Row
from tests.reliability.page import Results, write_page
from tests.reliability.runner import Outcome, measure, rows

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"


def main() -> int:
    """Measures, prints each figure, and returns 1 if one is beyond its bound."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("--rows", default="", help="Their numbers, with commas; all if absent.")
    parser.add_argument("--small", action="store_true", help="Small loads, those of `make test`.")
    parser.add_argument("--markdown", action="store_true", help="Write the figures into docs/reliability.md.")
    parser.add_argument("--list", action="store_true", help="Only list the rows.")
    arguments = parser.parse_args()
    chosen = {int(number) for number in arguments.rows.split(",") if number}
    selected = [row for row in rows() if (chosen & set(row.numbers) if chosen else not row.named_only)]
    failed = 0
    for row in selected:
        if arguments.list:
            print(f"{_numbers(row):>5}  {row.title}: {row.pass_mark}")
            continue
        outcome = _measure(row, small=arguments.small)
        failed += not outcome.passed
        if arguments.markdown:
            results = Results(PAGE)
            results.put(row, outcome, small=arguments.small)
            write_page(PAGE, results)
    return 1 if failed else 0


def _measure(row: Row, *, small: bool) -> Outcome:
    print(f"{_numbers(row):>5}  {row.title} ...", flush=True)
    began = time.monotonic()
    outcome = asyncio.run(measure(row, full=not small))
    for figure in outcome.figures:
        print(f"       {'    ' if figure.passed else 'FAIL'} {figure}", flush=True)
    print(
        f"{_numbers(row):>5}  {'passed' if outcome.passed else 'FAILED'} in {time.monotonic() - began:.1f} s",
        flush=True,
    )
    return outcome


def _numbers(row: Row) -> str:
    return ",".join(map(str, row.numbers))


if __name__ == "__main__":
    sys.exit(main())
