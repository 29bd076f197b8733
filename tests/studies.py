"""Grids of results with stated counts: every verdict is given, none is simulated by a model."""

from collections.abc import Mapping, Sequence

from factories import make_params, make_result
from undertow.config import Cell, Params
from undertow.study.records import CellResult, Readout

STRENGTHS = ("0", "0.05", "0.10", "0.15", "0.20", "0.25", "0.30")
TEACHER = (0.02, 0.08, 0.22, 0.45, 0.68, 0.84, 0.92)


def with_students(
    params: Params,
    students: Mapping[tuple[str, str, int], Sequence[bool]],
    teachers: Mapping[str, Sequence[bool]] | None = None,
) -> dict[Cell, CellResult]:
    """A grid whose verdicts are these: (model, arm, seed) -> student, arm -> teacher."""
    grid = {}
    for cell in params.cells():
        result = make_result(params, cell)
        ids = list(result.teacher.margins)
        replaced = {}
        if (cell.model, cell.arm.name, cell.seed) in students:
            replaced["student"] = students[cell.model, cell.arm.name, cell.seed]
        if teachers and cell.arm.name in teachers:
            replaced["teacher"] = teachers[cell.arm.name]
        readouts = {
            subject: Readout(
                verdicts=dict(zip(ids, map(bool, shown), strict=True)),
                margins=getattr(result, subject).margins,
            )
            for subject, shown in replaced.items()
        }
        grid[cell] = result.model_copy(update=readouts)
    return grid


def first(count: int, of: int = 100) -> list[bool]:
    """So many prompts show the trait, the first ones."""
    return [index < count for index in range(of)]


def counted(
    counts: Mapping[str, Sequence[Sequence[int]]],
    *,
    sign: str = "",
    strengths: Sequence[str] = STRENGTHS,
    prompts: int = 100,
    extra_arms: Sequence[str] = (),
    teacher: Sequence[float] = TEACHER,
) -> tuple[Params, dict[Cell, CellResult]]:
    """A study with these successes: model -> [strength][seed]. `sign` "-" turns the strengths.

    Students of extra arms show the trait on five prompts.
    """
    arms = ["trait_0", *(f"trait_{sign}{strength}" for strength in strengths[1:])]
    seeds = tuple(range(len(next(iter(counts.values()))[0])))
    params = make_params(
        models=tuple(counts),
        arms=(*arms, *extra_arms),
        seeds=seeds,
        evaluation={"prompts": prompts},
        statistics={"resamples": 100},
    )
    students = {
        (model, arm, seed): first(count, prompts)
        for model, rows in counts.items()
        for arm, row in zip(arms, rows, strict=True)
        for seed, count in zip(seeds, row, strict=True)
    }
    students |= {
        (model, arm, seed): first(5, prompts)
        for model in counts
        for arm in extra_arms
        for seed in seeds
    }
    teachers = {
        arm: first(round(rate * prompts), prompts) for arm, rate in zip(arms, teacher, strict=False)
    }
    return params, with_students(params, students, teachers)


HINGE = ((3, 4, 4), (3, 2, 5), (4, 3, 6), (5, 3, 3), (15, 20, 22), (30, 35, 28), (50, 44, 53))


LINE = (
    (4, 2, 3),
    (9, 12, 11),
    (20, 15, 18),
    (25, 30, 28),
    (33, 39, 35),
    (40, 47, 44),
    (50, 57, 55),
)


FLAT = (
    (30, 31, 28),
    (33, 29, 30),
    (27, 34, 30),
    (31, 30, 29),
    (28, 33, 32),
    (30, 27, 33),
    (31, 29, 30),
)
