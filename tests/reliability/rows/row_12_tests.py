"""Rows 12, 18 and 25: rows that have their tests elsewhere.

Pass mark: the tests of every numeric, list and string field at its least, its most and one beyond pass; so do those
with canary keys through every error path, level of the log, reflection, metrics and traces; so do all cases of
`tests/interop`, which call the same servers from Go, Java, Node and Python (a language whose tools are missing is
skipped, and told).
Load: three runs of pytest.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.server_process import ROOT

_LIMITS = ["tests/server/test_field_limits.py", "tests/server/test_ceilings.py"]
_COUNT = re.compile(r"(\d+) (passed|failed|error|errors|skipped)")


async def measure(setting: Setting) -> Figures:
    """Runs the tests of each row."""
    figures = setting.figures()
    await _tests(figures, "limits of fields", [path for path in _LIMITS if (ROOT / path).exists()])
    await _tests(figures, "canary keys", ["tests/server/test_canaries.py"])
    if setting.full:
        await _tests(figures, "interop", ["tests/interop"])
    return figures


async def _tests(figures: Figures, name: str, paths: list[str]) -> None:
    arguments = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths]
    process = await asyncio.create_subprocess_exec(
        *arguments, cwd=Path(ROOT), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    last = output.decode(errors="replace").strip().rpartition("\n")[2]
    counts = {kind: int(count) for count, kind in _COUNT.findall(last)}
    failed = sum(counts.get(kind, 0) for kind in ("failed", "error", "errors"))
    passed = process.returncode == 0 and failed == 0 and counts.get("passed", 0) > 0
    figures.holds(name, passed, last.strip("= "))


ROW = Row(
    numbers=(12, 18, 25),
    title="limits of every field; canary keys; the interop cases from Go, Java, Node, Python",
    pass_mark="as documented, the field named; 0 canaries; all pass",
    measure=measure,
    seconds=1200,
)
