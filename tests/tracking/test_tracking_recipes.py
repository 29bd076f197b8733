"""Runs of defences and rounds, which can be compared side by side and rebuilt from files."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from mlflow.entities import Run

from factories import Study, make_params, make_study
from undertow.analysis.conclude import conclude
from undertow.analysis.headline import headline
from undertow.config import Params
from undertow.study.layout import Layout
from undertow.tracking import SyncReport, sync
from undertow.tracking.content import contents
from undertow.tracking.recipes import recipe_tags
from undertow.tracking.store import open_store
from undertow.tracking.views import views

MODEL = "smollm2-135m"
RECIPES = {
    "kl": {"kl": {"weight": 1.0}},
    "kl_placebo": {"placebo_of": "kl", "kl": {"weight": 2.0}},
    "early": {"epochs": 1, "learning_rate": 1e-4},
    "round_2": {},
    "round_3": {},
}
GRID = {
    "students": ["plain", "kl", "kl_placebo", "early"],
    "rounds": [
        {"student": "round_2", "after": "plain"},
        {"student": "round_3", "after": "round_2"},
    ],
    "control_seeds": [5],
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Study:
    return study_at(tmp_path_factory.mktemp("study"), empty_database)


def study_at(root: Path, empty_database: Path) -> Study:
    (root / "mlruns").mkdir()
    shutil.copy(empty_database, root / "mlruns" / "mlflow.db")
    return make_study(root, params())


@pytest.fixture(scope="module", autouse=True)
def _own_store() -> None:
    patch = pytest.MonkeyPatch()
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    patch.delenv("DVC_ROOT", raising=False)


def params() -> Params:
    return make_params(models=(MODEL,), arms=("trait_0", "trait_1"), recipes=RECIPES, grid=GRID)


def synced(study: Study) -> SyncReport:
    grid, summary = conclude(study.on_disk)
    return sync(study.on_disk, summary, grid)


def runs(study: Study, query: str) -> list[Run]:
    store = open_store(study.on_disk)
    return list(store.client.search_runs([store.experiment_id], query))


def test_every_recipe_and_chain_has_a_run_with_its_tags_once(
    study: Study,
):
    report = synced(study)
    kinds = Counter(run.data.tags["kind"] for run in runs(study, ""))
    # 3 recipes with 2 seeds and 3 of the control, and 2 rounds with 2 of both.
    assert kinds["student"] == 3 * 5 + 2 * 4
    assert (kinds["recipe"], kinds["rounds"]) == (3, 1)
    assert report.created == sum(kinds.values())
    (placebo,) = runs(study, "tags.kind = 'recipe' and tags.recipe = 'kl_placebo'")
    tags = placebo.data.tags
    assert (tags["placebo_of"], tags["defence"], tags["round"]) == ("kl", "kl", "1")
    (cell, _) = runs(
        study,
        "tags.recipe = 'round_3' and tags.arm = 'trait_1' and tags.kind = 'student'",
    )
    assert cell.data.tags["round"] == "3"
    assert "tau_margin" in cell.data.metrics
    assert synced(study).unchanged == report.created


def test_a_store_elsewhere_is_built_from_the_same_files(
    study: Study, empty_database: Path, tmp_path: Path
):
    ignore = shutil.ignore_patterns("mlruns")
    shutil.copytree(study.layout.root, tmp_path / "study", ignore=ignore)
    (tmp_path / "study" / "mlruns").mkdir()
    shutil.copy(empty_database, tmp_path / "study" / "mlruns" / "mlflow.db")
    moved = study._replace(layout=Layout(tmp_path / "study"))
    synced(moved)

    def shown(of: Study) -> list[tuple[str, dict[str, float]]]:
        found = [run for kind in ("recipe", "rounds") for run in runs(of, f"tags.kind = '{kind}'")]
        return sorted((str(run.info.run_name), dict(run.data.metrics)) for run in found)

    assert len(shown(moved)) == 4
    assert shown(moved) == shown(study)


def test_a_recipe_shows_what_it_removes_at_the_largest_strength(study: Study):
    grid, summary = conclude(study.on_disk)
    wanted = contents(study.on_disk, summary, grid)
    run = next(each for each in wanted if each.name == f"{MODEL} early")
    at = {(point.name, point.step): point.value for point in run.points}
    defence = next(d for d in summary.defences if (d.student, d.arm) == ("early", "trait_1"))
    assert at["removed_margin", 100] == defence.margin.removed[0].value
    assert at["removed_margin_low", 100] == defence.margin.removed[1].low
    assert run.tags["defence"] == "epochs, learning_rate"


def test_a_chain_shows_tau_by_round_and_its_step_ratio(study: Study):
    grid, summary = conclude(study.on_disk)
    wanted = contents(study.on_disk, summary, grid)
    run = next(each for each in wanted if each.name == f"{MODEL} rounds to round_3 trait_1")
    chain = next(each for each in summary.rounds if each.arm == "trait_1")
    at = {(point.name, point.step): point.value for point in run.points}
    assert [at["tau_margin", each.round] for each in chain.rounds] == [
        each.margin.tau.value for each in chain.rounds
    ]
    assert at["step_ratio_margin", 0] == chain.margin_step.value
    cells = [e for e in wanted if e.name.startswith(f"{MODEL} round_2 trait_1")]
    found = [p.value for e in cells for p in e.points if p.name == "tau_margin"]
    assert sum(found) / len(found) == pytest.approx(chain.rounds[1].margin.tau.value, abs=0.02)


def test_the_headline_has_what_recipes_remove_and_the_steps_of_chains(study: Study):
    summary = conclude(study.on_disk).summary
    found = headline(summary)[MODEL]
    defence = next(d for d in summary.defences if (d.student, d.arm) == ("kl", "trait_1"))
    assert found["recipe kl"] == {
        "removed": defence.rate.removed[0].value,
        "removed_margin": defence.margin.removed[0].value,
    }
    chain = next(each for each in summary.rounds if each.arm == "trait_1")
    assert found["rounds to round_3"]["step_ratio_margin"] == chain.margin_step.value
    assert "recipe round_3" not in found


def test_the_view_of_recipes_asks_for_metrics_that_are_logged(study: Study):
    grid, summary = conclude(study.on_disk)
    wanted = [e for e in contents(study.on_disk, summary, grid) if e.tags["kind"] == "recipe"]
    # What was learned is not measured in this study; defence_of names it where it is.
    logged = {point.name for each in wanted for point in each.points} | {"learned"}
    view = next(each for each in views() if each.id == "undertow-recipes")
    for chart in view.state["compareRunCharts"]:
        asked = chart.get("selectedMetrics", [])
        asked += [chart[axis]["key"] for axis in ("xaxis", "yaxis") if axis in chart]
        assert set(asked) <= logged
        assert set(chart.get("selectedParams", [])) <= wanted[0].params.keys()


def test_a_recipe_that_changes_nothing_has_no_defence():
    assert recipe_tags(params(), "round_2") == {"recipe": "round_2", "round": "2"}
