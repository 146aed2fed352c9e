"""The page and its plots, as they follow from the results and from nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from benchmarks.parts import Part, Plot
from benchmarks.report.store import Entry
from benchmarks.report.svg import Bar, bar_plot, line_plot
from benchmarks.results import Figure, Results, table_rows

__all__ = ["render"]

_HEAD = """# Benchmarks

<!-- Written by `make bench` from benchmarks/results.json; edit benchmarks/parts.py instead. -->

    make bench                          # everything, in under 30 minutes on two cores
    make bench PARTS=server,engine      # some parts; the figures of the others stay

Figures of one machine say little about another: what counts are the ratios, each taken within one run. Every figure is
the median of its runs, and the range is from the least to the most of them. Each part says when it was measured and how
busy the machine was: a load average above its cores means that something else ran, and absolute figures are too low.
[benchmarks/README.md](../benchmarks/README.md) says what each program does; figures of a GPU are in
[performance.md](performance.md). The data behind this page is [results.json](benchmarks/results.json).
"""


def render(parts: Sequence[Part], entries: Mapping[str, Entry]) -> dict[str, str]:
    """Returns every file that follows from the results, by its path within the folder of the documentation."""
    files: dict[str, str] = {}
    lines = [_HEAD, *_failures(parts, entries), *_machines(parts, entries), *_overview(parts, entries)]
    for part in parts:
        lines += [f"## {part.title}\n", f"{part.about}\n"]
        entry = entries.get(part.name)
        if entry is None:
            lines.append(f"Not measured yet: `make bench PARTS={part.name}`.\n")
        elif entry.status != "measured":
            lines.append(f"**{_verdict(entry)}** ({_circumstances(entry)})\n\n```\n{entry.error}\n```\n")
        else:
            for number, plot in enumerate(part.plots, 1):
                name = f"benchmarks/{part.name}-{number}.svg"
                if drawing := _draw(plot, entry.results):
                    files[name] = drawing
                    lines.append(f"![{plot.title}]({name})\n")
            lines += _part(entry)
    files["benchmarks.md"] = "\n".join(lines).rstrip() + "\n"
    return files


def _verdict(entry: Entry) -> str:
    return "FAILED" if entry.status == "failed" else "Not measured: something is missing"


def _failures(parts: Sequence[Part], entries: Mapping[str, Entry]) -> Iterator[str]:
    failed = [part for part in parts if (entry := entries.get(part.name)) and entry.status == "failed"]
    missing = [part for part in parts if (entry := entries.get(part.name)) and entry.status == "missing"]
    absent = [part for part in parts if part.name not in entries]
    for words, named in (
        ("FAILED", failed),
        ("Not measured, as something is missing", missing),
        ("Not run yet", absent),
    ):
        if named:
            links = ", ".join(f"[{part.name}](#{_anchor(part.title)})" for part in named)
            yield f"**{words}: {links}.**\n"


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _machine(entry: Entry) -> str:
    cores = f"{entry.cores} core{'s' * (entry.cores != 1)}"
    return f"{entry.cpu}, {cores}, {entry.memory} of memory, {entry.system}, Python {entry.python}"


def _machines(parts: Sequence[Part], entries: Mapping[str, Entry]) -> Iterator[str]:
    machines: dict[str, list[str]] = {}
    for part in parts:
        if entry := entries.get(part.name):
            machines.setdefault(_machine(entry), []).append(part.name)
    for machine, names in machines.items():
        of = f" of {', '.join(names)}" if len(machines) > 1 else ""
        yield f"Machine{of}: {machine}.\n"


def _overview(parts: Sequence[Part], entries: Mapping[str, Entry]) -> Iterator[str]:
    """Yields a table of the parts, and one of the targets."""
    yield "| part | | measured (UTC) | commit | took | load average, before and after |\n|---|---|---|---|---|---|"
    for part in parts:
        entry = entries.get(part.name)
        link = f"[{part.name}](#{_anchor(part.title)})"
        if entry is None:
            yield f"| {link} | not run yet | | | | |"
            continue
        before, after = entry.load
        yield (
            f"| {link} | {entry.status.replace('failed', '**failed**')} | {entry.date} | `{entry.commit}` "
            f"| {entry.seconds:.0f} s | {before:.1f}, {after:.1f} |"
        )
    yield ""
    rows = []
    for part in parts:
        for one in _figures(entries.get(part.name)):
            if one.target:
                cells = table_rows([one])
                rows.append([part.name, f"{one.table}: {one.name}", *_target_cells(one, cells)])
    if rows:
        yield "| part | figure with a target | measured | target |\n|---|---|---|---|"
        yield "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _target_cells(one: Figure, cells: list[list[str]]) -> tuple[str, str]:
    by_head = dict(zip(*cells, strict=True))
    target = by_head["target"].removeprefix("ratio ")
    return by_head["ratio" if one.target and one.target.of == "ratio" else "value"], target


def _figures(entry: Entry | None) -> list[Figure]:
    return list(chain.from_iterable(one.figures for one in entry.results)) if entry else []


def _part(entry: Entry) -> Iterator[str]:
    for results in entry.results:
        for title in dict.fromkeys(one.table for one in results.figures):
            head, *rows = table_rows([one for one in results.figures if one.table == title])
            yield f"### {title}\n"
            yield "\n".join(
                [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
            )
            yield ""
        for note in results.notes:
            yield f"{note}\n"
        known = ", ".join(f"{name} {version}" for name, version in sorted(results.versions.items()))
        yield f"`{results.command}`" + f": {known}." * bool(known) + "\n"
    yield f"Measured {_circumstances(entry)}.\n"


def _circumstances(entry: Entry) -> str:
    before, after = entry.load
    return (
        f"{entry.date} UTC, commit `{entry.commit}`, in {entry.seconds:.0f} s, load average {before:.1f} to {after:.1f}"
    )


def _draw(plot: Plot, results: Sequence[Results]) -> str:
    """Returns a plot, or nothing where its table has no figures."""
    figures = [one for one in chain.from_iterable(one.figures for one in results) if one.table == plot.table]
    if not figures:
        return ""
    if plot.kind == "bars":
        compared = {one.ratio.to.replace("`", "") for one in figures if one.ratio}
        words = f" In brackets: over {compared.pop()}." if len(compared) == 1 else ""
        span = " Thin lines: the range." if any(one.high > one.low for one in figures) else ""
        return bar_plot(plot.title, plot.subtitle + span + words, [_bar(one, bool(words)) for one in figures])
    series: dict[str, list[tuple[float, float]]] = {}
    for one in figures:
        if one.series and one.at is not None:
            series.setdefault(one.series, []).append((one.at, one.value))
    return line_plot(plot.title, plot.subtitle, plot.across, figures[0].unit, series) if series else ""


def _bar(one: Figure, has_note: bool) -> Bar:
    note = f"({one.ratio.value:.2f})" if one.ratio and has_note else ""
    low, high = (one.low, one.high) if one.runs > 1 else (None, None)
    return Bar(one.name.replace("`", ""), one.value, one.unit, low, high, note)
