"""report.html in a real browser, as a person sees it: the answer first, and nothing is cut."""

import os
import re
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

UNFOLD = "document.querySelectorAll('details').forEach(each => { each.open = true })"
FOLD = "document.querySelectorAll('details').forEach(each => { each.open = false })"
FIRST_SCREEN = """(() => {
  const bottom = each => each.getBoundingClientRect().bottom;
  return {
    title: document.querySelector('h1').textContent,
    cards: [...document.querySelectorAll('.card')].map(card => ({
      sentence: card.querySelector('p').textContent.trim(),
      marks: [...card.querySelectorAll('.mark')].map(mark => mark.textContent.trim()),
      bottom: bottom(card)})),
    pictures: [...document.querySelectorAll('#answer svg.chart')]
      .filter(svg => bottom(svg) <= innerHeight)
      .map(svg => ({top: svg.getBoundingClientRect().top,
                    bands: svg.querySelectorAll('.null_marks > path').length})),
  };
})()"""
# Contrast ratios of WCAG 2.2 between the words of the first screen and what they stand on.
CONTRASTS = """(() => {
  const luminance = rgb => rgb.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = e => { const own = getComputedStyle(e).backgroundColor;
    return own === 'rgba(0, 0, 0, 0)' && e.parentElement ? ground(e.parentElement) : own; };
  const words = 'h1, .subtitle, .card h3, .card p, .mark, .verdicts .name, #answer svg text';
  return [...document.querySelectorAll(words)].map(e => {
    const style = getComputedStyle(e), ink = e.closest('svg') ? style.fill : style.color;
    const [a, b] = [luminance(ink), luminance(ground(e))].sort((x, y) => y - x);
    return [e.textContent.slice(0, 40), (a + 0.05) / (b + 0.05)];
  });
})()"""
TOO_WIDE = """[...document.querySelectorAll('table, svg.chart, pre')]
  .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(e => (e.querySelector('caption, title') ?? e).textContent.slice(0, 60))"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic study's page; UNDERTOW_REPORT=file checks that one, the demo's for instance."""
    if given := os.environ.get("UNDERTOW_REPORT"):
        return Path(given).resolve()
    folder = tmp_path_factory.mktemp("report")
    # Eight draws of the random direction: enough for a distribution behind the main picture.
    draws = {"random_arms": ["random_1"], "random_seeds": list(range(2, 8))}
    study = make_study(folder / "study", make_params(grid=draws))
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


@pytest.fixture(scope="module")
def laptop(report: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def wide(laptop: Page, report: Path) -> Page:
    """The page as it opens on a laptop."""
    laptop.call("Emulation.setEmulatedMedia", media="", features=[])
    laptop.size(1280, 800)
    laptop.open("about:blank")
    laptop.open(report.as_uri())
    return laptop


def test_the_first_screen_holds_the_answer_and_the_main_picture(wide: Page) -> None:
    seen = wide.evaluate(FIRST_SCREEN)
    assert seen["title"]
    assert len(seen["cards"]) >= 1
    for card in seen["cards"]:
        assert card["sentence"].endswith(".")
        # By either readout against control and random, then the carrier and the dose-response.
        assert len(card["marks"]) >= 4, card
        assert card["bottom"] < 800
    # A picture per model, whole and side by side.
    assert len(seen["pictures"]) >= len(seen["cards"])
    assert len({picture["top"] for picture in seen["pictures"]}) == 1
    if "UNDERTOW_REPORT" not in os.environ:
        assert all(picture["bands"] == 1 for picture in seen["pictures"])


def test_the_answer_s_tables_need_no_scrolling(wide: Page) -> None:
    wider = (
        "[...document.querySelectorAll('#numbers .scroll')]"
        ".map(each => each.scrollWidth - each.clientWidth)"
    )
    assert set(wide.evaluate(wider)) <= {0}


def test_a_mark_s_values_are_told_where_the_pointer_rests(wide: Page) -> None:
    told = wide.evaluate(
        "[...document.querySelectorAll('#answer .points_marks > path')]"
        ".map(mark => mark.querySelector('title')?.textContent ?? '')"
    )
    assert told and all(re.search(r"teacher .*\d.*student .*\d", text) for text in told)


def test_a_link_to_a_folded_section_opens_it(wide: Page) -> None:
    folded = "!document.querySelector('#controls > details').open"
    assert wide.evaluate(folded)
    wide.evaluate("document.querySelector('nav a[href=\"#controls-body\"]').click()")
    wide.wait_for(f"!({folded})", seconds=10)
    assert wide.evaluate("document.querySelector('#controls-body').offsetHeight") > 100


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground(wide: Page, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    wide.call("Emulation.setEmulatedMedia", media="", features=[feature])
    if folder := os.environ.get("UNDERTOW_SHOTS"):
        wide.screenshot(Path(folder) / f"report-first-{scheme}.png")
    lightness = wide.evaluate(CONTRASTS)
    assert len(lightness) >= 8
    for text, contrast in lightness:
        assert contrast >= 4.5, text  # WCAG 2.2, 1.4.3


def test_paper_shows_every_section_and_cuts_no_table(wide: Page) -> None:
    wide.call("Emulation.setEmulatedMedia", media="print", features=[])
    wide.size(673, 1000)  # A4 less its margins, in CSS pixels
    hidden = "[...document.querySelectorAll('section .body')].filter(e => !e.offsetHeight).length"
    assert wide.evaluate(hidden) == 0
    assert wide.evaluate(TOO_WIDE) == []


def test_every_chart_has_marks_of_some_size_inside_the_viewport(opened: Page) -> None:
    opened.evaluate(UNFOLD)
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
    opened.evaluate(FOLD)


def test_the_page_does_not_scroll_sideways(opened: Page) -> None:
    assert opened.evaluate(OVERFLOW) <= 0
    assert opened.evaluate(CUT) == []


def test_the_page_still_fits_with_everything_unfolded(opened: Page) -> None:
    opened.evaluate(UNFOLD)
    assert opened.evaluate(OVERFLOW) <= 0
    assert opened.evaluate(CUT) == []
    opened.evaluate(FOLD)


def test_the_console_is_silent(opened: Page) -> None:
    opened.evaluate("1")
    assert opened.errors == []
