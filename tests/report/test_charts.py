"""What the report draws: every panel its own marks, and nothing that is not so."""

import re
from pathlib import Path

import altair as alt
import pytest

from drawings import Drawn, place
from factories import Study, make_params, make_study
from undertow.findings.numbers import READOUTS
from undertow.report.charts.layers import Bounds, Place, gaps, ink, intervals, levels, line, points
from undertow.report.charts.line import line_figure
from undertow.report.charts.picture import GROUND, RANDOM, TRAIT, Words, draw_picture, nice_domain
from undertow.report.charts.rates import dose_figure, scatter_figure
from undertow.report.charts.shifts import random_figure
from undertow.report.charts.tau import tau_figure
from undertow.stats.intervals import Estimate

ARMS = ("trait_0", "trait_0.25", "trait_0.5", "trait_1", "random_0.5", "random_1")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("study"), make_params(arms=ARMS))


def drawn(rows: list[dict[str, object]], id: str = "here") -> str:
    """All shared layers over rows from x = 0 to 4 in a picture from y = 0 to 10."""
    place = Place(
        alt.X("x:Q", scale=alt.Scale(domain=[-1, 5], nice=False)),
        alt.Y("y:Q", scale=alt.Scale(domain=[0, 10], nice=False)),
    )
    marks = ink((TRAIT, RANDOM), GROUND)
    layers = [
        levels((2, 8)),
        *gaps(place),
        line(place, marks, "datum.series === 'trait'", "joined"),
        *intervals(place, marks, "y", Bounds("0", "10")),
        points(place, marks),
    ]
    return str(draw_picture(layers, rows, Words("title", "description"), id))


def row(x: float, y: float | None = 5, **more: object) -> dict[str, object]:
    return {"x": x, "y": y, "y_low": 4, "y_high": 6, "series": "trait", "text": f"at {x}", **more}


def test_every_panel_of_tau_shows_its_own_arms_and_no_others(study: Study) -> None:
    panels = iter(tau_figure(study.summary).panels)
    seen = set()
    for readout in READOUTS:
        for model in study.summary.models:
            arms = study.summary.views[model].steered
            taus = {id(arm): arm.by(readout).tau for arm in arms}
            known = [arm for arm in arms if taus[id(arm)].value is not None]
            missing = [a for a in arms if a.direction == "trait" and taus[id(a)].value is None]
            panel = Drawn(str(next(panels)))
            count = panel.count("points", "bars_y", "gaps", "levels", "caps_y", "arrows_y")
            assert count["points"] == count["bars_y"] == len(known)
            assert count["caps_y"] + count["arrows_y"] == 2 * len(known)
            assert count["gaps"] == len(missing)
            assert panel.texts("note_gaps_marks") == ["undefined"] * len(missing)
            assert count["levels"] == 2
            told = [mark[0].text or "" for mark in panel.marks("points")]
            assert all(f"{taus[id(arm)].value:.2f}" in " ".join(told) for arm in known if arm)
            seen.add((count["points"], count["arrows_y"], count["gaps"]))
    assert len(seen) > 2, "panels that are all alike would pass with each other's marks"


def test_panels_of_rates_and_shifts_hold_a_mark_per_arm(study: Study) -> None:
    for panel in map(Drawn, map(str, dose_figure(study.summary).panels)):
        # Teacher and student of four trait arms, students of two random ones.
        assert panel.count("points", "bars_y", "fit") == {"points": 10, "bars_y": 10, "fit": 1}
        assert len(panel.marks("joined")) == 2
    for panel in map(Drawn, map(str, scatter_figure(study.summary).panels)):
        counted = panel.count("points", "bars_x", "bars_y", "rays", "note_labels")
        assert counted == {"points": 6, "bars_x": 6, "bars_y": 6, "rays": 4, "note_labels": 2}
    figure = random_figure(study.summary)
    assert figure is not None
    for panel in map(Drawn, map(str, figure.panels)):
        assert panel.count("points", "bars_x", "levels") == {"points": 4, "bars_x": 4, "levels": 1}
        assert "random 0.5" in panel.texts("role-axis-label")


def test_no_line_runs_through_an_undefined_point() -> None:
    whole = Drawn(drawn([row(x) for x in range(5)]))
    broken = Drawn(drawn([row(x, None if x == 2 else 5, gap="undefined") for x in range(5)]))
    assert len(whole.marks("joined")) == 1
    places = [place(point)[0] for point in whole.marks("points")]
    runs = [re.findall(r"[ML]([\d.]+),", path.get("d", "")) for path in broken.marks("joined")]
    found = sorted([float(x) for x in run] for run in runs)
    assert found == [pytest.approx(places[:2], abs=0.1), pytest.approx(places[3:], abs=0.1)]
    assert len(broken.marks("points")) == 4


def test_an_end_in_the_picture_has_a_cap_and_one_beyond_it_an_arrowhead() -> None:
    rows = [
        row(0),
        row(1, y_low=None),
        row(2, y_high=None),
        row(3, y_low=-3, y_high=12),
        row(4, y_low=0, y_high=10),
    ]
    panel = Drawn(drawn(rows))
    assert panel.count("bars_y", "caps_y", "arrows_y") == {
        "bars_y": 5,
        "caps_y": 2 + 1 + 1 + 0 + 2,
        "arrows_y": 4,
    }
    heights = {round(place(arrow)[1]) for arrow in panel.marks("arrows_y")}
    tops = [float(line.get("transform", "").split(",")[1][:-1]) for line in panel.marks("bars_y")]
    assert len(heights) == 2
    assert min(heights) == 0 and max(heights) == round(max(tops))
    turned = [a for a in panel.marks("arrows_y") if "rotate(180)" in a.get("transform", "")]
    assert len(turned) == 2


def test_a_reference_line_is_drawn_once_however_many_rows_there_are() -> None:
    for count in (1, 5):
        assert len(Drawn(drawn([row(x) for x in range(count)])).marks("levels")) == 2


def test_a_tick_is_the_strength_that_was_run(tmp_path: Path) -> None:
    arms = ("trait_0", "trait_0.05", "trait_0.25", "trait_0.125", "trait_-0.75", "trait_1.5")
    study = make_study(tmp_path, make_params(models=("smollm2-135m",), arms=arms))
    ticks = Drawn(str(dose_figure(study.summary).panels[0])).texts("role-axis-label")
    # Those that would print over each other are left out, none is rounded.
    shown = {"\N{MINUS SIGN}0.75", "0", "0.05", "0.125", "0.25", "1.5"}
    assert {"\N{MINUS SIGN}0.75", "0", "0.25", "1.5"} <= set(ticks)
    assert {tick for tick in ticks if "%" not in tick} <= shown


def test_the_same_chart_has_the_same_bytes_though_vega_counts_on(study: Study) -> None:
    first, again = (dose_figure(study.summary).panels for _ in range(2))
    assert first == again
    assert "clip-path" in str(first[0]), "else nothing is counted"
    ids = [re.findall(r'\bid="([^"]+)"', str(panel)) for panel in first]
    assert not set(ids[0]) & set(ids[1])
    for panel, names in zip(first, ids, strict=True):
        assert set(re.findall(r"url\(#([^)]+)\)", str(panel))) <= set(names)


def test_a_picture_has_no_colour_but_the_page_s_variables(study: Study) -> None:
    """Light, dark and print each set them; a fixed colour would vanish in one of them."""
    for figure in (tau_figure, dose_figure, scatter_figure, random_figure):
        for panel in figure(study.summary).panels:  # type: ignore[union-attr]
            colours = set(re.findall(r'(?:fill|stroke)="([^"]+)"', str(panel)))
            assert {c for c in colours if c != "none" and not c.startswith("var(--")} == set()
            assert "var(--student)" in colours and "var(--ground)" in colours
            assert "style=" not in str(panel)


def test_points_tell_their_values_and_the_description_holds_them_all() -> None:
    text = drawn([row(0, text="a <b> & \x1b"), row(1, text="second")])
    told = [mark[0].text for mark in Drawn(text).marks("points")]
    assert told == ["a <b> & ⟨U+001B⟩", "second"]


def test_a_legend_names_every_series_also_where_nothing_of_it_is_drawn() -> None:
    assert Drawn(drawn([row(0)])).texts("role-legend-label") == ["trait", "random control"]


def test_a_chart_of_nothing_is_still_a_chart() -> None:
    panel = Drawn(drawn([row(0, None)]))
    assert panel.count("points", "bars_y", "caps_y", "arrows_y") == dict.fromkeys(
        ("points", "bars_y", "caps_y", "arrows_y"), 0
    )
    assert panel.texts("role-axis-label")


@pytest.mark.parametrize(
    ("values", "domain"),
    [
        ((0.0, 1.0), (0, 1)),
        ((-0.8, 3.9), (-1, 4)),
        ((0.013, 0.2), (0, 0.2)),
        ((5.0,), (4.4, 5.6)),
        ((0.0, float("inf")), (-0.5, 0.5)),
        ((), (0, 1)),
    ],
)
def test_an_axis_ends_at_round_numbers_around_all_that_is_finite(
    values: tuple[float, ...], domain: tuple[float, float]
) -> None:
    found = nice_domain(values)
    assert found[0] <= min(domain[0], *found) and found == pytest.approx(domain, abs=0.2)


@pytest.mark.parametrize("tau", [0.5, 0.96, 0.999, 1.001, 1.06, 1.15, 1.5, -0.4])
def test_names_of_rays_that_end_close_to_each_other_stand_apart(study: Study, tau: float) -> None:
    lines = [
        line.model_copy(update={"tau": Estimate(tau, tau - 0.1, tau + 0.1)})
        for line in study.summary.lines
    ]
    figure = line_figure(study.summary.model_copy(update={"lines": tuple(lines)}))
    assert figure is not None
    for panel in map(Drawn, map(str, figure.panels)):
        right = panel.marks("note_rays_right")
        left = panel.marks("note_rays_left")
        assert len(right) + len(left) == 2
        if not left:  # both are written to the right of where they end
            (x, y), (other_x, other_y) = map(place, right)
            assert abs(x - other_x) > 45 or abs(y - other_y) > 9  # pixels; a name is 40 by 8


def test_what_is_drawn_has_a_line_of_its_own_under_the_title(study: Study) -> None:
    figure = line_figure(study.summary)
    assert figure is not None
    panel = Drawn(str(figure.panels[0]))
    assert panel.texts("role-title-subtitle") == ["student shift, nats"]
    title = next(iter(panel.root)).text
    assert title is not None
    assert title.endswith(": student shift, nats")


def test_many_random_draws_are_small_and_without_intervals_that_would_hide_each_other(study: Study):
    def panels(draws: int) -> list[Drawn]:
        """Their caption says so where intervals are left out."""
        lines = []
        for each in study.summary.lines:
            arms = [point for point in each.points if point.arm.startswith("trait")]
            one = arms[-1].model_copy(update={"arm": "random_1"})
            more = [one.model_copy(update={"seed": seed}) for seed in range(draws)]
            lines.append(each.model_copy(update={"points": (*arms, *more)}))
        figure = line_figure(study.summary.model_copy(update={"lines": tuple(lines)}))
        assert figure is not None
        assert ("without their intervals" in figure.caption) == (draws > 24)
        return [Drawn(str(panel)) for panel in figure.panels]

    for few, many in zip(panels(20), panels(40), strict=True):
        assert len(many.marks("points")) == len(few.marks("points")) + 20
        assert len(few.marks("bars_y")) == len(many.marks("bars_y")) + 20
        assert len(many.marks("bars_y")) == 3
        assert few.texts("role-legend") == ["traitrandom draw"]


def test_of_two_arms_in_one_place_one_is_named_above_and_one_below(study: Study):
    first = study.summary.lines[0]
    near = [p for p in first.points if p.arm in ("trait_0.25", "trait_0.5")]
    same = [near[0], near[0].model_copy(update={"arm": "trait_0.5"})]
    figure = line_figure(
        study.summary.model_copy(update={"lines": (first.model_copy(update={"points": same}),)})
    )
    assert figure is not None
    panel = Drawn(str(figure.panels[0]))
    [above], [below] = panel.marks("note_labels"), panel.marks("note_unders")
    assert {above.text, below.text} == {"0.25", "0.5"}
    assert place(above)[1] < place(below)[1]
    assert panel.texts("role-legend") == ["trait"]
