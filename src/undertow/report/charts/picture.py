"""From layers to an accessible SVG, the same bytes every time.

Colours are the variables of chart.css and type is its too, so one picture serves light, dark and
print. A picture carries a title and a description in words, and every point its own. Knows
nothing about studies.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any
from xml.etree import ElementTree

import altair as alt
import vl_convert
from markupsafe import Markup

from undertow.report.charts.layers import Bounds, Series
from undertow.report.page import chart_style
from undertow.texts.untrusted import visible

WIDTH, HEIGHT = 440, 300
GAP = 24  # between the charts of a sheet
SVG = "{http://www.w3.org/2000/svg}"
VEGA_LITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
GROUND = "var(--ground)"

TEACHER = Series("teacher", "var(--teacher)", "square")
STUDENT = Series("student", "var(--student)", "circle")
RANDOM = Series("random control", "var(--random)", "diamond", hollow=True)
TRAIT = STUDENT._replace(name="trait")
CLOTHED = TEACHER._replace(name="teacher in other clothes")

MUTED, RULE = "var(--muted)", "var(--rule)"
# Sizes are chart.css's, for Vega to leave the room that they take.
CONFIG: dict[str, Any] = {
    "aria": True,
    "autosize": {"type": "fit", "contains": "padding"},
    "font": "DejaVu Sans",
    "view": {"stroke": None},
    "title": {
        "anchor": "start",
        "frame": "bounds",
        "fontSize": 13,
        "subtitleFontSize": 11.5,
        "subtitlePadding": 4,
        "offset": 29,
    },
    "legend": {
        "orient": "none",
        "legendY": -21,
        "direction": "horizontal",
        "labelFontSize": 11.5,
        "symbolSize": 80,
        "symbolStrokeWidth": 1.4,
        "symbolOpacity": 1,
        "columnPadding": 24,
        "labelOffset": 6,
        "labelLimit": 0,
    },
    "axis": {
        "labelFontSize": 11.5,
        "titleFontSize": 11.5,
        "titleFontWeight": "normal",
        "titlePadding": 12,
        "labelPadding": 8,
        "labelLimit": 0,
        "labelFlush": False,
        "gridColor": RULE,
        "tickColor": MUTED,
        "domainColor": MUTED,
    },
    "axisX": {"grid": False, "tickSize": 4, "labelPadding": 4},
    "axisY": {"ticks": False, "domain": False, "gridOpacity": 0.55},
    "style": {
        "guide": {"color": MUTED, "strokeDash": [5, 3]},
        "gap": {"color": MUTED, "strokeDash": [1, 4]},
        "note": {"fontSize": 10.5},
        "fit": {"color": "var(--ink)", "strokeWidth": 1.6, "strokeDash": [7, 3]},
        "threshold": {"color": "var(--ink)", "strokeWidth": 1.2},
        "band": {"color": MUTED, "opacity": 0.2},
    },
}
# Vega's own; what a reader is told is in title, desc and the points' titles.
NOISE = ("role", "aria-roledescription", "aria-label", "aria-hidden", "pointer-events")
TYPE = ("font-family", "font-size", "font-weight", "fill")
CLIP = re.compile(r"\bclip\d+\b")
LONG = re.compile(r"-?\d+\.\d{3,}")
GEOMETRY = ("d", "transform", "x", "y", "x2", "y2", "width", "height")


@dataclass(frozen=True)
class Words:
    """What a picture says to those who do not see it; title and `shows` are also printed."""

    title: str
    description: str
    shows: str = ""  # what is drawn, with its unit, on a line of its own: titles hold any name

    @property
    def whole_title(self) -> str:
        return f"{self.title}: {self.shows}" if self.shows else self.title


def draw_picture(
    layers: Sequence[alt.Chart],
    rows: Iterable[dict[str, Any]],
    words: Words,
    id: str,
    *,
    height: int = HEIGHT,
    left: int = 40,
    right: int = 16,
) -> Markup:
    """The layers over the rows as an <svg> element; `id` must be unique on the page.

    left, right: room beside the plot, in pixels: for the y axis, and for words that stand there.
    """
    values = [
        {key: visible(value) if isinstance(value, str) else value for key, value in row.items()}
        for row in rows
    ]
    chart = alt.layer(*layers).properties(
        data=alt.InlineData(values=[]),  # else every layer gets empty data of its own
        title=_printed(words),
        width=WIDTH,
        height=height,
        padding={"left": 2, "top": 2, "bottom": 2, "right": right},
    )
    spec = chart.to_dict(validate=False)  # tests validate; it costs as much as the drawing
    spec.pop("datasets", None)
    spec["data"] = {"values": values}
    spec["config"] = CONFIG | {
        "axisY": CONFIG["axisY"] | {"minExtent": left},
        "legend": CONFIG["legend"] | {"legendX": -left},
    }
    drawn = ElementTree.fromstring(vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE))
    return Markup(_accessible(drawn, words, id, height))


def _printed(words: Words) -> str | alt.TitleParams:
    if not words.shows:
        return visible(words.title)
    return alt.TitleParams(visible(words.title), subtitle=visible(words.shows))


def _accessible(drawn: ElementTree.Element, words: Words, id: str, height: int) -> str:
    _prune(drawn)
    for group in drawn.iter(f"{SVG}g"):
        tell = "points_marks" in group.get("class", "").split()
        for mark in group:
            label = mark.get("aria-label")
            if tell and label:
                mark.append(_element("title", label))
    for element in drawn.iter():
        for name in (*NOISE, *(TYPE if element.tag == f"{SVG}text" else ())):
            element.attrib.pop(name, None)
        for name in GEOMETRY:
            if name in element.attrib:
                element.set(name, LONG.sub(_rounded, element.attrib[name]))
    root = _element("svg", None)
    root.attrib = {
        "class": "chart",
        "viewBox": f"0 0 {WIDTH} {height}",
        "role": "img",
        "aria-labelledby": f"{id}-title {id}-desc",
    }
    root.append(_element("title", words.whole_title, id=f"{id}-title"))
    root.append(_element("desc", words.description, id=f"{id}-desc"))
    root.extend(list(drawn))
    ElementTree.register_namespace("", SVG[1:-1])
    return _renumbered(ElementTree.tostring(root, encoding="unicode"), id)


def _prune(element: ElementTree.Element) -> None:
    """Take out the grounds and frames, which have no colour, and what is empty."""
    for child in list(element):
        _prune(child)
        frame = child.get("class") in ("background", "foreground")
        ground = child.tag == f"{SVG}rect" and child.get("fill") == "white"
        empty = child.tag in (f"{SVG}g", f"{SVG}defs") and not len(child)
        if frame or ground or empty:
            element.remove(child)


def _element(tag: str, text: str | None, **attributes: str) -> ElementTree.Element:
    element = ElementTree.Element(f"{SVG}{tag}", attributes)
    element.text = None if text is None else visible(text)
    return element


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]) + 0.0:.2f}".rstrip("0").rstrip(".")


def _renumbered(svg: str, id: str) -> str:
    """Clip paths under names of this picture: Vega counts them on from render to render."""
    names: dict[str, str] = {}
    number = count()

    def renamed(name: re.Match[str]) -> str:
        if name[0] not in names:
            names[name[0]] = f"{id}-clip{next(number)}"
        return names[name[0]]

    parts = re.split(r"(<[^>]*>)", svg)
    parts[1::2] = [CLIP.sub(renamed, tag) if "clip" in tag else tag for tag in parts[1::2]]
    return "".join(parts)


def sheet(panels: Sequence[Markup], across: int, height: int = HEIGHT) -> str:
    """Drawn charts of one height in rows of `across`, as an SVG document of its own."""
    across = min(across, len(panels))
    rows = -(-len(panels) // across)
    wide, high = across * (WIDTH + GAP) + GAP, rows * (height + GAP) + GAP
    parts = [
        f'<svg xmlns="{SVG[1:-1]}" viewBox="0 0 {wide} {high}" width="{wide}">',
        f"<style>{chart_style()}</style>",
        f'<rect width="{wide}" height="{high}" fill="{GROUND}"/>',
    ]
    for number, panel in enumerate(panels):
        x, y = GAP + number % across * (WIDTH + GAP), GAP + number // across * (height + GAP)
        place = f'<svg x="{x}" y="{y}" width="{WIDTH}" height="{height}" '
        parts.append(str(panel).replace("<svg ", place, 1))  # Markup would escape it
    return "\n".join([*parts, "</svg>"]) + "\n"


def nice_domain(values: Iterable[float]) -> tuple[float, float]:
    """Round numbers around all finite values, for panels to share an axis."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if low == high:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough * (1 - 1e-9))
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def scale_of(domain: tuple[float, float]) -> alt.Scale:
    return alt.Scale(domain=list(domain), nice=False, zero=False)


def bounds_of(domain: tuple[float, float]) -> Bounds:
    return Bounds(*map(repr, domain))
