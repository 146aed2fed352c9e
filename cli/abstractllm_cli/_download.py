"""A download, shown as a bar for the whole and one for each file that is on its way."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from abstractllm_cli._output import printable

_NAME_WIDTH = 44


def follow(reports: Iterator[Any]) -> int:
    """Shows a download on the standard error, if that is a terminal, until it is complete.

    Args:
        reports: `PullProgress`, of the library or of the client.

    Returns:
        The bytes of the model.
    """
    if not sys.stderr.isatty():
        done = 0
        for report in reports:
            done = report.bytes_done
        return done
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
    )
    done, files = 0, {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        whole = bars.add_task("Downloading", total=None)
        for report in reports:
            done = report.bytes_done
            bars.update(whole, completed=done, total=report.bytes_total)
            if not report.file:
                continue
            is_complete = report.file_bytes_done == report.file_bytes_total
            if report.file not in files and not is_complete:
                files[report.file] = bars.add_task(_shortened(report.file), total=report.file_bytes_total)
            if report.file in files:
                bars.update(files[report.file], completed=report.file_bytes_done, total=report.file_bytes_total)
                if is_complete:
                    bars.remove_task(files.pop(report.file))
    return done


def _shortened(name: str) -> str:
    name = printable(name)
    return name if len(name) <= _NAME_WIDTH else f"…{name[1 - _NAME_WIDTH :]}"
