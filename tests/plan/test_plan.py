"""A plan says where each number comes from, invents none, and repeats what power.py simulates."""

import csv
import json
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import yaml

from factories import make_params, make_study
from repository import ROOT, Repository, tiny_params
from undertow.config import HubWeights, Params, Recipe, Round
from undertow.plan.costs import PROMPT_TOKENS
from undertow.plan.plan import Plan, PlanError, Wishes, make_plan, strengths_of
from undertow.plan.published import published
from undertow.plan.speeds import TABLE, shipped_speed
from undertow.plan.text import describe_plan
from undertow.plan.worth import STUDIES, defence_power
from undertow.stats.intervals import Estimate
from undertow.stats.power import Design, expect_interval, power_apart, power_threshold
from undertow.study.files import write_json
from undertow.study.layout import Layout, Study
from undertow.study.records import Costs, Manifest

QUICK = 40
WISHES = Wishes(teacher=0.6, tau=0.25)
MODEL = "smollm2-135m"


def empty_study(root: Path, params: Params) -> Study:
    """A checkout in which nothing has run."""
    shutil.copytree(ROOT / "data" / "traits", root / "data" / "traits")
    return Study(params, Layout(root))


def one_model(**changes) -> Params:
    return make_params(models=(MODEL,), arms=("trait_0", "trait_1", "random_1"), **changes)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return empty_study(tmp_path, one_model())


def plan(study: Study, **wishes) -> Plan:
    return make_plan(study, WISHES._replace(**wishes), studies=QUICK)


def ran(study: Study, stage: str, arm: str = "trait_1", **costs) -> None:
    """A cell's stage that has run, as its manifest says."""
    folder = study.layout.stage(study.params.cell(MODEL, arm, 0), stage)
    cost = Costs(device="cuda", peak_memory_bytes=1, **costs)
    write_json(
        folder / "manifest.json",
        Manifest(stage=stage, subject="a cell", command="run", costs=cost, versions={}),
    )


# Powers


def test_the_numbers_are_the_simulations_own(tmp_path):
    arms = ("trait_0", *(f"trait_-0.{n}" for n in range(1, 7)), "random_-0.6")
    study = empty_study(tmp_path, make_params(models=(MODEL,), arms=arms))
    found = plan(study, other_tau=0.9, prompts=100, seeds=3)
    design = Design(0.6, 0.25, prompts=100, seeds=3)
    expected = expect_interval(design, studies=QUICK)
    assert (found.interval.low, found.interval.high) == (expected.low, expected.high)
    assert found.undefined.value == expected.undefined
    assert found.apart.value == power_apart(design, 0.9, studies=QUICK)
    assert found.strengths == 6
    threshold = power_threshold(design, strengths=6, studies=QUICK)
    assert found.threshold.value == threshold.if_threshold
    assert found.threshold_error.value == threshold.if_line
    for share in (found.apart, found.threshold, *(size.power for size in found.sizes)):
        assert share.low <= share.value <= share.high and share.studies == QUICK


def test_too_few_strengths_and_no_other_tau_are_null_with_a_reason(study):
    found = plan(study)
    assert found.threshold.value is found.threshold_error.value is found.apart.value is None
    assert "grid.arms has 1" in found.threshold.reason
    assert "--other-tau" in found.apart.reason
    assert found.sizes == ()
    text = describe_plan(found)
    assert "Monte Carlo" in text and "--other-tau" in text


def test_one_seed_comes_with_a_caution(study):
    one, three = plan(study, seeds=1), plan(study, seeds=3)
    assert three.caution is None and one.caution in describe_plan(one)


def test_strengths_are_counted_on_one_side():
    arms = ("trait_0", "trait_-1", "trait_-2", "trait_-3", "trait_1", "random_4")
    assert strengths_of(make_params(arms=arms)) == 3


# Inputs


def test_what_is_not_given_comes_from_params_and_assumptions(study):
    inputs = plan(study).inputs
    assert inputs["prompts"].value == study.params.evaluation.prompts
    assert inputs["seeds"].value == len(study.params.grid.seeds)
    assert {name: each.source for name, each in inputs.items()} == {
        "teacher": "given",
        "tau": "given",
        "prompts": "params.yaml",
        "seeds": "params.yaml",
        "base": "assumed",
        "control": "assumed",
        "seed_sd": "assumed",
    }


def test_rates_and_both_taus_come_from_the_results_where_they_exist(tmp_path):
    shutil.copytree(ROOT / "data" / "traits", tmp_path / "data" / "traits")
    made = make_study(tmp_path)
    write_json(made.layout.summary, made.summary)
    found = make_plan(made.on_disk, Wishes(), studies=QUICK)
    for name in ("teacher", "base", "control", "tau", "other_tau"):
        assert found.inputs[name].source == "results"
    arms = {arm.arm: arm for arm in made.summary.views[MODEL].arms}
    rate = arms["trait_1"].rate
    assert found.inputs["teacher"].value == pytest.approx(rate.teacher, abs=0.02)
    assert found.inputs["tau"].value == pytest.approx(rate.tau.value, abs=0.03)
    given = make_plan(made.on_disk, Wishes(tau=0.1), studies=QUICK)
    assert given.inputs["tau"].source == "given"


def test_without_results_published_rates_serve_and_say_so(study):
    found = make_plan(study, Wishes(seeds=3), studies=QUICK)
    for name, value in published("pessimism").items():
        assert (found.inputs[name].value, found.inputs[name].source) == (value, "published")
    assert "(published)" in describe_plan(found)
    stated = make_plan(study, WISHES, studies=QUICK)
    assert stated.inputs["base"].source == "assumed"  # a stated study is not mixed with another's


@pytest.mark.parametrize(
    ("trait", "folder", "arm"),
    [
        ("pessimism", "main", "trait_1"),
        ("refusal", "refusal", "trait_-1"),
    ],
)
def test_published_rates_are_those_of_the_published_tables(trait, folder, arm):
    def first(table: str, subject: str, column: str) -> float:
        text = (ROOT / "docs" / "results" / folder / "plots" / table).read_text()
        rows = [row for row in csv.DictReader(StringIO(text)) if row["arm"] == arm]
        named = (row for row in rows if subject in row.values() and row.get("readout") != "margin")
        return float(next(named)[column])

    rates = published(trait)
    teacher, student = (first("rates.csv", who, "rate") for who in ("teacher", "student"))
    moved, followed = (first("shifts.csv", who, "shift") for who in ("teacher", "student"))
    assert rates["teacher"] == pytest.approx(teacher)
    assert rates["base"] == pytest.approx(teacher - moved)
    assert rates["control"] == pytest.approx(student - followed, abs=1e-5)
    assert rates["tau"] == pytest.approx(first("tau.csv", "rate", "tau"))


def test_a_tau_by_margin_alone_is_planned_with_and_named(tmp_path):
    shutil.copytree(ROOT / "data" / "traits", tmp_path / "data" / "traits")
    made = make_study(tmp_path)
    none = Estimate(value=None, low=None, high=None, reason="no stable denominator")
    arms = [
        arm.model_copy(update={"rate": replace(arm.rate, tau=none)}) for arm in made.summary.arms
    ]
    write_json(made.layout.summary, made.summary.model_copy(update={"arms": tuple(arms)}))
    found = make_plan(Study(made.params, made.layout), Wishes(), studies=QUICK)
    largest = max((arm for arm in arms if arm.model == MODEL), key=lambda arm: arm.alpha)
    assert found.inputs["tau"].source == "results, by margin"
    assert found.inputs["tau"].value == pytest.approx(largest.margin.tau.value)
    assert found.inputs["teacher"].source == "results"


def test_without_anything_to_plan_with_it_says_what_to_type(study):
    unknown = study._replace(params=study.params.model_copy(update={"trait": "optimism"}))
    with pytest.raises(PlanError) as raised:
        make_plan(unknown, Wishes(tau=0.3), studies=QUICK)
    assert "give --teacher" in raised.value.remedy and "--tau" not in raised.value.message
    assert "no study of the trait optimism is published" in raised.value.message


@pytest.mark.parametrize(
    ("wishes", "word"),
    [
        ({"teacher": 60.0}, "--teacher"),
        ({"base": 0.0}, "--base"),
        ({"control": 1.0}, "--control"),
        ({"tau": 2.0}, "--tau"),
        ({"tau": float("nan")}, "--tau"),
        ({"other_tau": -3.0}, "--other-tau"),
        ({"seed_sd": -1.0}, "--seed-sd"),
        ({"teacher": float("nan")}, "--teacher"),
    ],
)
def test_rates_that_cannot_be_are_refused_by_their_option(study, wishes, word):
    with pytest.raises(PlanError) as raised:
        plan(study, **wishes)
    assert word in raised.value.message and raised.value.remedy


# Costs


def test_a_model_that_never_ran_has_no_hours_and_a_reason(study):
    cost = plan(study).cost
    assert cost.hours is None
    [model] = cost.models
    assert model.hours is None and model.reason == (
        f"no measured speed for {MODEL}, run one cell first"
    )
    assert f"unknown: {model.reason}" in describe_plan(plan(study))
    assert cost.judge_usd == 0


def test_hours_follow_from_the_cells_that_ran(study):
    ran(study, "steer", seconds=60.0, tokens_generated=5000, generated_per_second=100.0)
    ran(study, "distill", seconds=50.0, tokens_trained=4000, trained_per_second=200.0)
    ran(study, "judge", seconds=3.0)
    [model] = plan(study).cost.models
    params = study.params
    generated = params.carrier.prompts * 64 + params.evaluation.prompts * 64
    trained = params.distillation.epochs * params.carrier.prompts * (64 + PROMPT_TOKENS)
    steer, distill = generated / 100 + 10, trained / 200 + 30
    assert model.seconds_per_cell == pytest.approx(
        {"steer": steer, "distill": distill, "judge": 3}, abs=0.1
    )
    assert model.cells == 6
    assert model.hours == pytest.approx(6 * (steer + distill + 3) / 3600)
    assert model.device == "cuda"


def test_more_seeds_cost_in_proportion_and_a_stage_alone_is_no_measurement(study):
    ran(study, "steer", seconds=60.0, tokens_generated=5000, generated_per_second=100.0)
    assert plan(study).cost.hours is None
    ran(study, "distill", seconds=50.0, tokens_trained=4000, trained_per_second=200.0)
    once = plan(study).cost
    grid = study.params.grid.model_copy(update={"seeds": (0, 1, 2, 3)})
    twice = plan(study._replace(params=study.params.model_copy(update={"grid": grid}))).cost
    assert twice.hours == pytest.approx(2 * once.hours)


def test_students_of_other_recipes_cost_their_own_epochs_and_no_text_of_the_teacher(study):
    ran(study, "steer", seconds=60.0, tokens_generated=5000, generated_per_second=100.0)
    ran(study, "distill", seconds=50.0, tokens_trained=4000, trained_per_second=200.0)
    once = plan(study).cost
    grid = study.params.grid.model_copy(update={"students": ("plain", "long")})
    more = {"grid": grid, "recipes": study.params.recipes | {"long": Recipe(epochs=3)}}
    cost = plan(study._replace(params=study.params.model_copy(update=more))).cost
    trained = study.params.carrier.prompts * (64 + PROMPT_TOKENS)
    assert (cost.cells, cost.models[0].students) == (12, 6)
    assert cost.hours - once.hours == pytest.approx(6 * (3 * trained / 200 + 30) / 3600)


def test_later_rounds_cost_a_carrier_of_their_own(study):
    ran(study, "steer", seconds=60.0, tokens_generated=5000, generated_per_second=100.0)
    ran(study, "distill", seconds=50.0, tokens_trained=4000, trained_per_second=200.0)

    def hours(**grid: object) -> float:
        changed = study.params.grid.model_copy(update=grid)
        more = {"grid": changed, "recipes": study.params.recipes | {"again": Recipe()}}
        return plan(study._replace(params=study.params.model_copy(update=more))).cost.hours

    first = hours(students=("plain", "again"))
    later = hours(rounds=(Round(student="again", after="plain"),))
    asked, written = study.params.evaluation.prompts * 64, study.params.carrier.prompts * 64
    steer = (asked + written) / 100 + 10
    share = written / (asked + written)
    assert later - first == pytest.approx(6 * steer * share / 3600)


def test_a_shipped_speed_stands_in_until_a_cell_has_run(study, monkeypatch):
    repo = TABLE[0].repos[0]
    weights = HubWeights(kind="hub", repo=repo, revision="0" * 40)
    spec = study.params.models[MODEL].model_copy(update={"weights": weights})
    params = study.params.model_copy(update={"models": {MODEL: spec}})
    hub = study._replace(params=params)
    for missing in ("generated_per_second", "other_seconds"):
        monkeypatch.setattr("undertow.plan.speeds.TABLE", (replace(TABLE[0], **{missing: None}),))
        assert plan(hub).cost.hours is None
    filled = replace(
        TABLE[0],
        device="a GPU",
        date="2000-01-01",
        command="bench",
        generated_per_second=1000.0,
        trained_per_second={"none": 2000.0, "nf4": None},
        other_seconds=20.0,
    )
    monkeypatch.setattr("undertow.plan.speeds.TABLE", (filled,))
    assert shipped_speed(spec) == filled
    [model] = plan(hub).cost.models
    tokens = params.evaluation.prompts * 64
    assert model.seconds_per_cell["steer"] == pytest.approx(
        (params.carrier.prompts * 64 + tokens) / 1000 + 10, abs=0.1
    )
    assert model.device == "a GPU" and "2000-01-01" in model.source


def test_every_speed_of_the_shipped_table_says_where_it_was_measured():
    presets = [yaml.safe_load(path.read_text()) for path in (ROOT / "presets").glob("*.yaml")]
    repos = {m["weights"].get("repo") for preset in presets for m in preset["models"].values()}
    for speed in TABLE:
        assert set(speed.repos) & repos
        provenance = (speed.device, speed.date, speed.command)
        trained = speed.trained_per_second.values()
        known = [speed.generated_per_second, speed.other_seconds, *trained]
        if any(value is not None for value in known):
            assert all(provenance)


# The command


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("plan")
    return Repository(folder / "checkout", tiny_params(folder / "models"))


def test_the_command_speaks_json(repository: Repository):
    done = repository.cli(
        "plan", "--teacher", "0.6", "--tau", "0.25", "--other-tau", "1.2", "--seeds", "3", "--json"
    )
    found = Plan.model_validate(json.loads(done.stdout))
    assert found.inputs["prompts"].value == 12
    assert found.cost.hours is None and len(found.cost.models) == 2
    assert found.cost.cells == 8
    assert found.apart.value is not None and found.threshold.value is None


def test_the_command_refuses_percent_with_one_message(repository: Repository):
    done = repository.cli("plan", "--teacher", "60", "--tau", "0.25", expect=1)
    assert "not percent" in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_pooled_tau_is_planned_with_beside_that_of_one_arm(tmp_path):
    arms = ["trait_0", "trait_0.5", "trait_1", "trait_1.5", "trait_2", "random_2"]
    study = empty_study(tmp_path, one_model(grid={"arms": arms}))
    found = plan(study, other_tau=0.61, seeds=3)
    assert found.pooled_apart.value > 1.3 * found.apart.value
    assert found.control_seeds == 7  # five arms share the control
    text = describe_plan(found)
    assert "by pooled tau" in text and "7 (sqrt of 5 arms" in text
    assert plan(study).pooled_apart.value is None


def test_students_are_allocated_for_a_wanted_interval_and_for_a_budget(study):
    found = plan(study, seed_sd=0.3, half_width=0.4, students=12)
    interval, budget = found.allocations
    assert interval.half_width <= 0.4
    assert interval.students == found.arms * interval.seeds + interval.control_seeds
    assert budget.students == 12 and budget.half_width < 0.5
    text = describe_plan(found)
    assert "fewest students for +-0.4" in text and "best use of 12 students" in text
    (none,) = plan(study, half_width=0.0).allocations
    assert none.seeds is None and "30 seeds" in none.reason
    assert not plan(study).allocations


def test_the_plan_says_what_its_defences_can_show(tmp_path):
    recipes = {f"d{number}": Recipe(epochs=number) for number in range(1, 5)}
    params = one_model(
        grid={"students": ("plain", *recipes), "control_seeds": (7, 8, 9)},
        recipes={"plain": Recipe(), **recipes},
    )
    study = empty_study(tmp_path, params)
    few, many = (plan(study, seeds=seeds).defences for seeds in (3, 8))
    assert (few.recipes, few.arms, few.seeds, few.control_students) == (4, 1, 3, 6)
    nothing, quarter, half, whole = many.outcomes
    assert [each.removed for each in many.outcomes] == [0, 0.25, 0.5, 1]
    assert nothing.above_zero.value < 0.1 < quarter.above_zero.value <= whole.above_zero.value
    assert nothing.no_effect.value > 0.8 and whole.no_effect.value == 0
    assert half.half_width < few.outcomes[2].half_width
    one = one_model(grid={"students": ("plain", "d1")}, recipes={"plain": Recipe(), "d1": Recipe()})
    for each in defence_power(one, 20, 3).outcomes:  # of one recipe: as many studies of each truth
        assert each.above_zero.studies == STUDIES
        assert (each.above_zero.value * STUDIES) == pytest.approx(
            round(each.above_zero.value * STUDIES)
        )
    text = describe_plan(plan(study, seeds=3))
    assert "4 recipes at 1 arm at once, 3 seeds and 6 control students each" in text
    assert "0 %, +-" in text


def test_a_plan_without_defences_or_with_one_seed_simulates_none(study, tmp_path):
    assert plan(study, seeds=3).defences is None
    assert "What defences remove" not in describe_plan(plan(study, seeds=3))
    recipes = {"plain": Recipe(), "less": Recipe(epochs=1)}
    defended = one_model(grid={"students": ("plain", "less")}, recipes=recipes)
    assert plan(empty_study(tmp_path / "defended", defended), seeds=1).defences is None


def test_the_plan_says_how_many_rows_the_audit_needs(study):
    found = plan(study).audit
    assert (found.source, found.share) == ("assumed", 0.1)
    assert found.planned == 50 * len(study.params.grid.seeds)
    assert 200 < found.needed < 400
    assert f"rows that the audit needs      {found.needed}" in describe_plan(plan(study))
