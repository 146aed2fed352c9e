"""The page of operations: its limits are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from abstractllm.field_limits import MESSAGE_BYTES
from abstractllm_server.settings import ServerSettings
from abstractllm_server.transport import connections, limits, waiting_calls

_MIB = 1 << 20
_DEFAULTS = {name: field.default for name, field in ServerSettings.model_fields.items()}
LIMITS: dict[str, list[float]] = {
    "a message": [MESSAGE_BYTES / _MIB],
    "a message's arrival": [_DEFAULTS["read_timeout"]],
    "an answer that nobody reads": [_DEFAULTS["write_timeout"]],
    "calls whose message has not arrived": [waiting_calls._PENDING, waiting_calls._PENDING_PER_SOURCE],
    "calls without credentials, health checks for the most part": [
        waiting_calls._PROBES,
        waiting_calls._PROBES_PER_SOURCE,
    ],
    "messages that arrive at a time": [
        waiting_calls._TURNS["at_a_time"],
        waiting_calls._TURNS["slow"],
        waiting_calls._SLOW,
        waiting_calls._TURNS["slow_per_source"],
    ],
    "answers that nobody reads yet": [waiting_calls._UNREAD / _MIB, waiting_calls._UNREAD_PER_SOURCE / _MIB],
    "calls on one connection": [limits._CONCURRENT_STREAMS],
    "connections": [_DEFAULTS["max_connections"]],
    "a silent connection": [connections._SILENT_SECONDS],
    "a frozen caller": [(limits._KEEPALIVE_MS + limits._PING_TIMEOUT_MS) / 1000],
    "a blocked event loop": [_DEFAULTS["loop_timeout"]],
}


@pytest.mark.parametrize("row", LIMITS)
def test_a_limit_on_the_page_is_that_of_the_code(repository: Path, row: str) -> None:
    page = (repository / "docs/operations.md").read_text("utf-8")
    table = page.partition("## Limits, and what happens at each")[2].partition("\n## ")[0]
    cells = dict(re.findall(r"^\| ([^|]*) \| ([^|]*) \|", table, re.MULTILINE))
    numbers = re.findall(r"\d+(?:\.\d+)?", re.sub(r"(?<=\d),(?=\d)", "", cells[row]))
    assert [float(number) for number in numbers] == LIMITS[row]
