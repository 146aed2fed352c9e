"""The results of a program as the report reads them: every value is looked at before it stands on the page."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from benchmarks.results import Figure, Ratio, Results, Target

__all__ = ["FormError", "read_results"]


class FormError(ValueError):
    """Results that do not have the form; the message names the place and the value."""


def read_results(data: Any) -> Results:
    """Returns the results that JSON has.

    Raises:
        FormError: If they do not have the form.
    """
    values = _keys("results", data, dataclasses.fields(Results))
    if not isinstance(figures := values.get("figures"), list) or not figures:
        raise FormError(f"figures: a list with at least one figure is needed, got {_short(figures)}")
    named = [_read_figure(f"figures[{place}]", one) for place, one in enumerate(figures)]
    seen: set[tuple[str, str]] = set()
    for one in named:
        if (one.table, one.name) in seen:
            raise FormError(f"figures: {one.name!r} stands twice in the table {one.table!r}")
        seen.add((one.table, one.name))
    known, notes, command = values.get("versions", {}), values.get("notes", []), values.get("command", "")
    if not isinstance(known, dict) or not all(isinstance(one, str) for one in known.values()):
        raise FormError(f"versions: names and versions are needed, got {_short(known)}")
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise FormError(f"notes: a list of texts is needed, got {_short(notes)}")
    if not isinstance(command, str):
        raise FormError(f"command: a text is needed, got {_short(command)}")
    return Results(named, known, notes, command)


def _read_figure(place: str, data: Any) -> Figure:
    values = _keys(place, data, dataclasses.fields(Figure))
    for key in ("table", "name"):
        if not isinstance(values.get(key), str) or not values[key]:
            raise FormError(f"{place}.{key}: a text is needed, got {_short(values.get(key))}")
    for key in ("unit", "series"):
        if not isinstance(values.get(key, ""), str):
            raise FormError(f"{place}.{key}: a text is needed, got {_short(values[key])}")
    value = _real(f"{place}.value", values.get("value"))
    low = _real(f"{place}.low", values.get("low", value))
    high = _real(f"{place}.high", values.get("high", value))
    if not low <= value <= high:
        raise FormError(f"{place}: the value {value} is not within its range, {low} to {high}")
    runs = values.get("runs", 1)
    if not isinstance(runs, int) or isinstance(runs, bool) or runs < 1:
        raise FormError(f"{place}.runs: a number of at least 1 is needed, got {_short(runs)}")
    at = values.get("at")
    return Figure(
        values["table"],
        values["name"],
        values.get("unit", ""),
        value,
        low,
        high,
        runs,
        _read_ratio(f"{place}.ratio", values["ratio"]) if values.get("ratio") is not None else None,
        _read_target(f"{place}.target", values["target"]) if values.get("target") is not None else None,
        values.get("series", ""),
        None if at is None else _real(f"{place}.at", at),
    )


def _read_ratio(place: str, data: Any) -> Ratio:
    values = _keys(place, data, dataclasses.fields(Ratio))
    if not isinstance(values.get("to"), str) or not values["to"]:
        raise FormError(f"{place}.to: a text is needed, got {_short(values.get('to'))}")
    value = _real(f"{place}.value", values.get("value"))
    low, high = (_real(f"{place}.{key}", values.get(key, value)) for key in ("low", "high"))
    if not low <= value <= high:
        raise FormError(f"{place}: the value {value} is not within its range, {low} to {high}")
    return Ratio(values["to"], value, low, high)


def _read_target(place: str, data: Any) -> Target:
    values = _keys(place, data, dataclasses.fields(Target))
    least, most = (
        None if values.get(key) is None else _real(f"{place}.{key}", values[key]) for key in ("least", "most")
    )
    if (least is None) == (most is None):
        raise FormError(f"{place}: either least or most is needed, got {_short(data)}")
    if values.get("of", "value") not in ("value", "ratio"):
        raise FormError(f"{place}.of: value or ratio is needed, got {_short(values['of'])}")
    return Target(least, most, values.get("of", "value"))


def _keys(place: str, data: Any, fields: Sequence[dataclasses.Field[Any]]) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise FormError(f"{place}: an object is needed, got {_short(data)}")
    if unknown := sorted(data.keys() - {one.name for one in fields}):
        raise FormError(f"{place}: there is no {', '.join(unknown)}; known are {', '.join(one.name for one in fields)}")
    return data


def _real(place: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FormError(f"{place}: a number is needed, got {_short(value)}")
    return float(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
