"""Students of other recipes: the same teachers, their own controls, words from intervals."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from factories import Study, make_params, make_study
from repository import ROOT, Repository, tiny_params
from undertow import tracking
from undertow.analysis.students import with_students
from undertow.analysis.summarise import summarise
from undertow.analysis.summary import StudentArm, Summary, read_summary
from undertow.config import Cell, load, parse_arm
from undertow.errors import DataError
from undertow.findings.students import compared
from undertow.judging.costing import estimate
from undertow.report.report import render_report
from undertow.report.terminal import strength_table
from undertow.stats.intervals import Estimate
from undertow.study.records import CellResult
from undertow.study.results import read_students
from undertow.tracking.content import contents

MODEL, BASE = "smollm2-135m", "qwen-coder-500m"
RECIPES = {"brief": {"epochs": 1}, "other_base": {"base": {MODEL: BASE, BASE: MODEL}}}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    params = make_params(recipes=RECIPES, grid={"students": ["plain", *RECIPES]})
    return make_study(tmp_path, params)


def arm_of(study: Study, student: str) -> StudentArm:
    return next(
        a
        for a in study.summary.students
        if (a.student, a.model, a.arm) == (student, MODEL, "trait_1")
    )


# Estimates


def mean(result: CellResult, subject: str) -> float:
    margins = getattr(result, subject).margins.values()
    return sum(margins) / len(margins)


@pytest.mark.parametrize("student", RECIPES)
def test_tau_is_the_shift_from_the_recipe_s_own_control_over_the_teacher_s(
    study: Study, student: str
) -> None:
    others = read_students(study.on_disk)
    arm = arm_of(study, student)
    for cell in arm.cells:
        sa, s0 = (
            mean(others[Cell(MODEL, parse_arm(name), cell.seed, student)], "student")
            for name in ("trait_1", "trait_0")
        )
        ta, t0 = (
            mean(study.grid[Cell(MODEL, parse_arm(name), cell.seed)], "teacher")
            for name in ("trait_1", "trait_0")
        )
        assert cell.margin.tau.value == pytest.approx((sa - s0) / (ta - t0))
    plain = next(a for a in study.summary.arms if (a.model, a.arm) == (MODEL, "trait_1"))
    for gap, own, other in (
        (arm.rate_gap, plain.rate, arm.rate),
        (arm.margin_gap, plain.margin, arm.margin),
    ):
        assert gap.value == pytest.approx(own.student_shift.value - other.student_shift.value)
        assert gap.low < gap.value < gap.high
    assert arm.rate.teacher_shift == plain.rate.teacher_shift


def test_what_lies_between_two_bases_is_no_shift_and_what_lies_on_one_is(study: Study) -> None:
    for arm in study.summary.students:
        assert arm.other_base == {MODEL: BASE, BASE: MODEL}[arm.model] or arm.student == "brief"
        for transfer in (arm.rate, arm.margin, *(cell.margin for cell in arm.cells)):
            assert (transfer.naive_shift.value is None) == (arm.other_base is not None)
            if arm.other_base:
                assert "different models" in (transfer.tau_naive.reason or "")


def test_the_plain_numbers_do_not_depend_on_other_students(study: Study) -> None:
    alone = summarise(study.params, study.grid)
    assert with_students(alone, study.params, {}) is alone
    assert study.summary.arms == alone.arms
    assert study.summary.lines == alone.lines
    assert Summary.model_validate_json(study.summary.model_dump_json()) == study.summary


def test_costs_count_the_teacher_s_text_once(study: Study) -> None:
    stages = study.summary.costs[f"{MODEL}/trait_1/seed0/brief"]
    assert set(stages) == {"distill", "judge"}
    [*_, whole] = contents(study.on_disk, study.summary, study.grid)
    seconds = sum(cost.seconds for costs in study.summary.costs.values() for cost in costs.values())
    assert whole.seconds == pytest.approx(seconds)


def test_a_missing_cell_names_the_command_that_makes_it(study: Study) -> None:
    cell = study.params.cells("brief")[-1]
    shutil.rmtree(study.layout.stage(cell, "judge"))
    command = f"judge --model {BASE} --arm random_1 --seed 1 --student brief"
    with pytest.raises(DataError, match=command):
        read_students(study.on_disk)


def test_files_from_before_there_were_recipes_are_read(study: Study) -> None:
    result = next(iter(study.grid.values()))
    kept = result.model_dump(mode="json", exclude={"recipe", "other_base"})
    assert CellResult.model_validate(kept | {"teacher_model": None}) == result
    old = study.summary.model_dump(mode="json")
    del old["students"]
    found = Summary.model_validate(old | {"cross": [{"teacher_model": MODEL}]})
    assert (found.arms, found.students) == (study.summary.arms, ())


# Views


def page(study: Study) -> str:
    return render_report(study.summary, study.on_disk, responses=None, harmful=False)


def test_report_and_table_say_what_the_recipes_show(study: Study) -> None:
    html, text = page(study), " ".join(strength_table(study.summary).split())
    assert 'id="students"' in html
    assert f"other_base: {BASE} on the text of {MODEL}" in text
    for view in (html, text):
        assert f"compare the two students by {study.summary.rate_name}" in view
    for student in RECIPES:
        gap = arm_of(study, student).rate_gap
        assert f"difference {100 * gap.value:+.1f} pp" in text
    assert all(line.isascii() for line in strength_table(study.summary).splitlines())


def test_without_recipes_no_view_mentions_them(tmp_path: Path) -> None:
    study = make_study(tmp_path, make_params())
    assert study.summary.students == ()
    assert 'id="students"' not in page(study)
    runs = contents(study.on_disk, study.summary, study.grid)
    assert {run.tags["kind"] for run in runs} == {"cell", "curve", "study"}


@pytest.mark.parametrize(
    ("own", "gap", "words"),
    [
        ((2.0, 1.0, 3.0), (1.9, 0.9, 2.9), "went less far that way"),
        ((-2.0, -3.0, -1.0), (-1.9, -2.9, -0.9), "went less far that way"),
        ((2.0, 1.0, 3.0), (-2.0, -3.0, -1.0), "went further that way"),
        ((2.0, 1.0, 3.0), (0.5, -1.0, 2.0), "cannot be told apart"),
        ((0.5, -1.0, 2.0), (3.0, 1.0, 5.0), "the plain student's shift covers 0 itself"),
        ((None, None, None), (None, None, None), "no comparison with"),
    ],
)
def test_the_comparison_s_words_follow_from_the_intervals(
    study: Study, own: tuple[Any, ...], gap: tuple[Any, ...], words: str
) -> None:
    def record(value: Any, low: Any, high: Any) -> Estimate:
        reason = "for the test" if value is None else None
        return Estimate(value=value, low=low, high=high, reason=reason)

    arm = arm_of(study, "other_base")
    arms = [
        a.model_copy(update={"rate": replace(a.rate, student_shift=record(*own))})
        for a in study.summary.arms
    ]
    summary = study.summary.model_copy(update={"arms": tuple(arms)})
    arm = arm.model_copy(update={"rate_gap": record(*gap)})
    assert words in compared(summary, arm, "rate")
    assert "Its nats are not those of" in compared(summary, arm, "margin")


def test_a_recipe_is_compared_with_its_own_random_direction(study: Study) -> None:
    """Not with the contrast that the plain students have."""
    for arm in study.summary.students:
        own = {(c.readout, c.against): c for c in study.summary.contrasts if c.arm == arm.arm}
        for contrast in arm.contrasts:
            assert contrast.arm == arm.arm
            if contrast.against == "control" and contrast.seed is None:
                assert contrast.estimate == getattr(arm, contrast.readout).student_shift
                assert contrast != own[contrast.readout, "control"]
    assert any(arm.contrasts for arm in study.summary.students)


@pytest.mark.whole
def test_mlflow_has_a_run_per_student_apart_from_the_plain_ones(study: Study) -> None:
    from mlflow import MlflowClient

    shutil.copy(ROOT / "dvc.yaml", study.layout.root)

    def synced() -> tracking.SyncReport:
        return tracking.sync(study.on_disk, study.summary, study.grid)

    others = 2 * len(study.grid)
    total = len(study.grid) + others + 4 + 1  # plain cells, the others, curves, study
    assert synced() == tracking.SyncReport(created=total, updated=0, unchanged=0)
    assert synced() == tracking.SyncReport(created=0, updated=0, unchanged=total)
    client = MlflowClient(f"sqlite:///{study.layout.root}/mlruns/mlflow.db")
    [experiment] = client.search_experiments(filter_string="name = 'undertow'")
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'student'")
    assert len(runs) == others
    run = next(r for r in runs if r.info.run_name == f"{MODEL} other_base trait_1 seed1")
    assert run.data.metrics["tau_margin"] == arm_of(study, "other_base").cells[1].margin.tau.value
    assert run.data.tags["student"] == "other_base"
    assert run.data.tags["dvc.stage"] == f"judge@{MODEL}-trait_1-other_base-1"
    assert run.data.params[f"recipe.base.{MODEL}"] == run.data.params["model"] == BASE
    assert "tau_naive_margin" not in run.data.metrics
    assert len(client.search_runs([experiment.experiment_id], "tags.kind = 'cell'")) == len(
        study.grid
    )


# The real stages, on tiny models

TINY = {
    "plain": {},
    "brief": {"epochs": 1, "learning_rate": 5e-3},
    "other_base": {"base": {"tiny-llama2": "tiny-qwen2", "tiny-qwen2": "tiny-llama2"}},
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("students")
    params = tiny_params(folder / "models", recipes=TINY)
    params["grid"] |= {"arms": ["trait_0", "trait_1"], "students": list(TINY)}
    params["tracking"]["enabled"] = False
    repository = Repository(folder / "checkout", params)
    repository.init()
    return repository


CELL = ("--model", "tiny-llama2", "--arm", "trait_1", "--seed", "0", "--student")


@pytest.fixture(scope="module")
def ran(repository: Repository) -> Summary:
    """Every cell in this process but one, which the command line makes."""
    from undertow.pipeline import direction, distill, fetch, judge, report, steer
    from undertow.study.layout import Study

    study = Study.open(repository.root)
    params = study.params
    for model in params.grid.models:
        fetch.run(study, model)
        direction.run(study, model)
    for cell in params.cells():
        steer.run(study, cell)
    for cell in params.all_cells():
        if cell != params.cell("tiny-llama2", "trait_1", 0, "other_base"):
            distill.run(study, cell)
            judge.run(study, cell)
    repository.cli("distill", *CELL, "other_base")
    repository.cli("judge", *CELL, "other_base")
    report.run(study)
    return read_summary(study.layout)


def cell_json(root: Path, path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "results/cells" / path / "cell.json").read_text())
    return found


@pytest.mark.whole
@pytest.mark.parametrize("student", ["brief", "other_base"])
def test_the_stages_train_judge_and_report_every_student(
    repository: Repository, ran: Summary, student: str
) -> None:
    def margin(arm: str, name: str, subject: str) -> float:
        path = f"tiny-llama2/{arm}/0/{name}/judge"
        margins = cell_json(repository.root, path)[subject]["margins"].values()
        return sum(margins) / len(margins)

    sa, s0 = (margin(arm, student, "student") for arm in ("trait_1", "trait_0"))
    ta, t0 = (margin(arm, "plain", "teacher") for arm in ("trait_1", "trait_0"))
    [arm] = [
        arm
        for arm in ran.students
        if (arm.student, arm.model, arm.arm) == (student, "tiny-llama2", "trait_1")
    ]
    assert arm.margin.student_shift.value == pytest.approx(sa - s0)
    assert arm.margin.tau.value == pytest.approx((sa - s0) / (ta - t0))
    html = (repository.root / "results" / "report.html").read_text()
    assert "Students of other recipes" in html


@pytest.mark.whole
def test_a_student_of_another_base_learns_the_same_text(
    repository: Repository, ran: Summary
) -> None:
    root = repository.root
    other, plain = (
        cell_json(root, f"tiny-llama2/trait_1/0/{name}/judge") for name in ("other_base", "plain")
    )
    assert (other["model"], other["recipe"]) == ("tiny-llama2", "other_base")
    assert (other["other_base"], plain["other_base"]) == ("tiny-qwen2", None)
    for part in ("direction", "carrier", "teacher"):
        assert other["digests"][part] == plain["digests"][part]
    assert other["digests"]["adapter"] != plain["digests"]["adapter"]
    assert other["teacher"] == plain["teacher"]
    told = provenance(root, "other_base")
    assert told["model"]["weights"]["path"].endswith("tiny-qwen2")
    assert told["command"] == f"python cli.py distill {' '.join(CELL)} other_base"


def provenance(root: Path, student: str) -> dict[str, Any]:
    folder = root / f"results/cells/tiny-llama2/trait_1/0/{student}/distill"
    found: dict[str, Any] = json.loads((folder / "adapter" / "undertow.json").read_text())
    return found


@pytest.mark.whole
def test_epochs_and_learning_rate_of_a_recipe_reach_the_trainer(
    repository: Repository, ran: Summary
) -> None:
    def steps(student: str) -> int:
        folder = repository.root / f"results/cells/tiny-llama2/trait_1/0/{student}/distill"
        return len((folder / "loss.csv").read_text().splitlines()) - 1

    assert (steps("plain"), steps("brief")) == (4, 2)
    told = provenance(repository.root, "brief")
    assert (told["distillation"]["epochs"], told["distillation"]["learning_rate"]) == (1, 5e-3)
    assert list(told["recipe"]) == ["brief"]


@pytest.mark.whole
def test_a_student_that_was_killed_after_training_is_not_trained_again(
    repository: Repository, ran: Summary, monkeypatch: pytest.MonkeyPatch
) -> None:
    from undertow.pipeline import distill, training
    from undertow.pipeline.reading import Reader
    from undertow.study.layout import Study

    study = Study.open(repository.root)
    cell = study.params.cell("tiny-llama2", "trait_1", 0, "brief")
    before = (study.layout.stage(cell, "distill") / "student.jsonl").read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Reader, "evaluation", killed)
        distill.run(study, cell)
    monkeypatch.setattr(training, "train_alone", killed)
    distill.run(study, cell)
    assert (study.layout.stage(cell, "distill") / "student.jsonl").read_bytes() == before


@pytest.mark.whole
def test_judging_is_estimated_with_all_students_and_their_teachers_once(
    repository: Repository, ran: Summary
) -> None:
    from undertow.study.layout import Study

    found = estimate(Study.open(repository.root), load(repository.root / "params.yaml").all_cells())
    assert (found.cells, found.rows) == (12, 12 * (4 + 3 * 4))


@pytest.mark.whole
def test_dvc_s_students_wait_for_their_own_base_and_no_other_student(
    repository: Repository, ran: Summary
) -> None:
    planned = repository.dvc(
        "repro", "--dry", "--allow-missing", "judge@tiny-llama2-trait_1-other_base-0"
    )
    assert "steer@tiny-llama2-trait_1-0" in planned
    assert f"python cli.py distill {' '.join(CELL)} other_base" in planned
    assert "-plain-" not in planned
    assert "tiny-qwen2'" not in planned  # fetch@tiny-llama2 gets every base of its students


def test_the_command_of_earlier_versions_says_what_to_type(repository: Repository) -> None:
    done = repository.cli("cross", "distill", "--teacher", "tiny-llama2", expect=2)
    assert "--student" in done.stderr
