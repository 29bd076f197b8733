"""report.html in a real browser: every chart is drawn, nothing overflows, the console is silent."""

import os
from pathlib import Path
from typing import Any

import pytest

from browser.chromium import CHROMIUM, Page, browser
from factories import make_params, make_study
from undertow.report.report import render_report

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH"),
]
# Marks and lines that carry data; an interval without width still has a stroke's length.
CHARTS = """[...document.querySelectorAll('svg.chart')].map(svg => {
  const frame = svg.getBoundingClientRect();
  const box = each => { const r = each.getBoundingClientRect();
    return {left: r.left, right: r.right, width: r.width, height: r.height}; };
  return {
    title: svg.querySelector('title').textContent,
    left: frame.left, right: frame.right, height: frame.height,
    marks: [...svg.querySelectorAll('.points_marks > path')].map(box),
    texts: [...svg.querySelectorAll('text')].map(box),
    undefined: [...svg.querySelectorAll('text')].filter(t => t.textContent === 'undefined').length,
    filled: [...svg.querySelectorAll('.points_marks > path')].every(
      mark => getComputedStyle(mark).stroke !== 'none' || getComputedStyle(mark).fill !== 'none'),
  };
})"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
CUT = """[...document.querySelectorAll('caption > *, figcaption, p, li, h2, h3, dd')]
  .filter(e => e.offsetParent !== null && e.getBoundingClientRect().width > 0)
  .filter(e => !e.closest('details:not([open])'))
  .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(e => e.textContent.slice(0, 60))"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic study's page; UNDERTOW_REPORT=file checks that one, the demo's for instance."""
    if given := os.environ.get("UNDERTOW_REPORT"):
        return Path(given).resolve()
    folder = tmp_path_factory.mktemp("report")
    arms = ["trait_0", "trait_0.5", "trait_1", "random_1"]
    study = make_study(folder / "study", make_params(arms=arms))
    page = render_report(study.summary, study.on_disk, responses=None, harmful=False)
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=[1280, 390])
def opened(request: pytest.FixtureRequest, report: Path, tmp_path_factory: Any) -> Any:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        page.size(request.param, 900)
        page.open(report.as_uri())
        # UNDERTOW_SHOTS=folder keeps pictures to look at.
        if folder := os.environ.get("UNDERTOW_SHOTS"):
            page.screenshot(Path(folder) / f"report-{request.param}.png", whole=True)
        yield page


def test_every_chart_has_marks_of_some_size_inside_the_viewport(opened: Page) -> None:
    charts = opened.evaluate(CHARTS)
    width = opened.evaluate("document.documentElement.clientWidth")
    assert len(charts) >= 6
    for chart in charts:
        assert chart["height"] > 100, chart["title"]
        # A real study may have a chart of which every value is undefined; it says so instead.
        drawn = chart["marks"] or ("UNDERTOW_REPORT" in os.environ and chart["undefined"])
        assert drawn, chart["title"]
        assert chart["filled"], chart["title"]
        for mark in chart["marks"]:
            assert mark["width"] > 2 and mark["height"] > 2, chart["title"]
            assert mark["left"] >= 0 and mark["right"] <= width, chart["title"]
        for text in chart["texts"]:
            assert text["left"] >= -1 and text["right"] <= width + 1, chart["title"]


def test_the_page_does_not_scroll_sideways(opened: Page) -> None:
    assert opened.evaluate(OVERFLOW) <= 0
    assert opened.evaluate(CUT) == []


def test_the_page_still_fits_with_everything_unfolded(opened: Page) -> None:
    opened.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    assert opened.evaluate(OVERFLOW) <= 0
    opened.evaluate("document.querySelectorAll('details').forEach(each => { each.open = false })")


def test_the_console_is_silent(opened: Page) -> None:
    opened.evaluate("1")
    assert opened.errors == []
