"""Runs the benchmarks part by part, and writes the page of their figures.

    make bench                                    # everything, in under 30 minutes
    make bench PARTS=server,engine                # some parts; the figures of the others stay
    .venv/bin/python -m benchmarks --render       # the page anew, from the results that are there

It writes docs/benchmarks.md, with its plots and its data in docs/benchmarks/. The exit status is 1 where a part failed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.parts import PARTS, ROOT, TOTAL_SECONDS, Part
from benchmarks.report.page import render
from benchmarks.report.reading import FormError
from benchmarks.report.runner import run_part
from benchmarks.report.store import Entry, read_store, write_store

__all__ = ["main", "write_page"]


def main(arguments: Sequence[str] | None = None, parts: Sequence[Part] = PARTS) -> int:
    """Runs the command line.

    Returns:
        The exit status: 1 where a part failed, or one that was named could not be run.
    """
    parser = argparse.ArgumentParser(
        prog="benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default="", metavar="NAME,NAME", help="the parts to run; all if absent")
    parser.add_argument("--list", action="store_true", help="list the parts")
    parser.add_argument("--render", action="store_true", help="only write the page, from the results that are there")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="the folder of the page (docs)")
    options = parser.parse_args(arguments)
    if options.list:
        for part in parts:
            print(f"{part.name:14} {part.title} ({part.seconds:.0f} s, twice that at most)")
        return 0
    names = [name for name in options.parts.replace(" ", ",").split(",") if name]
    if unknown := sorted(set(names) - {part.name for part in parts}):
        parser.error(f"--parts: there is no {', '.join(unknown)}; there are {', '.join(part.name for part in parts)}")
    file: Path = options.docs / "benchmarks" / "results.json"
    try:
        entries = read_store(file)
    except FormError as error:
        parser.error(f"{error}; mend {file.name}, or delete it to begin anew")
    if not options.render:
        chosen = [part for part in parts if not names or part.name in names]
        return _run(chosen, parts, entries, file, options.docs, named=bool(names))
    write_page(parts, entries, options.docs)
    return 0


def _run(
    chosen: Sequence[Part], parts: Sequence[Part], entries: dict[str, Entry], file: Path, docs: Path, *, named: bool
) -> int:
    """Runs parts, and writes data and page after each of them, so that an abort keeps what there is."""
    end = time.monotonic() + TOTAL_SECONDS
    bad = []
    for place, part in enumerate(chosen):
        print(f"{part.name:14} ...", end=" ", flush=True)
        reserved = sum(other.seconds for other in chosen[place + 1 :])
        entry = run_part(part, min(2 * part.seconds, end - reserved - time.monotonic()))
        first_line = f": {entry.error.partition(chr(10))[0]}" if entry.error else ""
        print(f"{entry.status} in {entry.seconds:.0f} s{first_line}", flush=True)
        entries[part.name] = entry
        if entry.status == "failed" or (named and entry.status == "missing"):
            bad.append(part.name)
        ordered = {one.name: entries[one.name] for one in parts if one.name in entries}
        write_store(file, ordered)
        write_page(parts, read_store(file), docs)
    print(f"Written: {docs.name}/benchmarks.md")
    if bad:
        print(f"Failed: {', '.join(bad)}; docs/benchmarks.md says why", file=sys.stderr)
    return 1 if bad else 0


def write_page(parts: Sequence[Part], entries: dict[str, Entry], docs: Path) -> None:
    """Writes the page and its plots, and removes plots that there are no more."""
    files = render(parts, entries)
    for path in (docs / "benchmarks").glob("*.svg"):
        if f"benchmarks/{path.name}" not in files:
            path.unlink()
    for name, text in files.items():
        (docs / name).parent.mkdir(parents=True, exist_ok=True)
        (docs / name).write_text(text, "utf-8")


if __name__ == "__main__":
    sys.exit(main())
