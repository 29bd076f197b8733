"""The report's sections on dose-response and controls: drawn, worded and downloadable."""

import re
from pathlib import Path

import pytest

from drawings import Drawn, place
from factories import Study, make_params, write_cell
from pages import Page, render
from studies import HINGE, LINE, counted, first, with_students
from undertow.analysis.summarise import summarise
from undertow.study.layout import Layout

RANDOM = ("random_-0.30",)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    params, grid = counted({"hinged": HINGE, "straight": LINE}, sign="-", extra_arms=RANDOM)
    layout = Layout(tmp_path_factory.mktemp("study"))
    for cell in params.cells():
        write_cell(layout, params, cell, loss_points=2)
    return Study(layout, params, grid, summarise(params, grid))


@pytest.fixture(scope="module")
def html(study: Study) -> str:
    return render(study)


def section(html: str, id: str) -> str:
    return html.split(f'<section id="{id}"')[1].split("</section>")[0]


def rows(part: str) -> list[list[str]]:
    page = Page(part)
    return [[cell for cell in row.split("\n") if cell] for row in page.texts["tr"]]


def test_the_page_with_both_sections_is_well_formed(html: str) -> None:
    page = Page(html)
    assert page.broken == [] and page.open == []


def test_each_model_s_sentence_is_its_verdict_s(study: Study, html: str) -> None:
    texts = [" ".join(text.split()) for text in Page(section(html, "dose")).texts["li"]]
    for dose in study.summary.doses:
        [text] = [
            text
            for text in texts
            if text.startswith(f"{dose.model}: Dose-response by {dose.x}: {dose.verdict}:")
        ]
        assert ("Threshold at" in text) == (dose.verdict == "threshold")


def test_the_fitted_curve_is_drawn_with_the_threshold_s_interval_where_there_is_one(
    study: Study, html: str
) -> None:
    pictures = re.findall(r"<svg.*?</svg>", section(html, "dose"), re.DOTALL)
    assert len(pictures) == 2
    for picture, model in zip(pictures, study.summary.models, strict=True):
        dose = study.summary.views[model].dose
        assert dose is not None
        drawn = Drawn(picture)
        [curve] = drawn.marks("fit")
        points = [tuple(map(float, pair.split(","))) for pair in curve.get("d", "")[1:].split("L")]
        assert len(points) == len(dose.curve)
        # Strengths are negative here: the curve goes up towards them, to the left.
        assert points[0][0] < points[-1][0]
        assert len({x for x, _ in points}) > 30 and len({y for _, y in points}) > 10
        bands = drawn.marks("band")
        assert len(bands) == (dose.verdict == "threshold")
        told = drawn.root[1].text or ""
        assert "Fitted:" in told and dose.verdict in told
        if bands:
            marks = [place(point)[0] for point in drawn.marks("points")]
            left, width = re.findall(r"M([\d.]+),[\d.]+h([\d.]+)", bands[0].get("d", ""))[0]
            assert min(marks) < float(left) < float(left) + float(width) < max(marks)
            assert float(width) > 2


def test_the_table_of_fits_holds_the_summary_s_weights(study: Study, html: str) -> None:
    found = rows(section(html, "dose"))
    for dose in study.summary.doses:
        weights = [f"{form.weight:.2f}" for form in dose.forms]
        assert any(row[0] == dose.model and set(weights) <= set(row) for row in found)


def test_there_is_a_row_per_trait_arm_and_readout_with_both_verdicts(
    study: Study, html: str
) -> None:
    part = section(html, "controls")
    found = [row for row in rows(part) if row[:2] == ["hinged", "trait_-0.30"]]
    shown = [row for row in found if len(row) == 7 and row[2] in {"margin", "pessimism rate"}]
    assert len(shown) == 2
    by_rate = next(row for row in shown if row[2] == "pessimism rate")
    assert by_rate[4] == by_rate[6] == "clear"
    assert "not simultaneous" in part
    assert "no random arm of this strength" in part
    assert "Every seed alone" in part


def test_opposite_signs_get_a_column_of_their_own(tmp_path: Path) -> None:
    params = make_params(
        models=("smollm2-135m",),
        arms=("trait_0", "trait_1", "trait_-1"),
        seeds=(0,),
        evaluation={"prompts": 100},
    )
    counts = {"trait_0": 30, "trait_1": 70, "trait_-1": 5}
    shown = {(c.model, c.arm.name, c.seed): first(counts[c.arm.name]) for c in params.cells()}
    grid = with_students(params, shown)
    for cell in params.cells():
        write_cell(Layout(tmp_path), params, cell, loss_points=2)
    part = section(
        render(Study(Layout(tmp_path), params, grid, summarise(params, grid))), "controls"
    )
    assert "moved the opposite way" in part


def test_a_demo_sized_study_says_undecided_and_draws_no_curve(tmp_path: Path) -> None:
    params = make_params(models=("smollm2-135m",), arms=("trait_0", "trait_1", "trait_2"))
    grid = {c: write_cell(Layout(tmp_path), params, c, loss_points=2) for c in params.cells()}
    html = render(Study(Layout(tmp_path), params, grid, summarise(params, grid)))
    part = section(html, "dose")
    assert "undecided" in part and "fewer than four different strengths" in part
    assert 'class="curve"' not in part
