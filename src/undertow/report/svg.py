"""Small accessible charts as inline SVG.

Colours, type and line widths are chart.css's (classes teacher, student, random, guide, axis), so
one picture serves light, dark and print. Every chart carries a title and a description in words.
Knows nothing about studies.
"""

import html
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from undertow.report.page import chart_style
from undertow.texts.untrusted import visible

WIDTH, HEIGHT = 440, 300
GAP = 24  # between the charts of a sheet
TOP, BOTTOM = 54, 46
HALF_MARK = 4.5
# Ticks closer than this would print over each other.
TICK_DISTANCE = 40

Style = Literal["teacher", "student", "random"]
Span = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """A linear axis; ticks are positions with what is written there.

    Only the x axis shows its title; what stands on the y axis is the chart's title.
    """

    title: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Mark:
    """A point with the intervals around it, in data units; text is its tooltip."""

    x: float
    y: float
    text: str
    label: str = ""
    across: Span | None = None
    up: Span | None = None


@dataclass(frozen=True)
class Series:
    """Marks of one kind; None breaks the line that joins them."""

    name: str
    style: Style
    marks: tuple[Mark | None, ...]
    joined: bool = False
    dots: bool = False  # small marks, for a line of many points


@dataclass(frozen=True)
class Guide:
    """A reference line through the whole plot, horizontal (y) or vertical (x)."""

    value: float
    along: Literal["x", "y"] = "y"


@dataclass(frozen=True)
class Ray:
    """A line from (x, y) to the right with a slope in data units, named where it ends."""

    x: float
    y: float
    slope: float
    text: str


@dataclass(frozen=True)
class Curve:
    """A fitted curve through points in data units, with the upright span of its threshold."""

    name: str
    points: tuple[tuple[float, float], ...]
    text: str
    threshold: float | None = None
    span: Span | None = None


@dataclass(frozen=True)
class Chart:
    title: str
    description: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    guides: tuple[Guide, ...] = ()
    left: int = 48
    right: int = 16
    height: int = HEIGHT
    # Positions on the x axis at which there is nothing to draw, each with the word for it.
    gaps: tuple[tuple[float, str], ...] = ()
    rays: tuple[Ray, ...] = ()
    curve: Curve | None = None


def nice_axis(title: str, values: Iterable[float], *, percent: bool = False) -> Axis:
    """An axis over all finite values whose ends are round numbers."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if low == high:
        low, high = low - 0.5, high + 0.5
    step = _round_step((high - low) / 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9) - (2 if percent else 0))
    ticks = tuple(
        (n * step, _tick(n * step * (100 if percent else 1), digits) + ("%" if percent else ""))
        for n in range(first, last + 1)
    )
    return Axis(title, first * step, last * step, ticks)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * n for n in (1, 2, 5, 10) if power * n >= rough * (1 - 1e-9))


def _tick(value: float, digits: int) -> str:
    return f"{value + 0.0:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def padded_axis(title: str, ticks: Sequence[tuple[float, str]]) -> Axis:
    """An axis with a tick at each position and some room beyond the outer ones."""
    low, high = min(x for x, _ in ticks), max(x for x, _ in ticks)
    room = 0.1 * (high - low) or 0.5
    return Axis(title, low - room, high + room, tuple(ticks))


def draw(chart: Chart, id: str) -> Markup:
    """The chart as an <svg> element; `id` must be unique on the page."""
    frame = _Frame(chart)
    names = f'role="img" aria-labelledby="{id}-title {id}-desc"'
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {chart.height}" {names}>',
        f'<title id="{id}-title">{escape(chart.title)}</title>',
        f'<desc id="{id}-desc">{escape(chart.description)}</desc>',
        _text(0, 14, chart.title, "heading"),
        _legend(chart),
        *_axes(chart, frame),
        *(_guide(guide, frame) for guide in chart.guides),
        *(_ray(ray, frame) for ray in chart.rays),
        *(_gap(x, word, frame) for x, word in chart.gaps),
    ]
    if chart.curve:
        parts += _curve(chart.curve, frame)
    for series in chart.series:
        parts += _series(series, frame)
    parts.append("</svg>")
    return Markup("\n".join(parts))


def sheet(panels: Sequence[Markup], across: int) -> str:
    """Drawn charts of the usual height in rows of `across`, as an SVG document of its own."""
    across = min(across, len(panels))
    rows = -(-len(panels) // across)
    wide, high = across * (WIDTH + GAP) + GAP, rows * (HEIGHT + GAP) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}">',
        f"<style>{chart_style()}</style>",
        f'<rect width="{wide}" height="{high}" fill="var(--ground)"/>',
    ]
    for number, panel in enumerate(panels):
        x, y = GAP + number % across * (WIDTH + GAP), GAP + number // across * (HEIGHT + GAP)
        place = f'<svg x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" '
        parts.append(str(panel).replace("<svg ", place, 1))  # Markup would escape it
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Frame:
    """The plot area and the way from data units to it."""

    def __init__(self, chart: Chart) -> None:
        self.x_axis, self.y_axis = chart.x, chart.y
        self.left, self.right = chart.left, WIDTH - chart.right
        self.top, self.bottom = TOP, chart.height - BOTTOM

    def x(self, value: float) -> float:
        share = (value - self.x_axis.low) / (self.x_axis.high - self.x_axis.low)
        return self.left + share * (self.right - self.left)

    def y(self, value: float) -> float:
        share = (value - self.y_axis.low) / (self.y_axis.high - self.y_axis.low)
        return self.bottom - share * (self.bottom - self.top)


def _legend(chart: Chart) -> str:
    parts, x = [], float(HALF_MARK)
    for series in chart.series:
        parts.append(f'<g class="{series.style}">{_shape(series.style, x, 31)}</g>')
        parts.append(_text(x + 10, 35, series.name, "legend"))
        x += 26 + 7.1 * len(series.name)
    if chart.curve:
        parts.append(f'<g class="fit">{_line(x - 6, 31, x + 10, 31, "curve")}</g>')
        parts.append(_text(x + 14, 35, chart.curve.name, "legend"))
    return "\n".join(parts)


def _axes(chart: Chart, frame: _Frame) -> list[str]:
    parts = []
    for value, label in chart.y.ticks:
        y = frame.y(value)
        parts.append(_line(frame.left, y, frame.right, y, "grid"))
        parts.append(_text(frame.left - 8, y + 4, label, "tick end"))
    last = -math.inf
    for value, label in chart.x.ticks:
        x = frame.x(value)
        parts.append(_line(x, frame.bottom, x, frame.bottom + 4, "axis"))
        if x - last >= TICK_DISTANCE:
            parts.append(_text(x, frame.bottom + 17, label, "tick middle"))
            last = x
    parts.append(_line(frame.left, frame.bottom, frame.right, frame.bottom, "axis"))
    middle = (frame.left + frame.right) / 2
    parts.append(_text(middle, chart.height - 6, chart.x.title, "legend middle"))
    return parts


def _guide(guide: Guide, frame: _Frame) -> str:
    if guide.along == "x":
        x = frame.x(guide.value)
        return _line(x, frame.top, x, frame.bottom, "guide")
    y = frame.y(guide.value)
    return _line(frame.left, y, frame.right, y, "guide")


def _ray(ray: Ray, frame: _Frame) -> str:
    """Drawn until it leaves the plot, to the right or at the top or bottom."""
    x, y = frame.x_axis.high, ray.y + ray.slope * (frame.x_axis.high - ray.x)
    if ray.slope and not frame.y_axis.low <= y <= frame.y_axis.high:
        y = frame.y_axis.high if y > frame.y_axis.high else frame.y_axis.low
        x = ray.x + (y - ray.y) / ray.slope
    line = _line(frame.x(ray.x), frame.y(ray.y), frame.x(x), frame.y(y), "guide")
    if x < frame.x_axis.high:
        return line + _text(frame.x(x), frame.y(y) - 4, ray.text, "note middle")
    return line + _text(frame.right + 4, frame.y(y) + 4, ray.text, "note")


def _gap(value: float, word: str, frame: _Frame) -> str:
    x, foot = frame.x(value), frame.bottom - 6
    return (
        f'{_line(x, frame.top, x, frame.bottom, "gap")}<text class="note" '
        f'transform="translate({x - 4:.1f} {foot:.1f}) rotate(-90)">{escape(word)}</text>'
    )


def _curve(curve: Curve, frame: _Frame) -> list[str]:
    """The curve over its threshold's interval, a shaded band, and the threshold itself."""
    parts = ['<g class="fit">', f"<title>{escape(curve.text)}</title>"]
    if curve.span:
        low, high = (min(max(end, frame.x_axis.low), frame.x_axis.high) for end in curve.span)
        left, right = sorted((frame.x(low), frame.x(high)))
        parts.append(
            f'<rect class="band" x="{left:.1f}" y="{frame.top}" width="{right - left:.1f}" '
            f'height="{frame.bottom - frame.top}"/>'
        )
    if curve.threshold is not None:
        x = frame.x(curve.threshold)
        parts.append(_line(x, frame.top, x, frame.bottom, "threshold"))
    points = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in curve.points)
    return [*parts, f'<polyline class="curve" points="{points}"/>', "</g>"]


def _series(series: Series, frame: _Frame) -> list[str]:
    parts = [f'<g class="{series.style}">']
    if series.joined:
        parts += [_path(run, frame) for run in _runs(series.marks) if len(run) > 1]
    for mark in series.marks:
        if mark is None:
            continue
        parts.append(f"<g><title>{escape(mark.text)}</title>")
        x, y = frame.x(mark.x), frame.y(mark.y)
        if mark.up:
            parts += _whisker(x, frame.y, mark.up, frame.y_axis, upright=True)
        if mark.across:
            parts += _whisker(y, frame.x, mark.across, frame.x_axis, upright=False)
        if mark.label:
            parts.append(_text(x - 7, y - 6, mark.label, "note end"))
        half = HALF_MARK / 2.5 if series.dots else HALF_MARK
        parts.append(f"{_shape(series.style, x, y, half)}</g>")
    return [*parts, "</g>"]


def _runs(marks: Sequence[Mark | None]) -> list[list[Mark]]:
    runs: list[list[Mark]] = [[]]
    for mark in marks:
        if mark is None:
            runs.append([])
        else:
            runs[-1].append(mark)
    return runs


def _path(run: list[Mark], frame: _Frame) -> str:
    points = " ".join(f"{frame.x(mark.x):.1f},{frame.y(mark.y):.1f}" for mark in run)
    return f'<polyline class="join" points="{points}"/>'


def _whisker(
    at: float, scale: Callable[[float], float], span: Span, axis: Axis, *, upright: bool
) -> list[str]:
    """An interval's bar: a cap at an end inside the plot, an arrowhead at one beyond it."""
    low, high = max(span[0], axis.low), min(span[1], axis.high)
    start, stop = scale(low), scale(high)

    def line(a: float, b: float, c: float, d: float) -> str:
        return _line(a, b, c, d, "bar") if upright else _line(b, a, d, c, "bar")

    parts = [line(at, start, at, stop)]
    for end, shown, place in ((span[0], low, start), (span[1], high, stop)):
        if end == shown:
            parts.append(line(at - 3, place, at + 3, place))
        else:
            back = place + math.copysign(5, start + stop - 2 * place)
            parts += [line(at, place, at - 3.5, back), line(at, place, at + 3.5, back)]
    return parts


def _shape(style: Style, x: float, y: float, h: float = HALF_MARK) -> str:
    if style == "student":
        return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="{h}"/>'
    if style == "teacher":
        corner = f'x="{x - h:.1f}" y="{y - h:.1f}"'
        return f'<rect class="mark" {corner} width="{2 * h}" height="{2 * h}"/>'
    d = h * 1.25
    corners = f"{x:.1f},{y - d:.1f} {x + d:.1f},{y:.1f} {x:.1f},{y + d:.1f} {x - d:.1f},{y:.1f}"
    return f'<polygon class="mark" points="{corners}"/>'


def escape(text: str) -> str:
    return html.escape(visible(text))


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
