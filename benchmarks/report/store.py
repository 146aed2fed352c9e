"""The results of all parts, in one file of JSON beside the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report.reading import FormError, read_results
from benchmarks.results import Results

__all__ = ["Entry", "read_store", "write_store"]

_TEXTS = ("status", "error", "date", "commit", "cpu", "memory", "system", "python")
_DIGITS = 5


@dataclass(frozen=True)
class Entry:
    """One part's latest run.

    Attributes:
        status: `measured`, `failed` or `missing`: something that it needs was not there.
        error: The reason, where it was not measured.
        date: The day and time at which it began, in UTC.
        seconds: The time that it took.
        commit: The commit of the working tree, with a `+` where files differed from it.
        load: The load average of a minute, before it and after it.
        results: The results of its programs, in their order.
    """

    status: str
    error: str
    date: str
    commit: str
    cpu: str
    cores: int
    memory: str
    system: str
    python: str
    seconds: float
    load: tuple[float, float]
    results: tuple[Results, ...] = ()


def read_store(file: Path) -> dict[str, Entry]:
    """Returns the entries of all parts that have been run; none where there is no file.

    Raises:
        FormError: If the file does not have the form.
    """
    if not file.exists():
        return {}
    try:
        parts = json.loads(file.read_text("utf-8"))["parts"]
        return {name: _read_entry(name, data) for name, data in parts.items()}
    except FormError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormError(f"{file.name} is not a file of results: {error!r}") from error


def _read_entry(name: str, data: Mapping[str, Any]) -> Entry:
    for key in _TEXTS:
        if not isinstance(data[key], str):
            raise FormError(f"{name}.{key}: a text is needed, got {data[key]!r}")
    before, after = data["load"]
    return Entry(
        **{key: data[key] for key in _TEXTS},
        cores=int(data["cores"]),
        seconds=float(data["seconds"]),
        load=(float(before), float(after)),
        results=tuple(read_results(one) for one in data["results"]),
    )


def write_store(file: Path, entries: Mapping[str, Entry]) -> None:
    """Writes the entries of all parts, numbers with five digits that count."""
    parts = {}
    for name, entry in entries.items():
        values = {key: getattr(entry, key) for key in (*_TEXTS, "cores", "seconds", "load")}
        parts[name] = {**values, "results": [one.to_json() for one in entry.results]}
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"parts": _rounded(parts)}, indent=1, ensure_ascii=False) + "\n"
    whole = file.with_name(f".{file.name}")
    whole.write_text(text, "utf-8")
    whole.replace(file)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
