"""Cross-model students: the donor's teacher, the student's own control, words from intervals."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from factories import Study, make_params, make_study
from repository import ROOT, Repository, tiny_params
from undertow import tracking
from undertow.analysis.cross import with_cross
from undertow.analysis.summarise import summarise
from undertow.analysis.summary import Summary, read_summary
from undertow.config import Cell, Params, load, parse_arm
from undertow.errors import ConfigError, DataError
from undertow.findings.cross import compared
from undertow.judging.costing import estimate
from undertow.report.report import render_report
from undertow.report.terminal import strength_table
from undertow.stats.intervals import Estimate
from undertow.study.records import CellResult
from undertow.study.results import read_cross
from undertow.tracking.content import contents

STUDENT, TEACHER = "qwen-coder-500m", "smollm2-135m"
PAIR = {"student": STUDENT, "teacher": TEACHER}
CROSS = {"pairs": [PAIR], "arms": ["trait_0", "trait_1", "random_1"]}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study(tmp_path, make_params(cross=CROSS))


# Parameters


@pytest.mark.parametrize(
    ("pairs", "arms", "words"),
    [
        ([PAIR], [], ["cross.arms: the control arm is missing", "add trait_0"]),
        ([PAIR], ["trait_1"], ["cross.arms: the control arm is missing"]),
        ([PAIR], ["trait_0", "trait_2"], ["cross.arms.1: 'trait_2' is not in grid.arms"]),
        ([PAIR], ["trait_0", "trait_0"], ["cross.arms", "names something twice"]),
        ([PAIR, PAIR], ["trait_0"], ["cross.pairs.1: is there twice"]),
        (
            [{"student": STUDENT, "teacher": STUDENT}],
            ["trait_0"],
            ["cross.pairs.0: student and teacher are both"],
        ),
        (
            [{"student": "other", "teacher": TEACHER}],
            ["trait_0"],
            ["cross.pairs.0.student: 'other' is not in grid.models", "write one of"],
        ),
        ([{"student": STUDENT}], ["trait_0"], ["cross.pairs.0.teacher: is missing"]),
        (7, 7, ["cross.pairs", "cross.arms"]),
    ],
)
def test_a_wrong_cross_section_is_refused_with_what_to_write(
    tmp_path: Path, pairs: Any, arms: Any, words: list[str]
) -> None:
    raw = make_params().model_dump(mode="json") | {"cross": {"pairs": pairs, "arms": arms}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "params.yaml")
    assert all(word in str(caught.value) for word in words), caught.value


def test_cross_cells_are_pairs_by_arms_by_seeds_and_none_without_a_section(tmp_path: Path) -> None:
    cells = make_params(cross=CROSS).cross_cells()
    assert cells[1] == Cell(STUDENT, parse_arm("trait_0"), 1, donor=TEACHER)
    assert len({cell.key for cell in cells}) == 6
    raw = make_params().model_dump(mode="json")
    del raw["cross"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    assert load(tmp_path / "params.yaml").cross_cells() == []


def test_a_cell_taught_by_its_own_base_is_no_cross_cell() -> None:
    with pytest.raises(ConfigError, match=f"distill --model {STUDENT}"):
        make_params().cell(STUDENT, "trait_1", 0, donor=STUDENT)


# Estimates


def mean(result: CellResult, subject: str) -> float:
    margins = getattr(result, subject).margins.values()
    return sum(margins) / len(margins)


def test_tau_is_the_student_s_shift_from_its_own_control_over_the_donor_s_teacher(
    study: Study,
) -> None:
    cross = read_cross(study.on_disk)
    taken = {(a.model, a.teacher_model, a.arm): a for a in study.summary.cross}
    assert list(taken) == [(STUDENT, TEACHER, arm) for arm in CROSS["arms"]]
    arm = taken[STUDENT, TEACHER, "trait_1"]
    for cell in arm.cells:
        sa, s0 = (
            mean(cross[Cell(STUDENT, parse_arm(name), cell.seed, TEACHER)], "student")
            for name in ("trait_1", "trait_0")
        )
        ta, t0 = (
            mean(study.grid[Cell(TEACHER, parse_arm(name), cell.seed)], "teacher")
            for name in ("trait_1", "trait_0")
        )
        assert cell.margin.tau.value == pytest.approx((sa - s0) / (ta - t0))
    same = next(a for a in study.summary.arms if (a.model, a.arm) == (TEACHER, "trait_1"))
    for gap, own, other in (
        (arm.rate_gap, same.rate, arm.rate),
        (arm.margin_gap, same.margin, arm.margin),
    ):
        assert gap.value == pytest.approx(own.student_shift.value - other.student_shift.value)
        assert gap.low < gap.value < gap.high
    assert arm.rate.teacher_shift == same.rate.teacher_shift


def test_what_lies_between_two_bases_is_no_shift(study: Study) -> None:
    for arm in study.summary.cross:
        for transfer in (arm.rate, arm.margin, *(cell.margin for cell in arm.cells)):
            assert transfer.tau_naive.value is None is transfer.naive_shift.value
            assert "different models" in (transfer.tau_naive.reason or "")


def test_the_grid_s_own_numbers_do_not_depend_on_cross_students(study: Study) -> None:
    alone = summarise(study.params, study.grid)
    assert with_cross(alone, study.params, {}) is alone
    assert study.summary.arms == alone.arms
    assert Summary.model_validate_json(study.summary.model_dump_json()) == study.summary


def test_costs_count_the_donor_s_text_once(study: Study) -> None:
    stages = study.summary.costs[f"{STUDENT}<-{TEACHER}/trait_1/seed0"]
    assert set(stages) == {"distill", "judge"}
    [*_, whole] = contents(study.on_disk, study.summary, study.grid)
    seconds = sum(cost.seconds for costs in study.summary.costs.values() for cost in costs.values())
    assert whole.seconds == pytest.approx(seconds)


def test_a_missing_cross_cell_names_the_command_that_makes_it(study: Study) -> None:
    cell = study.params.cross_cells()[-1]
    shutil.rmtree(study.layout.stage(cell, "judge"))
    command = f"cross judge --student {STUDENT} --teacher {TEACHER} --arm random_1 --seed 1"
    with pytest.raises(DataError, match=command):
        read_cross(study.on_disk)


# Views


def page(study: Study) -> str:
    return render_report(study.summary, study.on_disk, responses=None, harmful=False)


def test_report_and_table_say_what_the_pair_shows(study: Study) -> None:
    html, text = page(study), " ".join(strength_table(study.summary).split())
    arm = next(a for a in study.summary.cross if a.arm == "trait_1")
    assert 'id="cross"' in html
    assert f"{STUDENT} on the text of {TEACHER}" in text
    for view in (html, text):
        assert f"compare the two students by {study.summary.rate_name}" in view
    assert f"difference {100 * arm.rate_gap.value:+.1f} pp" in text
    assert all(line.isascii() for line in strength_table(study.summary).splitlines())


def test_without_pairs_no_view_mentions_cross_students(tmp_path: Path) -> None:
    study = make_study(tmp_path, make_params())
    assert study.summary.cross == ()
    assert 'id="cross"' not in page(study)
    assert "cross-model" not in strength_table(study.summary)
    runs = contents(study.on_disk, study.summary, study.grid)
    assert {run.tags["kind"] for run in runs} == {"cell", "curve", "study"}


@pytest.mark.parametrize(
    ("own", "gap", "words"),
    [
        ((2.0, 1.0, 3.0), (1.9, 0.9, 2.9), "went less far that way"),
        ((-2.0, -3.0, -1.0), (-1.9, -2.9, -0.9), "went less far that way"),
        ((2.0, 1.0, 3.0), (-2.0, -3.0, -1.0), "went further that way"),
        ((2.0, 1.0, 3.0), (0.5, -1.0, 2.0), "cannot be told apart"),
        ((0.5, -1.0, 2.0), (3.0, 1.0, 5.0), "the own student's shift covers 0 itself"),
        ((None, None, None), (None, None, None), "no comparison with"),
    ],
)
def test_the_comparison_s_words_follow_from_the_intervals(
    study: Study, own: tuple[Any, ...], gap: tuple[Any, ...], words: str
) -> None:
    def record(value: Any, low: Any, high: Any) -> Estimate:
        reason = "for the test" if value is None else None
        return Estimate(value=value, low=low, high=high, reason=reason)

    arm = next(a for a in study.summary.cross if a.arm == "trait_1")
    arms = [
        a.model_copy(update={"rate": replace(a.rate, student_shift=record(*own))})
        for a in study.summary.arms
    ]
    summary = study.summary.model_copy(update={"arms": tuple(arms)})
    arm = arm.model_copy(update={"rate_gap": record(*gap)})
    assert words in compared(summary, arm, "rate")
    assert "Its nats are not those of" in compared(summary, arm, "margin")


def test_a_pair_is_compared_with_its_own_random_direction(study: Study) -> None:
    """Not with the contrast that the same model has in the grid."""
    for arm in study.summary.cross:
        own = {(c.readout, c.against): c for c in study.summary.contrasts if c.arm == arm.arm}
        for contrast in arm.contrasts:
            assert contrast.arm == arm.arm
            if contrast.against == "control" and contrast.seed is None:
                shift = getattr(arm, contrast.readout).student_shift
                assert contrast.estimate == shift
                assert contrast != own[contrast.readout, "control"]
    assert any(arm.contrasts for arm in study.summary.cross)


def test_mlflow_has_a_run_per_cross_cell_apart_from_the_grid_s(study: Study) -> None:
    from mlflow import MlflowClient

    shutil.copy(ROOT / "dvc.yaml", study.layout.root)

    def synced() -> tracking.SyncReport:
        return tracking.sync(study.on_disk, study.summary, study.grid)

    total = len(study.grid) + 6 + 4 + 1  # cells, cross cells, curves, study
    assert synced() == tracking.SyncReport(created=total, updated=0, unchanged=0)
    assert synced() == tracking.SyncReport(created=0, updated=0, unchanged=total)
    client = MlflowClient(f"sqlite:///{study.layout.root}/mlruns/mlflow.db")
    [experiment] = client.search_experiments(filter_string="name = 'undertow'")
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'cross'")
    assert len(runs) == 6
    run = next(r for r in runs if r.info.run_name == f"{STUDENT} from {TEACHER} trait_1 seed1")
    arm = next(a for a in study.summary.cross if a.arm == "trait_1")
    assert run.data.metrics["tau_margin"] == arm.cells[1].margin.tau.value
    assert run.data.tags["teacher_model"] == TEACHER
    assert run.data.tags["dvc.stage"] == "cross-judge@pair0-trait_1-1"
    assert "tau_naive_margin" not in run.data.metrics
    assert len(client.search_runs([experiment.experiment_id], "tags.kind = 'cell'")) == len(
        study.grid
    )


# The real stages, on tiny models


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("cross")
    params = tiny_params(folder / "models")
    params["grid"]["arms"] = ["trait_0", "trait_1"]
    params["cross"] = {
        "pairs": [{"student": "tiny-qwen2", "teacher": "tiny-llama2"}],
        "arms": ["trait_0", "trait_1"],
    }
    params["tracking"]["enabled"] = False
    repository = Repository(folder / "checkout", params)
    repository.init()
    return repository


CELL = ("--student", "tiny-qwen2", "--teacher", "tiny-llama2", "--arm", "trait_1")


@pytest.fixture(scope="module")
def ran(repository: Repository) -> Summary:
    """Every cell of the grid and one cross cell in this process, the other by the command line."""
    from undertow.pipeline import direction, distill, fetch, judge, report, steer
    from undertow.study.layout import Study

    study = Study.open(repository.root)
    params = study.params
    for model in params.grid.models:
        fetch.run(study, model)
        direction.run(study, model)
    for cell in params.cells():
        steer.run(study, cell)
    control, steered = params.cross_cells()
    for cell in (*params.cells(), control):
        distill.run(study, cell)
        judge.run(study, cell)
    assert steered.arm.name == "trait_1"
    repository.cli("cross", "distill", *CELL)
    repository.cli("cross", "judge", *CELL)
    report.run(study)
    return read_summary(study.layout)


def cell_json(root: Path, path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "results/cells" / path / "cell.json").read_text())
    return found


def test_the_command_line_trains_judges_and_reports_a_cross_student(
    repository: Repository, ran: Summary
) -> None:
    def margin(path: str, subject: str) -> float:
        margins = cell_json(repository.root, path)[subject]["margins"].values()
        return sum(margins) / len(margins)

    sa, s0 = (
        margin(f"tiny-llama2/{arm}/0/cross/tiny-qwen2/judge", "student")
        for arm in ("trait_1", "trait_0")
    )
    ta, t0 = (margin(f"tiny-llama2/{arm}/0/judge", "teacher") for arm in ("trait_1", "trait_0"))
    [arm] = [arm for arm in ran.cross if not arm.is_control]
    assert arm.margin.student_shift.value == pytest.approx(sa - s0)
    assert arm.margin.tau.value == pytest.approx((sa - s0) / (ta - t0))
    assert "Cross-model students" in (repository.root / "results" / "report.html").read_text()


def test_a_cross_student_learns_the_donor_s_text_on_its_own_base(
    repository: Repository, ran: Summary
) -> None:
    root = repository.root
    cross = cell_json(root, "tiny-llama2/trait_1/0/cross/tiny-qwen2/judge")
    donor = cell_json(root, "tiny-llama2/trait_1/0/judge")
    own = cell_json(root, "tiny-qwen2/trait_1/0/judge")
    assert (cross["model"], cross["teacher_model"]) == ("tiny-qwen2", "tiny-llama2")
    for part in ("direction", "carrier", "teacher"):
        assert cross["digests"][part] == donor["digests"][part] != own["digests"][part]
    assert cross["digests"]["adapter"] not in (
        donor["digests"]["adapter"],
        own["digests"]["adapter"],
    )
    assert cross["teacher"] == donor["teacher"]
    assert donor["teacher_model"] is None
    folder = root / "results/cells/tiny-llama2/trait_1/0/cross/tiny-qwen2/distill"
    adapter = json.loads((folder / "adapter" / "undertow.json").read_text())
    assert adapter["model"]["weights"]["path"].endswith("tiny-qwen2")
    assert adapter["command"] == f"python cli.py cross distill {' '.join(CELL)} --seed 0"


def test_a_cross_student_that_was_killed_after_training_is_not_trained_again(
    repository: Repository, ran: Summary, monkeypatch: pytest.MonkeyPatch
) -> None:
    from undertow.pipeline import distill, training
    from undertow.pipeline.reading import Reader
    from undertow.study.layout import Study

    study = Study.open(repository.root)
    cell = study.params.cross_cells()[1]
    before = (study.layout.stage(cell, "distill") / "student.jsonl").read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Reader, "evaluation", killed)
        distill.run(study, cell)
    monkeypatch.setattr(training, "train", killed)
    distill.run(study, cell)
    assert (study.layout.stage(cell, "distill") / "student.jsonl").read_bytes() == before


def test_judging_is_estimated_with_cross_students_and_their_teachers_once(
    repository: Repository, ran: Summary
) -> None:
    from undertow.study.layout import Study

    study = Study.open(repository.root)
    found = estimate(study, [*study.params.cells(), *study.params.cross_cells()])
    assert (found.cells, found.rows) == (6, 12 * (2 * 4 + 2))


def test_dvc_has_two_stages_per_cross_cell_and_none_for_empty_lists(repository: Repository) -> None:
    listed = repository.dvc("stage", "list", "--name-only").split()
    assert {name for name in listed if name.startswith("cross")} == {
        f"cross-{stage}@pair0-{arm}-0"
        for stage in ("distill", "judge")
        for arm in ("trait_0", "trait_1")
    }
    planned = repository.dvc("repro", "--dry", "--allow-missing", "cross-judge@pair0-trait_1-0")
    assert "steer@tiny-llama2-trait_1-0" in planned
    assert f"python cli.py cross distill {' '.join(CELL)} --seed 0" in planned
    assert "distill@tiny-llama2" not in planned.replace("cross-distill", "")
    assert "cross-judge@pair0-trait_1-0" in repository.dvc("dag", "--md", "report")
    shown = dict(repository.params)
    try:
        repository.write_params(shown | {"cross": {"pairs": [], "arms": []}})
        assert "cross" not in repository.dvc("stage", "list", "--name-only")
        assert "cross" not in repository.dvc("dag", "--md", "report")
    finally:
        repository.write_params(shown)


@pytest.mark.parametrize(("preset", "cells"), [("demo", 0), ("small", 18), ("paper", 4)])
def test_the_presets_carry_the_section(preset: str, cells: int) -> None:
    path = ROOT / "presets" / f"{preset}.yaml"
    assert "cross" in yaml.safe_load(path.read_text())
    params = Params.model_validate(yaml.safe_load(path.read_text()))
    assert len(params.cross_cells()) == cells
