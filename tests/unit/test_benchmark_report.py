"""The report of the benchmarks: one form of results, a runner that leaves no part out, the page and its plots."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import balancing
from benchmarks import results as form
from benchmarks.__main__ import main
from benchmarks.parts import PARTS, TOTAL_SECONDS, Part, Plot
from benchmarks.report.page import render
from benchmarks.report.reading import FormError, read_results
from benchmarks.report.store import read_store
from benchmarks.report.svg import WIDTH, Bar, bar_plot, line_plot
from benchmarks.results import Results, Target, figure, number, table_rows
from tests.balancing.programs import Call
from tests.unit.test_docs_links import ROOT
from tests.waiting import wait_until

DOCS = ROOT / "docs"
SVG = "{http://www.w3.org/2000/svg}"
GOOD = {"figures": [{"table": "Time", "name": "one", "unit": "ms", "value": 2, "low": 1, "high": 3, "runs": 3}]}


# The page that is committed.


def test_the_page_and_its_plots_follow_from_the_data() -> None:
    files = render(PARTS, read_store(DOCS / "benchmarks" / "results.json"))
    written = {"benchmarks.md", *(f"benchmarks/{path.name}" for path in (DOCS / "benchmarks").glob("*.svg"))}
    assert written == set(files)
    for name, text in files.items():
        assert (DOCS / name).read_text("utf-8") == text, (
            f"{name}: write it anew: .venv/bin/python -m benchmarks --render"
        )


def test_every_part_stands_on_the_page_by_name() -> None:
    page = (DOCS / "benchmarks.md").read_text("utf-8")
    for part in PARTS:
        assert f"\n## {part.title}\n" in page
        assert f"| [{part.name}](#" in page


def test_the_data_names_no_folder_of_a_machine() -> None:
    text = (DOCS / "benchmarks" / "results.json").read_text("utf-8")
    assert not re.search(r"/(?:home|root|work|tmp|Users)/", text)


def test_every_figure_says_its_command_and_its_versions() -> None:
    for name, entry in read_store(DOCS / "benchmarks" / "results.json").items():
        for results in entry.results:
            assert re.match(r"python -m benchmarks\.\w+", results.command), name
            assert results.versions or "fleets" in results.command, name
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", entry.date)


def test_the_parts_have_less_than_half_an_hour() -> None:
    assert TOTAL_SECONDS < 30 * 60
    # Each has its own, however long the others take.
    assert sum(part.seconds for part in PARTS) <= TOTAL_SECONDS
    assert len({part.name for part in PARTS}) == len({part.title for part in PARTS}) == len(PARTS)


# The plots.


def plots() -> Iterator[tuple[str, str]]:
    long_name = "a name so long that it needs a second line to be read on a phone at all, and is to be wrapped"
    yield (
        "bars",
        bar_plot("Calls & <more>", "More is better.", [Bar("a <b>", 3.5, "ms", 3, 4), Bar(long_name, 0.0, "ms")]),
    )
    close = {f"line {place}": [(1.0, 1.0), (64.0, 100.0 + place)] for place in range(4)}
    yield "lines", line_plot("Title", "Subtitle", "callers", "ms", close)
    yield "flat", line_plot("Title", "Subtitle", "callers", "ms", {"none": [(1.0, 0.0), (2.0, 0.0)]})
    for path in (DOCS / "benchmarks").glob("*.svg"):
        yield path.name, path.read_text("utf-8")


PLOTS = list(plots())


@pytest.mark.parametrize("text", [text for _, text in PLOTS], ids=[name for name, _ in PLOTS])
def test_a_plot_can_be_read_on_a_phone_in_the_dark_and_aloud(text: str) -> None:
    root = ElementTree.fromstring(text)
    width, height = (float(value) for value in root.attrib["viewBox"].split()[2:])
    assert width == WIDTH == 360
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None and title.text and description is not None and description.text
    assert root.attrib["role"] == "img" and root.attrib["aria-labelledby"] == "title description"
    style = root.find(f"{SVG}style")
    assert style is not None and "prefers-color-scheme:dark" in (style.text or "")
    # All colours are the style's, so that none is left behind in the dark.
    assert not re.search(r"#[0-9a-f]{3,6}|rgb", text.replace(style.text or "", ""))
    texts = list(root.iter(f"{SVG}text"))
    assert texts
    for one in texts:
        size, x = float(one.attrib["font-size"]), float(one.attrib["x"])
        assert size >= 12
        left = x - len(one.text or "") * size * 0.28 if one.attrib.get("text-anchor") == "middle" else x
        assert left >= 0 and left + len(one.text or "") * size * 0.5 <= width, one.text
        assert 0 < float(one.attrib["y"]) < height


@pytest.mark.parametrize("text", [text for _, text in PLOTS], ids=[name for name, _ in PLOTS])
def test_no_two_texts_of_a_plot_lie_on_each_other(text: str) -> None:
    boxes = []
    for one in ElementTree.fromstring(text).iter(f"{SVG}text"):
        size, x, y = (float(one.attrib[key]) for key in ("font-size", "x", "y"))
        width = len(one.text or "") * size * 0.5
        left = x - width / 2 if one.attrib.get("text-anchor") == "middle" else x
        boxes.append((left, left + width, y - 0.7 * size, y, one.text))
    for place, (left, right, top, bottom, words) in enumerate(boxes):
        for other in boxes[place + 1 :]:
            apart = right <= other[0] or other[1] <= left or bottom <= other[2] or other[3] <= top
            assert apart, f"{words!r} and {other[4]!r}"


def test_lines_differ_in_more_than_their_colours() -> None:
    root = ElementTree.fromstring(
        line_plot("T", "S", "x", "ms", {str(one): [(1.0, one), (2.0, one)] for one in range(4)})
    )
    dashes = [
        one.attrib.get("stroke-dasharray") for one in root.iter(f"{SVG}path") if one.attrib.get("stroke-width") == "2.2"
    ]
    assert len(set(dashes)) == 4
    with pytest.raises(ValueError, match="5 lines; 4 can be told apart"):
        line_plot("T", "S", "x", "ms", {str(one): [(1.0, 1.0)] for one in range(5)})


# The form.


def test_results_survive_json() -> None:
    one = figure(
        "Time", "first", "ms", [3.0, 1.0, 2.0], over=[1.0, 1.0, 4.0], to="the SDK", target=Target(most=2, of="ratio")
    )
    results = Results([one], {"grpcio": "1.85.1"}, ["A note."], "python -m benchmarks.start")
    assert read_results(json.loads(json.dumps(results.to_json()))) == results
    assert (one.value, one.low, one.high, one.runs) == (2.0, 1.0, 3.0, 3)
    assert one.ratio is not None and (one.ratio.value, one.ratio.low, one.ratio.high) == (1.0, 0.5, 3.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"figures": []}, "figures: a list with at least one"),
        ({"figures": GOOD["figures"] * 2}, "'one' stands twice"),
        ({"extra": 1}, "there is no extra; known are figures, versions"),
        ({"notes": "text"}, "notes: a list of texts is needed, got 'text'"),
        ({"versions": {"a": 1}}, "versions: names and versions"),
        ({"command": 1}, "command: a text is needed, got 1"),
    ],
)
def test_results_of_another_form_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(FormError, match=message):
        read_results(GOOD | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": "2"}, r"figures\[0\].value: a number is needed, got '2'"),
        ({"value": float("nan")}, "a number is needed, got nan"),
        ({"value": True}, "a number is needed, got True"),
        ({"value": 5}, "5.0 is not within its range, 1.0 to 3.0"),
        ({"table": ""}, r"figures\[0\].table: a text is needed, got ''"),
        ({"runs": 0}, "runs: a number of at least 1"),
        ({"ratio": {"value": 1}}, "ratio.to: a text is needed"),
        ({"ratio": {"to": "x", "value": 1, "low": 2}}, "not within its range"),
        ({"target": {}}, "either least or most"),
        ({"target": {"most": 1, "of": "it"}}, "value or ratio is needed, got 'it'"),
        ({"unti": "ms"}, "there is no unti"),
    ],
)
def test_figures_of_another_form_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(FormError, match=message):
        read_results({"figures": [GOOD["figures"][0] | change]})


def test_no_run_gives_no_figure_and_ratios_are_taken_run_by_run() -> None:
    with pytest.raises(ValueError, match="no run gave a value of 'a'"):
        figure("T", "a", "ms", [])
    with pytest.raises(ValueError, match="'a' has 2 runs, and what it is compared with 1"):
        figure("T", "a", "ms", [1, 2], over=[1])


def test_numbers_have_about_three_digits() -> None:
    assert [number(value) for value in (0.01234, 1.2345, 12.345, 123.45, 12345.6, 2.0, 0)] == [
        "0.012",
        "1.23",
        "12.3",
        "123",
        "12,346",
        "2",
        "0",
    ]


def test_a_table_leaves_out_columns_that_would_be_empty_and_says_which_targets_were_missed() -> None:
    assert table_rows([figure("T", "a", "ms", [1.0])]) == [["", "value"], ["a", "1 ms"]]
    rows = table_rows([figure("T", "a", "s", [3.0, 5.0], over=[2.0, 4.0], to="b", target=Target(most=2))])
    assert rows[1] == ["a", "4 s", "3 to 5", "1.38 x b (1.25 to 1.50)", "at most 2: missed"]


# The runner, with programs of its own.

WRITES = """
import json, sys
from pathlib import Path
Path(sys.argv[sys.argv.index("--json") + 1]).write_text(json.dumps({results}))
"""
PROGRAMS = {
    "good": WRITES.format(results=GOOD | {"command": "python -m good", "versions": {"a": "1"}}),
    "other": WRITES.format(results=GOOD | {"command": "python -m other"}),
    "broken": "import sys; print('it is', __file__); sys.exit('this went wrong')",
    "silent": "pass",
    "malformed": WRITES.format(results={"figures": [{"table": "T"}]}),
    "hangs": """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("child", child.pid, flush=True)
time.sleep(600)
""",
    "crashes": """
import os, signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("child", child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
""",
}


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Part]:
    for name, source in PROGRAMS.items():
        (tmp_path / f"program_{name}.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.syspath_prepend(str(tmp_path))
    parts = [
        Part(name, f"The {name} one", f"About {name}.", [[f"program_{name}"]], 30, [Plot("Time", "Time")])
        for name in PROGRAMS
    ]
    parts.append(Part("lacking", "The lacking one", "About it.", [["program_none"]], 30, packages=["no_such_package"]))
    return parts


def run(parts: list[Part], docs: Path, *names: str) -> tuple[int, str]:
    code = main(["--docs", str(docs), "--parts", ",".join(names)], parts)
    return code, (docs / "benchmarks.md").read_text("utf-8")


def test_a_part_is_measured_and_shown(parts: list[Part], tmp_path: Path) -> None:
    code, page = run(parts, tmp_path / "docs", "good")
    assert code == 0
    assert "| one | 2 ms | 1 to 3 |" in page
    assert "`python -m good`: a 1." in page
    assert "![Time](benchmarks/good-1.svg)" in page
    assert "Not measured yet: `make bench PARTS=other`." in page
    assert (tmp_path / "docs/benchmarks/good-1.svg").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken", "program_broken ended with 1"),
        ("broken", "this went wrong"),
        ("silent", "program_silent gave no results"),
        ("malformed", "figures[0].name: a text is needed, got None"),
    ],
)
def test_a_part_that_fails_is_named_and_the_others_are_kept(
    parts: list[Part], tmp_path: Path, name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    docs = tmp_path / "docs"
    run(parts, docs, "other")
    code, page = run(parts, docs, "good", name)
    assert code == 1
    assert f"**FAILED: [{name}](#the-{name}-one).**" in page
    assert words in page
    assert f"Failed: {name}" in capsys.readouterr().err
    assert "`python -m good`" in page and "`python -m other`" in page
    # What failed says nothing of this machine.
    assert str(tmp_path.parent) not in page and str(ROOT) not in page
    # It stays on the page until it is measured again.
    assert "**FAILED:" in run(parts, docs, "good")[1]


def test_a_part_that_takes_too_long_is_ended_with_all_that_it_started(parts: list[Part], tmp_path: Path) -> None:
    hanging = [Part("hangs", "The hanging one", "", [["program_hangs"]], 3)]
    began = time.monotonic()
    code, page = run(hanging, tmp_path / "docs", "hangs")
    assert code == 1 and time.monotonic() - began < 60
    assert "program_hangs took longer than 6 s" in page  # twice its time, as nothing else needs it
    assert_ended(page)


def assert_ended(page: str) -> None:
    """The child of a program, whose number it has told, is no more."""
    child = re.search(r"child (\d+)", page)
    assert child
    status = Path(f"/proc/{child[1]}/stat")
    if status.parents[1].exists():
        wait_until(lambda: not status.exists() or status.read_text().split(") ")[1][0] == "Z")


def test_a_part_that_crashes_leaves_nothing_running(parts: list[Part], tmp_path: Path) -> None:
    assert_ended(run(parts, tmp_path / "docs", "crashes")[1])


def test_a_part_that_takes_too_long_leaves_the_next_ones_their_time(
    parts: list[Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.__main__.TOTAL_SECONDS", 24)
    hanging = [Part("hangs", "The hanging one", "", [["program_hangs"]], 40)]
    good = [replace(part, seconds=20) for part in parts if part.name == "good"]
    code, page = run([*hanging, *good], tmp_path / "docs")
    assert code == 1
    assert "program_hangs took longer than 4 s" in page and "| one | 2 ms | 1 to 3 |" in page


def test_what_is_not_there_is_named_and_fails_only_where_it_was_asked_for(parts: list[Part], tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    code, page = run(parts, docs, "lacking")
    assert code == 1
    assert "no module program_none; no package no_such_package" in page
    everything = [part for part in parts if part.name in ("good", "lacking")]
    code = main(["--docs", str(docs)], everything)
    page = (docs / "benchmarks.md").read_text("utf-8")
    assert code == 0
    assert "**Not measured, as something is missing: [lacking](#the-lacking-one).**" in page


def test_a_plot_that_is_no_more_goes_with_its_figures(parts: list[Part], tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    run(parts, docs, "good")
    (docs / "benchmarks/old-1.svg").write_text("old")
    run(parts, docs, "other")
    assert sorted(path.name for path in (docs / "benchmarks").glob("*.svg")) == ["good-1.svg", "other-1.svg"]


def test_a_part_that_there_is_none_of_is_refused_by_name(parts: list[Part], tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--docs", str(tmp_path), "--parts", "good,bad"], parts)
    assert "there is no bad; there are good, other" in capsys.readouterr().err


def test_data_that_cannot_be_read_is_kept(parts: list[Part], tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "benchmarks/results.json"
    file.parent.mkdir()
    entry = dict.fromkeys(("status", "error", "date", "commit", "cpu", "memory", "system", "python"), "")
    entry |= {"cores": 2, "seconds": 1, "load": [0, 0], "results": []}
    for text in ("{", *(json.dumps({"parts": {"good": entry | wrong}}) for wrong in ({"cores": "x"}, {"load": [1]}))):
        file.write_text(text)
        with pytest.raises(SystemExit, match="2"):
            main(["--docs", str(tmp_path), "--parts", "good"], parts)
        assert "results.json is not a file of results" in capsys.readouterr().err
        assert file.read_text() == text


# The programs.


@pytest.mark.parametrize("part", [part for part in PARTS if not part.packages], ids=lambda part: part.name)
def test_every_program_of_the_report_takes_the_arguments_that_it_is_run_with(part: Part) -> None:
    for module, *arguments in part.commands:
        command = [sys.executable, "-m", module, *arguments, "--json", os.devnull, "--no-such-option"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
        assert done.returncode == 2, done.stderr
        assert "unrecognized arguments: --no-such-option" in done.stderr


def test_balancing_names_the_clients_that_there_was_no_time_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(name: str, command: Any, fleets: Any, folder: Any, options: Any, runs: Any) -> None:
        for way in ("two", "turns", "weights"):
            runs.add(way, [Call(10.0 + place, 0.3, "a", "") for place in range(20)])

    monkeypatch.setattr(balancing, "missing", lambda name: [])
    monkeypatch.setattr(balancing, "_start", lambda *_: None)
    monkeypatch.setattr(balancing, "_round", measured)
    monkeypatch.setattr(balancing, "BUILDS", dict.fromkeys(balancing.TITLES, lambda folder: []))
    monkeypatch.setenv(form.SECONDS_VARIABLE, "0")
    monkeypatch.setattr(sys, "argv", ["benchmarks.balancing"])
    assert balancing.main() == 0
    shown = capsys.readouterr().out
    assert "Go: 0 of 60 calls failed" in shown and "Go is not measured" not in shown
    for name in ("Java", "Python", "Node"):
        assert f"{name} is not measured: there was no time for it." in shown


def test_rounds_end_when_there_is_no_time_for_one_more_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(times: int, **options: Any) -> Results:
        def measure(_: argparse.Namespace) -> Results:
            values = []
            for one in form.rounds(times, **options):
                time.sleep(0.05)
                values.append(float(one))
            return Results([figure("T", "a", "", values)])

        file = {}
        monkeypatch.setattr(Path, "write_text", lambda path, text, *_: file.update(text=text))
        assert form.run(argparse.ArgumentParser("benchmarks.none"), measure, ["--json", "results.json"]) == 0
        return read_results(json.loads(file["text"]))

    assert measured(4).figures[0].runs == 4
    assert not measured(4).notes
    monkeypatch.setenv(form.SECONDS_VARIABLE, "0")
    run_once = measured(4)
    assert run_once.figures[0].runs == 1
    assert list(run_once.notes) == ["There was time for 1 of 4 rounds, warming up included."]
    assert measured(4, least=2).figures[0].runs == 2
