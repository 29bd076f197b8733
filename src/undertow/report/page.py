"""The parts a report page is made of, and the one way from them to HTML.

A section is a title and a list of parts; the template knows how each kind of part looks. What
is new in a report is therefore a function that returns a Section, never a new template. Every
text is escaped and has its control characters made visible on the way out.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import ClassVar, Literal, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from undertow.texts.untrusted import visible

MINUS = re.compile(r"(?<![\w.\-])-(?=[\d\u221e])")


class Column(NamedTuple):
    title: str
    numeric: bool = True


@dataclass(frozen=True)
class Paragraph:
    kind: ClassVar = "paragraph"
    text: str
    lead: bool = False


@dataclass(frozen=True)
class Heading:
    kind: ClassVar = "heading"
    text: str


@dataclass(frozen=True)
class Items:
    """A list of remarks."""

    kind: ClassVar = "items"
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Definition:
    term: str
    formula: str
    text: str


@dataclass(frozen=True)
class Definitions:
    kind: ClassVar = "definitions"
    items: tuple[Definition, ...]


@dataclass(frozen=True)
class Table:
    """Rows of text; the first `headers` cells of a row name it."""

    kind: ClassVar = "table"
    caption: str
    columns: tuple[Column, ...]
    rows: Sequence[tuple[str, ...]]
    headers: int = 1


@dataclass(frozen=True)
class Download:
    """A file that travels inside the page."""

    name: str
    csv: str

    @property
    def href(self) -> str:
        return f"data:text/csv;charset=utf-8,{quote(self.csv, safe='')}"


@dataclass(frozen=True)
class Figure:
    """Charts side by side, what they show, and the numbers behind them."""

    kind: ClassVar = "figure"
    caption: str
    panels: tuple[Markup, ...]
    across: int
    data: Table
    download: Download
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Code:
    kind: ClassVar = "code"
    label: str
    text: str


@dataclass(frozen=True)
class Exchange:
    """A prompt and what was answered, each answer under a name with a verdict."""

    kind: ClassVar = "exchange"
    prompt: str
    answers: tuple[tuple[str, str, str], ...]  # who, verdict, text


@dataclass(frozen=True)
class Details:
    """Parts that are folded away on screen; `printed` ones stand open on paper."""

    kind: ClassVar = "details"
    summary: str
    parts: "tuple[Part, ...]"
    printed: bool = False


@dataclass(frozen=True)
class Mark:
    """A verdict in a few words: established, not established, or not to be had from this study."""

    text: str
    tone: Literal["yes", "no", "open"]


@dataclass(frozen=True)
class MarkRow:
    """Verdicts on one thing, under its name, and the number that stands beside them."""

    name: str
    marks: tuple[Mark, ...]
    number: str = ""


@dataclass(frozen=True)
class Card:
    """One model's answer."""

    title: str
    text: str
    rows: tuple[MarkRow, ...]


@dataclass(frozen=True)
class Cards:
    """Answers side by side, the first thing that is seen."""

    kind: ClassVar = "cards"
    items: tuple[Card, ...]


Part = (
    Paragraph | Heading | Items | Definitions | Table | Figure | Code | Exchange | Details | Cards
)


@dataclass(frozen=True)
class Section:
    """The first of a page is its first screen; the others are folded on screen unless `open`."""

    id: str
    title: str
    parts: tuple[Part, ...]
    open: bool = False


def typeset(text: str) -> str:
    """Our own numbers with a true minus and infinity sign; not for model text."""
    text = re.sub(r"\binf\b", "\N{INFINITY}", text).replace(" - ", " \N{MINUS SIGN} ")
    return MINUS.sub("\N{MINUS SIGN}", text)


def render_page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """One self-contained HTML page."""
    return _template().render(
        title=title, subtitle=subtitle, sections=sections, chart_style=Markup(chart_style())
    )


@cache
def chart_style() -> str:
    """The style sheet that charts are drawn with, on a page or on their own."""
    return files("undertow.report").joinpath("chart.css").read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters["typeset"] = typeset
    source = files("undertow.report").joinpath("template.html").read_text(encoding="utf-8")
    return environment.from_string(source)


def _finalize(value: object) -> object:
    """Applied by jinja2 to every value before it is escaped; Markup is finished already."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
