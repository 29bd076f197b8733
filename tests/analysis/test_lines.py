"""A model's arms together in the summary: intervals, further seeds, the transfer line."""

import json

import pytest

from factories import make_params, make_result
from undertow.analysis.headline import headline
from undertow.analysis.summarise import summarise
from undertow.analysis.summary import Summary
from undertow.config import Params

ARMS = ("trait_0", "trait_0.5", "trait_1", "random_1")
FURTHER = {"control_seeds": [2, 3, 4], "random_arms": ["random_1"], "random_seeds": [5, 6, 7]}


def study(grid=None) -> tuple[Params, Summary]:
    raw = make_params(arms=ARMS).model_dump(mode="json")
    raw["grid"] |= grid or {}
    params = Params.model_validate(raw)
    return params, summarise(params, {cell: make_result(params, cell) for cell in params.cells()})


@pytest.fixture(scope="module")
def plain():
    return study()[1]


def width(estimate):
    return estimate.ends.high - estimate.ends.low


def test_moderated_intervals_are_shown_and_those_alone_are_kept(plain):
    arms = [arm for arm in plain.arms if not arm.is_control]
    for arm in arms:
        for readout in ("rate", "margin"):
            bounds, shift = arm.bounds[readout], arm.by(readout).student_shift
            assert bounds.alone.student_shift.value == shift.value
            assert width(bounds.simultaneous.student_shift) >= width(shift)
    freedom = [arm.bounds["margin"].freedom for arm in arms]
    assert any(each is not None and each > 1 for each in freedom)  # two seeds alone have one


def test_with_one_seed_nothing_is_moderated():
    params = make_params(arms=ARMS, seeds=(0,))
    summary = summarise(params, {cell: make_result(params, cell) for cell in params.cells()})
    for arm in summary.arms:
        if not arm.is_control:
            assert arm.bounds["rate"].alone.tau == arm.rate.tau
            assert arm.bounds["rate"].freedom is None


def test_every_arm_and_every_random_draw_is_a_point(plain):
    line = plain.views[plain.models[0]].lines["margin"]
    assert [(point.arm, point.seed) for point in line.points] == [
        ("trait_0.5", None),
        ("trait_1", None),
        ("random_1", None),
        ("random_1", 0),
        ("random_1", 1),
    ]
    assert line.arms == ("trait_0.5", "trait_1")
    assert [point.in_slope for point in line.points] == [True, True, False, False, False]


def test_random_draws_of_the_same_judged_share_are_not_taken_for_one():
    _, summary = study(FURTHER)
    for line in summary.views[summary.models[0]].lines.values():
        draws = [point for point in line.points if point.seed is not None]
        assert line.random_teacher.draws == line.random_student.draws == len(draws) == 5


def test_the_pooled_tau_lies_among_those_of_the_arms_and_is_a_headline(plain):
    model = plain.models[0]
    view = plain.views[model]
    taus = [arm.rate.tau.value for arm in view.trait]
    assert min(taus) <= view.lines["rate"].tau.value <= max(taus)
    assert headline(plain)[model]["pooled"]["tau"] == view.lines["rate"].tau.value


def test_two_models_are_compared_by_their_lines(plain):
    first, second = plain.models
    for each in plain.model_differences:
        assert (each.first, each.second) == (first, second)
        lines = [plain.views[model].lines[each.readout] for model in (first, second)]
        assert each.estimate.value == pytest.approx(lines[0].tau.value - lines[1].tau.value)


def test_further_seeds_of_the_control_enter_every_arm_and_are_no_arms_own():
    params, summary = study(FURTHER)
    seeds = {arm.arm: [cell.seed for cell in arm.cells] for arm in summary.arms}
    assert seeds == {
        "trait_0": [0, 1, 2, 3, 4],
        "trait_0.5": [0, 1],
        "trait_1": [0, 1],
        "random_1": [0, 1, 5, 6, 7],
    }
    few = study()[1]
    for arm, other in zip(summary.arms, few.arms, strict=True):
        if arm.direction == "trait" and not arm.is_control:
            assert arm.margin.seeds == 2
            assert arm.margin.control != other.margin.control
    line = summary.views[summary.models[0]].lines["margin"]
    assert len([point for point in line.points if point.seed is not None]) == 5
    assert len(params.cells()) == 2 * (5 + 2 + 2 + 5)


def test_files_from_before_are_still_read(plain):
    raw = json.loads(plain.model_dump_json())
    for name in ("lines", "model_differences"):
        del raw[name]
    for arm in raw["arms"]:
        del arm["bounds"]
    old = Summary.model_validate(raw)
    assert not old.views[old.models[0]].lines
    assert "pooled" not in headline(old)[old.models[0]]


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"control_seeds": [1, 2]}, "leave out 1"),
        ({"random_arms": ["trait_1"], "random_seeds": [4]}, "no random arm"),
    ],
)
def test_further_seeds_that_cannot_be_are_refused(grid, words):
    with pytest.raises(ValueError, match=words):
        study(grid)
