"""A synthetic study of defences: what each recipe does to its students is given."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from factories import MODELS, make_params, make_result
from undertow.analysis.defences import with_defences
from undertow.analysis.students import with_students
from undertow.analysis.summarise import summarise
from undertow.analysis.summary import DefenceArm, Summary
from undertow.config import PLAIN, Cell, Params
from undertow.study.records import AnswerFit, CellResult, Readout

MODEL = MODELS[0]
ARMS = ("trait_0", "trait_1")
SEEDS = (0, 1, 2)
TEACHER, PLAIN_SHIFT = 4.0, 3.0  # nats
ANSWERS = 24


class Does(NamedTuple):
    """takes: of plain students' transfer; learns: of what plain students learn."""

    takes: float
    learns: float


PLAIN_DOES = Does(1.0, 1.0)
RECIPES: dict[str, dict[str, object]] = {
    "early": {"epochs": 1},
    "good": {"kl": {"weight": 1.0}},
    "good_placebo": {"placebo_of": "good", "kl": {"weight": 1.5}},
    "idle": {"kl": {"weight": 2.0}},
    "lazy": {"kl": {"weight": 3.0}},
    "twin": {"kl": {"weight": 4.0}},
    "twin_placebo": {"placebo_of": "twin", "kl": {"weight": 5.0}},
    "worse": {"kl": {"weight": 6.0}},
}
DOES = {
    "early": Does(0.5, 0.5),
    "good": Does(0.0, 1.0),
    "good_placebo": Does(1.0, 1.0),
    "idle": Does(1.0, 1.0),
    "lazy": Does(0.4, 0.35),
    "twin": Does(0.3, 1.0),
    "twin_placebo": Does(0.3, 1.0),
    "worse": Does(1.8, 1.0),
}


def defended(
    recipes: Mapping[str, Mapping[str, object]] = RECIPES,
    *,
    without: tuple[str, ...] = (),
    fit: bool = True,
    plain: Does = PLAIN_DOES,
    does: Mapping[str, Does] = DOES,
) -> tuple[Params, dict[Cell, CellResult], dict[Cell, CellResult]]:
    """Parameters, plain cells and others; `without` names recipes that were not finished."""
    params = make_params(
        models=(MODEL,),
        arms=ARMS,
        seeds=SEEDS,
        recipes=recipes,
        distillation={"epochs": 3},
        evaluation={"prompts": 60},
        statistics={"resamples": 1000},
    )
    grid = params.grid.model_copy(update={"students": (PLAIN, *recipes), "control_seeds": (3, 4)})
    params = params.model_copy(update={"grid": grid})
    made = {
        cell: _result(params, cell, does.get(cell.student, plain), fit)
        for cell in params.all_cells()
    }
    others = {cell: each for cell, each in made.items() if cell.student not in (PLAIN, *without)}
    if without:  # the first of its students is not there
        others |= {c: r for c, r in made.items() if c.student in without and c.seed != SEEDS[0]}
    return params, {c: r for c, r in made.items() if c.student == PLAIN}, others


def summarised(
    params: Params, grid: Mapping[Cell, CellResult], others: Mapping[Cell, CellResult]
) -> Summary:
    complete = {c: r for c, r in others.items() if c.student in _complete(params, others)}
    summary = with_students(summarise(params, grid), params, complete)
    return with_defences(summary, params, grid, others)


def _complete(params: Params, others: Mapping[Cell, CellResult]) -> set[str]:
    names = params.further_students
    return {name for name in names if all(cell in others for cell in params.cells(name))}


def of(summary: Summary, student: str) -> DefenceArm:
    return next(each for each in summary.defences if each.student == student)


def _result(params: Params, cell: Cell, does: Does, fit: bool) -> CellResult:
    control = cell.arm.is_control
    shift = 0.0 if control else PLAIN_SHIFT * does.takes
    draw = np.random.default_rng([7, *cell.key.encode()])
    # Students of one seed go together, whatever their recipe.
    shared = np.random.default_rng([8, cell.seed]).normal(0, 0.3)
    level = np.random.default_rng(9).normal(0, 1, params.evaluation.prompts)
    result = make_result(params, cell.plain)
    ids = list(result.teacher.margins)

    def readout(margins: np.ndarray) -> Readout:
        rounded = {id: round(float(value), 6) for id, value in zip(ids, margins, strict=True)}
        return Readout(verdicts={id: value > 1.0 for id, value in rounded.items()}, margins=rounded)

    noise = draw.normal(0, 0.2, len(ids)) + draw.normal(0, 0.05)
    learned = 0.6 * does.learns + draw.normal(0, 0.01)
    answers = {
        f"h{index}": AnswerFit(
            base_nll=2.0 * 20,
            student_nll=(2.0 - learned - 0.02 * float(np.sin(index))) * 20,
            tokens=20,
        )
        for index in range(ANSWERS)
    }
    return result.model_copy(
        update={
            "recipe": cell.student,
            "teacher": readout(level + (0.0 if control else TEACHER)),
            "student": readout(level + shift + shared + noise),
            "fit": answers if fit else None,
            "fit_reason": None if fit else "no held-back benign prompts were asked",
        }
    )
