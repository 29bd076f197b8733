"""report.html as a parser sees it."""

from html.parser import HTMLParser
from typing import Any

from factories import Study
from undertow.report.report import render_report
from undertow.report.sections.samples import Sample

VOID = {"meta", "link", "img", "br", "hr", "input"}


# SVG elements that the parser reports as opened and closed at once.
CLOSED = {"line", "circle", "rect", "polygon", "polyline"}


class Page(HTMLParser):
    """Elements with their attributes and texts, and whether tags nest properly."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.broken: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.texts.setdefault(tag, []).append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.broken.append(tag)

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def render(study: Study, responses: list[Sample] | None = None, **how: Any) -> str:
    how = {"harmful": False, **how}
    return render_report(study.summary, study.on_disk, responses=responses, **how)
