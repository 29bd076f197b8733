"""Differences of paired students, shares of what plain ones have, and the line of learning less."""

import numpy as np
import pytest

from undertow.stats.draws import drawn
from undertow.stats.intervals import Estimate, Floats
from undertow.stats.worth import (
    COVERS_ZERO,
    TOO_FEW,
    Asked,
    Found,
    Rows,
    beyond_line,
    estimated,
    line_of,
    no_reference,
    together,
)

DRAWS = drawn(1000, 0, 0.95)
PROMPTS, RECIPES = 50, 8


def study(seed: int, takes: float) -> tuple[Rows, list[Rows]]:
    """Plain students, and those of recipes that take over so much of their shift of 3."""
    rng = np.random.default_rng(seed)
    level, seeds = rng.normal(0, 1, PROMPTS), rng.normal(0, 0.3, 3)[:, None]

    def rows(share: float) -> Rows:
        def read(shift: float, count: int, shared: Floats | float) -> Floats:
            own = rng.normal(0, 0.2, (count, 1))
            return level + shift + shared + own + rng.normal(0, 0.3, (count, PROMPTS))

        return Rows(read(3 * share, 3, seeds), read(0, 5, 0.0))

    return rows(1.0), [rows(takes) for _ in range(RECIPES)]


def asked(plain: Rows, recipes: list[Rows], *, share: bool) -> dict[int, Asked]:
    return {
        index: Asked(plain.minus(own), plain if share else None, (100 + 2 * index, 101 + 2 * index))
        for index, own in enumerate(recipes)
    }


@pytest.mark.parametrize("share", [False, True])
def test_intervals_hold_the_truth_about_as_often_as_they_say(share: bool) -> None:
    held = at_once = 0
    for seed in range(40):
        plain, recipes = study(seed, takes=0.4)
        found = estimated(asked(plain, recipes, share=share), DRAWS)
        truth = 0.6 if share else 1.8
        each = [one.estimate.ends for one in found.values()]
        all_of_them = [one.ends for one in together(found, 0.95).values()]
        held += sum(low < truth < high for low, high in each)
        at_once += all(low < truth < high for low, high in all_of_them)
    assert 0.88 < held / (40 * RECIPES) <= 1
    assert at_once / 40 >= 0.85


def test_the_same_students_twice_differ_by_nothing() -> None:
    plain, recipes = study(0, takes=1.0)
    found = estimated(asked(plain, [plain, *recipes], share=True), DRAWS)
    assert found[0].estimate == Estimate(0.0, 0.0, 0.0)
    assert found[1].estimate.ends.low < 0 < found[1].estimate.ends.high


def test_rates_that_no_prompt_tells_apart_are_not_exactly_known() -> None:
    ones = np.ones((3, PROMPTS))
    students = Rows(ones, np.zeros((3, PROMPTS)), ((3, 1), (2, -1)))
    others = students._replace(rates=((13, 1), (12, -1)))
    [found] = estimated({0: Asked(students.minus(others), None, (1, 2))}, DRAWS).values()
    assert found.estimate.value == 0
    assert -0.1 < found.estimate.ends.low < -1 / PROMPTS
    assert 1 / PROMPTS < found.estimate.ends.high < 0.1


def test_a_share_of_what_may_be_nothing_is_unknown_with_a_reason() -> None:
    plain, _ = study(0, takes=0.4)
    nothing = Rows(plain.moved - plain.moved.mean(), no_reference(PROMPTS))
    one = Rows(plain.moved[:, :1], plain.reference[:, :1])
    found = estimated(
        {"none": Asked(plain, nothing, (1, 2)), "one": Asked(one, None, (3, 4))}, DRAWS
    )
    assert [each.estimate.reason for each in found.values()] == [COVERS_ZERO, TOO_FEW]


def known(value: float) -> Found:
    return Found(Estimate(value, value, value), np.full(10, value))


@pytest.mark.parametrize(
    ("removed", "learned", "beyond"),
    [
        (0.9, 1.0, 0.9),  # plain is where the line ends
        (0.3, 0.7, 0.0),  # on the first part of it
        (0.3, 0.25, -0.45),
        (0.5, 0.5, 0.0),
        (0.2, 1.2, 0.2),
        (1.0, -0.1, 0.0),
    ],
)
def test_beyond_the_line_is_what_those_who_learn_less_do_not_remove(
    removed: float, learned: float, beyond: float
) -> None:
    line = [(known(0.4), known(0.6)), (known(0.5), known(0.5))]
    found = beyond_line(known(removed), known(learned), known(1.0), line, 0.95).estimate
    assert found.value == pytest.approx(beyond, abs=1e-9)
    assert found.low == found.high == pytest.approx(found.value)


def test_without_a_measured_share_there_is_no_place_beside_the_line() -> None:
    unknown = Found(Estimate.unknown("not read"), np.empty(0))
    for gained, plain in ((unknown, known(1.0)), (known(1.0), unknown)):
        assert beyond_line(known(1.0), gained, plain, [], 0.95).estimate.reason == "not read"


@pytest.mark.parametrize(
    ("removed", "gained", "beyond"),
    [
        (0.7, 0.9, 0.35),  # as much as those who are trained less, and more removed
        (0.7, 0.2, 0.7 - (1 - 0.65 * 0.2 / 0.9)),  # as much as plain: less training gains it sooner
        (0.7, 0.5, 0.7 - (1 - 0.65 * 0.5 / 0.9)),
        (0.1, 1.0, 0.1),  # more than anybody
        (0.9, -0.5, -0.1),
    ],
)
def test_where_plain_students_learned_their_rows_too_well_training_less_is_still_the_line(
    removed: float, gained: float, beyond: float
) -> None:
    """Plain gains 0.2, and a third of the training 0.9."""
    line = [(known(0.35), known(0.9))]
    found = beyond_line(known(removed), known(gained), known(0.2), line, 0.95).estimate
    assert found.value == pytest.approx(beyond, abs=1e-9)


def drawn_about(rng: np.random.Generator, value: float, sd: float) -> Found:
    resampled = value + sd * rng.standard_normal(2000)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Found(Estimate(value, float(low), float(high)), resampled)


def test_a_recipe_at_the_end_of_the_line_takes_nothing_from_the_others() -> None:
    """Who gains most is a matter of chance among many who gain alike: just beyond the estimated end
    there is no line, and in most resamples there is one."""
    rng = np.random.default_rng(0)
    plain = drawn_about(rng, 0.2, 0.03)
    line = [
        (drawn_about(rng, removed, 0.05), drawn_about(rng, 0.2, 0.03))
        for removed in (0.35, 0.3, 0.25, 0.2, 0.15)
    ]
    odd, good = (
        beyond_line(drawn_about(rng, *removed), drawn_about(rng, *gained), plain, line, 0.95)
        for removed, gained in (((0.5, 0.03), (0.201, 0.003)), ((0.9, 0.03), (0.15, 0.003)))
    )
    assert odd.estimate.value == 0.5 and odd.estimate.ends.high >= 0.5
    alone, beside = together({"good": good}, 0.95), together({"good": good, "odd": odd}, 0.95)
    assert beside["good"].ends.low > 0
    width = [each["good"].ends.high - each["good"].ends.low for each in (alone, beside)]
    assert width[1] < 1.6 * width[0]


def test_the_corners_of_the_line_are_those_that_verdicts_go_by() -> None:
    line = [(known(0.95), known(0.3)), (known(0.35), known(0.9))]
    assert line_of(known(0.2), line) == ((0.0, 1.0), (0.3, 0.95), (0.9, 0.35))
    assert line_of(known(1.0), [(known(-0.1), known(0.5))]) == ((0.0, 1.0), (0.5, 0.0), (1.0, 0.0))
    found = beyond_line(known(0.8), known(0.3), known(0.2), line, 0.95).estimate
    assert found.value == pytest.approx(-0.15)
