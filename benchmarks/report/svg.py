"""Plots as SVG, for a phone's width, in the colours of the reader's screen, light or dark.

Every bar and line is labelled where it is drawn, lines differ in their marks and dashes as well, and a reader that
speaks gets a title and a description. Nothing is drawn below 12 px at a width of 360.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.results import number

__all__ = ["WIDTH", "Bar", "bar_plot", "line_plot"]

WIDTH = 360
"""The width of every plot, in its own units."""
_EDGE = 16
_SMALL, _TEXT, _HEAD = 13, 14, 16
_CHARACTER = 0.56
"""The width of an average character, as a part of the font's size."""
_STYLE = """
:root{--card:#fff;--ink:#1b1f24;--soft:#57606a;--rule:#d0d7de;--c0:#0b5cad;--c1:#a33b00;--c2:#0a6b4d;--c3:#7a2c86}
@media (prefers-color-scheme:dark){:root{--card:#0d1117;--ink:#e6edf3;--soft:#9aa4af;--rule:#30363d;
--c0:#6cb2ff;--c1:#ffa463;--c2:#57d6a4;--c3:#dd9cee}}
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Liberation Sans',Arial,sans-serif;fill:var(--ink)}
.card{fill:var(--card);stroke:var(--rule)}.soft{fill:var(--soft)}.rule{stroke:var(--rule);fill:none}
.span{stroke:var(--ink);fill:none}
""" + "".join(f".f{place}{{fill:var(--c{place})}}.s{place}{{stroke:var(--c{place});fill:none}}" for place in range(4))
_DASHES = ("", "7 4", "2 4", "10 3 2 3")
_LABEL_STEP = 17
_PLOT_HEIGHT = 190
_LABEL_WIDTH = 120
_GRID_LINES = 4


@dataclass(frozen=True)
class Bar:
    """One bar: its label above it, its value behind it."""

    label: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    note: str = ""
    """Further words behind the value, such as a ratio."""


def bar_plot(title: str, subtitle: str, bars: Sequence[Bar]) -> str:
    """Returns a plot of bars that lie, one below another."""
    canvas = _Canvas(title, subtitle)
    words = [" ".join([f"{number(bar.value)} {bar.unit}".strip(), *filter(None, [bar.note])]) for bar in bars]
    widest = max(_width(text, _TEXT) for text in words)
    room = max(90.0, WIDTH - 2 * _EDGE - widest - 10)
    scale = room / (max(max(bar.value, bar.high or 0.0) for bar in bars) or 1.0)
    for bar, text in zip(bars, words, strict=True):
        for line in _wrapped(bar.label, WIDTH - 2 * _EDGE, _TEXT):
            canvas.text(line, _EDGE, canvas.take(17), _TEXT)
        top = canvas.take(20) - 15
        length = max(1.0, bar.value * scale)
        canvas.add(f'<rect class="f0" x="{_EDGE}" y="{top + 3:.1f}" width="{length:.1f}" height="12" rx="1.5"/>')
        end = length
        if bar.low is not None and bar.high is not None and bar.high > bar.low:
            start, end = bar.low * scale, max(length, bar.high * scale)
            path = f"M{_EDGE + start:.1f} {top + 9:.1f}H{_EDGE + bar.high * scale:.1f}"
            ticks = f"M{_EDGE + start:.1f} {top + 5:.1f}v8M{_EDGE + bar.high * scale:.1f} {top + 5:.1f}v8"
            canvas.add(f'<path class="span" stroke-width="1.2" d="{path}{ticks}"/>')
        canvas.text(text, _EDGE + end + 7, top + 13.5, _TEXT, bold=True)
        canvas.take(6)
    return canvas.finish(
        f"{subtitle} " + "; ".join(f"{bar.label}: {text}" for bar, text in zip(bars, words, strict=True))
    )


def line_plot(
    title: str, subtitle: str, across: str, unit: str, series: Mapping[str, Sequence[tuple[float, float]]]
) -> str:
    """Returns a plot of lines; their points stand at equal distances, in the order of their values.

    Args:
        title: The title.
        subtitle: A line below it.
        across: The name of the horizontal axis.
        unit: The unit of the values.
        series: The points of each line, by its name; four lines at most.

    Raises:
        ValueError: If there are more lines than can be told apart.
    """
    if len(series) > len(_DASHES):
        raise ValueError(f"{title!r} has {len(series)} lines; {len(_DASHES)} can be told apart")
    canvas = _Canvas(title, subtitle)
    places = sorted({at for points in series.values() for at, _ in points})
    steps = _steps(max(value for points in series.values() for _, value in points))
    canvas.take(14)
    top, left, right = canvas.height, _EDGE + 6.0, float(WIDTH - _EDGE - _LABEL_WIDTH)
    bottom = top + _PLOT_HEIGHT

    def x(at: float) -> float:
        return left + 4 + (right - left - 8) * (places.index(at) / max(1, len(places) - 1))

    def y(value: float) -> float:
        return bottom - (bottom - top) * value / steps[-1]

    for step in steps:
        canvas.add(f'<path class="rule" d="M{_EDGE} {y(step):.1f}H{right + 4:.1f}"/>')
    for at in places:
        canvas.text(number(at), x(at), bottom + 16, _SMALL, soft=True, anchor="middle")
    canvas.text(across, (left + right) / 2, bottom + 33, _SMALL, soft=True, anchor="middle")
    labels = []
    for place, (name, points) in enumerate(series.items()):
        ordered = sorted(points)
        path = "L".join(f"{x(at):.1f} {y(value):.1f}" for at, value in ordered)
        dash = f' stroke-dasharray="{_DASHES[place]}"' if _DASHES[place] else ""
        canvas.add(f'<path class="s{place}" stroke-width="2.2"{dash} d="M{path}"/>')
        for at, value in ordered:
            canvas.add(_mark(place, x(at), y(value)))
        labels.append((y(ordered[-1][1]), x(ordered[-1][0]), place, name))
    for step in steps[1:]:  # above the lines, on a ground of their own
        text = f"{number(step)} {unit}" if step == steps[-1] else number(step)
        canvas.add(
            f'<rect fill="var(--card)" opacity="0.8" x="{_EDGE - 1}" y="{y(step) - 14:.1f}" '
            f'width="{_width(text, _SMALL) + 3:.1f}" height="13"/>'
        )
        canvas.text(text, _EDGE, y(step) - 3.5, _SMALL, soft=True)
    _draw_labels(canvas, labels, right, top, bottom)
    canvas.take(_PLOT_HEIGHT + 40)
    return canvas.finish(
        f"{subtitle} " + "; ".join(_spoken(name, points, across, unit) for name, points in series.items())
    )


def _spoken(name: str, points: Sequence[tuple[float, float]], across: str, unit: str) -> str:
    values = ", ".join(f"{number(value)} {unit} at {number(at)}" for at, value in sorted(points))
    return f"{name}, by {across}: {values}"


def _draw_labels(
    canvas: _Canvas, labels: Sequence[tuple[float, float, int, str]], right: float, top: float, bottom: float
) -> None:
    """Writes each line's name at its end, moved apart where they would touch."""
    lines = [
        (end, across, place, _wrapped(name, _LABEL_WIDTH - 18, _TEXT)) for end, across, place, name in sorted(labels)
    ]
    floor = bottom - sum(len(words) * _LABEL_STEP for *_, words in lines)
    at = top - 10
    for end, across, place, words in lines:
        height = len(words) * _LABEL_STEP
        at = max(at, min(end - height / 2, floor + 10))
        middle = at + height / 2
        canvas.add(
            f'<path class="s{place}" stroke-width="1" d="M{across + 5:.1f} {end:.1f}L{right + 14:.1f} {middle:.1f}"/>'
        )
        for line in words:
            canvas.text(line, right + 18, at + 12, _TEXT)
            at += _LABEL_STEP
        floor += height
        at += 2


def _mark(place: int, x: float, y: float) -> str:
    if place == 0:
        return f'<circle class="f0" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    if place == 1:
        return f'<rect class="f1" x="{x - 3.8:.1f}" y="{y - 3.8:.1f}" width="7.6" height="7.6"/>'
    corners = [(0, -5), (4.6, 3.6), (-4.6, 3.6)] if place == 2 else [(0, -5.2), (5.2, 0), (0, 5.2), (-5.2, 0)]
    path = "L".join(f"{x + across:.1f} {y + down:.1f}" for across, down in corners)
    return f'<path class="f{place}" d="M{path}Z"/>'


def _steps(most: float) -> list[float]:
    """Returns round numbers from 0 to beyond the most, for the lines of a grid."""
    most = most if most > 0 else 1.0
    rough = most / _GRID_LINES
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough)
    return [step * place for place in range(math.ceil(most / step - 1e-9) + 1)]


def _width(text: str, size: int) -> float:
    return len(text) * size * _CHARACTER


def _wrapped(text: str, width: float, size: int) -> list[str]:
    return textwrap.wrap(text, max(8, int(width / (size * _CHARACTER))))


class _Canvas:
    """The parts of a plot, from its top to its bottom."""

    def __init__(self, title: str, subtitle: str) -> None:
        self._title = title
        self._parts: list[str] = []
        self.height = 12.0
        """The height that is taken so far."""
        for line in _wrapped(title, WIDTH - 2 * _EDGE, _HEAD):
            self.text(line, _EDGE, self.take(20), _HEAD, bold=True)
        for line in _wrapped(subtitle, WIDTH - 2 * _EDGE, _SMALL):
            self.text(line, _EDGE, self.take(16), _SMALL, soft=True)
        self.take(10)

    def take(self, height: float) -> float:
        """Takes some height; returns the base line of a text in it."""
        self.height += height
        return self.height - 4

    def add(self, part: str) -> None:
        """Adds a shape."""
        self._parts.append(part)

    def text(
        self, text: str, x: float, y: float, size: int, *, bold: bool = False, soft: bool = False, anchor: str = ""
    ) -> None:
        """Adds a text."""
        more = ' font-weight="600"' * bold + ' class="soft"' * soft + f' text-anchor="{anchor}"' * bool(anchor)
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}"{more}>{html.escape(text)}</text>')

    def finish(self, description: str) -> str:
        """Returns the plot."""
        height = self.height + 8
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="480" '
                'role="img" aria-labelledby="title description">',
                f'<title id="title">{html.escape(self._title)}</title>',
                f'<desc id="description">{html.escape(description.strip())}</desc>',
                f"<style>{_STYLE.strip()}</style>",
                f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="6"/>',
                *self._parts,
                "</svg>\n",
            ]
        )
