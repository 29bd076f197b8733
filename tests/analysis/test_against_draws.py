"""Where a random arm has several directions, a trait arm is held against their distribution."""

from dataclasses import replace

import pytest

from factories import make_params, make_result
from undertow.analysis.contrasts import ContrastRecord
from undertow.analysis.draws import against_draws
from undertow.analysis.lines import LinePoint, LineRecord, NullRecord
from undertow.analysis.summarise import summarise
from undertow.findings.arms import clause, findings, sentence
from undertow.stats.intervals import Estimate

NONE = Estimate.unknown("not asked")
NULL = NullRecord(draws=0, mean=None, sd=None, low=None, high=None)


def point(arm: str, seed: int | None, teacher: float, student: float) -> LinePoint:
    return LinePoint(
        arm=arm,
        seed=seed,
        in_slope=False,
        teacher_shift=Estimate(teacher, teacher - 0.1, teacher + 0.1),
        student_shift=Estimate(student, student - 0.1, student + 0.1),
    )


def line(student: float, draws: list[tuple[float, float]]) -> LineRecord:
    points = [point("trait_1", None, 2.0, student), point("random_1", None, 0.0, 0.0)]
    points += [point("random_1", seed, *each) for seed, each in enumerate(draws)]
    return LineRecord(
        model="m",
        readout="margin",
        tau=NONE,
        freedom=None,
        arms=(),
        fit_p=None,
        fit_statistic=None,
        fit_freedom=0,
        fit_reason=None,
        intercept=NONE,
        random_slope=NONE,
        random_correlation=None,
        against_random=NONE,
        random_teacher=NULL,
        random_student=NULL,
        points=tuple(points),
    )


CONTRAST = ContrastRecord(
    model="m",
    arm="trait_1",
    seed=None,
    readout="margin",
    against="random",
    reference="random_1",
    estimate=Estimate(0.5, 0.4, 0.6),
    verdict="clear",
)
DRAWS = [(-0.6, -0.5), (0.5, 0.4), (0.1, 0.2), (-0.2, -0.1), (0.3, 0.3)]


@pytest.mark.parametrize(("student", "verdict"), [(1.9, "clear"), (0.6, "unclear")])
def test_a_student_is_clear_of_random_only_beyond_where_one_more_draw_would_lie(student, verdict):
    (found,) = against_draws([CONTRAST], [line(student, DRAWS)], 0.95)
    assert (found.verdict, found.draws) == (verdict, 5)
    assert found.estimate.value == pytest.approx(student - 0.06)
    assert found.teacher is not None and found.teacher.value == pytest.approx(2.0 - 0.02)


def test_draws_that_moved_their_teachers_alike_count_each_and_few_change_nothing():
    alike = [(0.5, 0.1), (0.5, 0.2), (0.5, 0.3), (0.5, 0.4)]
    (found,) = against_draws([CONTRAST], [line(1.9, alike)], 0.95)
    assert found.draws == 4 and found.estimate.value == pytest.approx(1.9 - 0.25)
    assert found.teacher is None  # where one more teacher would lie, these do not say
    same = [(0.5, 0.1), (0.4, 0.1), (0.3, 0.1), (0.2, 0.1)]  # shares of few prompts can be
    assert against_draws([CONTRAST], [line(1.9, same)], 0.95) == (CONTRAST,)
    assert against_draws([CONTRAST], [line(1.9, DRAWS[:3])], 0.95) == (CONTRAST,)


def test_a_single_seed_and_other_references_stay_as_they_were():
    others = [
        CONTRAST.model_copy(update={"seed": 0}),
        CONTRAST.model_copy(update={"against": "opposite"}),
    ]
    assert against_draws(others, [line(1.9, DRAWS)], 0.95) == tuple(others)


def test_words_name_the_draws_and_tell_teachers_from_what_came_across():
    params = make_params(("smollm2-135m",), ("trait_0", "trait_1", "random_1"))
    summary = summarise(params, {cell: make_result(params, cell) for cell in params.cells()})
    (found, *_) = findings(summary, "smollm2-135m")
    assert found.contrast is not None and found.contrast.draws is None  # one direction alone
    assert "the random direction" in clause(found, "margin")
    contrast = found.contrast.model_copy(
        update={"draws": 5, "teacher": Estimate(2.0, 1.0, 3.0), "verdict": "clear"}
    )
    several = replace(found, contrast=contrast)
    assert "the students of 5 random directions" in clause(several, "margin")
    text = sentence(several, "margin")
    assert "to one more of 5 random draws" in text
    assert "how far students moved: their teacher did stand apart" in text
    assert "the slopes say how much of it came across" in text
