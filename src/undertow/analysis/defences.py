"""What each recipe keeps out of the student, and what the student fails to learn for it.

Every recipe is set beside the plain students of the same teachers, and beside its placebo. A
student that merely learns less takes over less of everything, the trait included: recipes that
change nothing but epochs or rate draw the line that a defence has to beat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from undertow.analysis.mechanism import SeedRange
from undertow.analysis.readings import readings_of
from undertow.analysis.returns import Kind, returns
from undertow.analysis.summary import DefenceArm, DefenceSeed, Summary, Worth
from undertow.config import PLAIN, Arm, Cell, Params
from undertow.stats.draws import Draws, drawn
from undertow.stats.intervals import Estimate
from undertow.stats.transfer import Readings
from undertow.stats.worth import (
    Asked,
    Found,
    Rows,
    beyond_line,
    estimated,
    line_of,
    no_reference,
    together,
)
from undertow.study.records import AnswerFit, CellResult, ReadoutName

READOUTS: tuple[ReadoutName, ...] = ("margin", "rate")
NO_PLACEBO = "the recipe has no placebo in this study"
FEW = "fewer than two held-back answers have a reading by every student of the arm"
NO_FIT = "how well students of this arm predict held-back answers of their teacher was not measured"


Results = Mapping[str, Mapping[Cell, CellResult]]  # recipe -> plain cell -> result, one model's
Fits = dict[str, AnswerFit]  # of one student, by prompt


class Learned(NamedTuple):
    """On held-back answers of the arm's teacher: what students of a kind have gained over the base
    as a share of what plain ones have, in nats a token, and how much less than plain that is."""

    share: Found
    gained: Found
    less: Found


def with_defences(
    summary: Summary,
    params: Params,
    grid: Mapping[Cell, CellResult],
    others: Mapping[Cell, CellResult],
    residue: Mapping[tuple[str, str, str], SeedRange] | None = None,
    losses: Mapping[tuple[str, str], float] | None = None,
) -> Summary:
    """The summary with what every recipe is worth; unchanged where only plain was trained.

    others: as students.with_students takes them; a recipe of a model whose cells are not all
    there is left out. residue: along the direction, by model, recipe and arm. losses: of control
    students (losses.control_losses), by model and recipe.
    """
    found = [
        record
        for model in params.grid.models
        for record in _of_model(params, model, grid, others, residue or {}, losses or {})
    ]
    return summary.model_copy(update={"defences": tuple(found)}) if found else summary


def learns_less(params: Params, student: str) -> bool:
    """Whether a recipe changes epochs or learning rate alone, and makes neither larger."""
    recipe, plain = params.recipe(student), params.distillation
    own = params.distillation_of(student)
    changed = recipe.model_dump(exclude_defaults=True).keys() - {"placebo_of"}
    less = own.epochs <= plain.epochs and own.learning_rate <= plain.learning_rate
    return bool(changed) and changed <= {"epochs", "learning_rate"} and less


def trained(params: Params, student: str) -> float:
    """How much, for the order of recipes that differ in epochs or rate alone."""
    own = params.distillation_of(student)
    return round(own.epochs * own.learning_rate, 12)


def defended(params: Params, others: Mapping[Cell, CellResult], model: str) -> tuple[str, ...]:
    """The recipes of a model whose cells are all there; a student of another base is no defence."""
    return tuple(
        student
        for student in params.further_students
        if params.recipe(student).base is None
        and all(cell in others for cell in params.cells(student) if cell.model == model)
    )


def _of_model(
    params: Params,
    model: str,
    grid: Mapping[Cell, CellResult],
    others: Mapping[Cell, CellResult],
    residue: Mapping[tuple[str, str, str], SeedRange],
    losses: Mapping[tuple[str, str], float],
) -> list[DefenceArm]:
    students = defended(params, others, model)
    arms = [arm for arm in params.arms if arm.teaches_trait]
    if not students or not arms:
        return []
    results: dict[str, dict[Cell, CellResult]] = {name: {} for name in (PLAIN, *students)}
    for cell, result in (*grid.items(), *others.items()):
        if cell.model == model and cell.student in results:
            results[cell.student][cell.plain] = result
    study = _Study(params, model, results, students, arms)
    learned = study.learned()
    worth = {readout: study.worth(readout, learned) for readout in READOUTS}
    less = {kind: learned[kind].less for kind in study.kinds}
    less_at_once = together(less, study.confidence)
    back = [each for readout in READOUTS for each in returns(study, readout, worth[readout])]
    return [
        DefenceArm(
            model=model,
            student=kind.student,
            arm=kind.arm.name,
            strength=kind.arm.strength,
            placebo=study.placebos.get(kind.student),
            placebo_of=params.recipe(kind.student).placebo_of,
            draws_line=learns_less(params, kind.student),
            margin=worth["margin"][kind],
            rate=worth["rate"][kind],
            learned=learned[kind].share.estimate,
            learned_control=learned[Kind(kind.student, params.control)].share.estimate,
            gain_plain=learned[Kind(PLAIN, kind.arm)].gained.estimate,
            gain_less=learned[kind].less.estimate,
            gain_less_at_once=less_at_once[kind],
            seeds=study.seeds(kind),
            seconds=study.cost(kind, "seconds"),
            tokens_trained=study.cost(kind, "tokens_trained"),
            residue=residue.get((model, kind.student, kind.arm.name)),
            loss_control=losses.get((model, kind.student)),
            loss_control_plain=losses.get((model, PLAIN)),
            returns=tuple(each for of, each in back if of == kind),
        )
        for kind in study.kinds
    ]


class _Study:
    """One model's students of all recipes."""

    def __init__(
        self,
        params: Params,
        model: str,
        results: Results,
        students: Sequence[str],
        arms: Sequence[Arm],
    ) -> None:
        self.params, self.model, self.results = params, model, results
        self.kinds = [Kind(student, arm) for student in students for arm in arms]
        self.placebos = {
            of: name
            for name in students
            if (of := params.recipe(name).placebo_of) is not None and of in students
        }
        settings = params.statistics
        self.confidence = settings.confidence
        self.draws: Draws = drawn(settings.resamples, settings.seed, settings.confidence)
        self.number = {name: index for index, name in enumerate((PLAIN, *students))}
        self.asked: dict[ReadoutName, dict[Kind, Asked]] = {}  # what each removes

    def result(self, kind: Kind, seed: int) -> CellResult:
        return self.results[kind.student][Cell(self.model, kind.arm, seed)]

    def streams(self, kind: Kind) -> tuple[int, int]:
        """Of the errors between seeds: a stream per recipe and arm, the control among them."""
        many = len(self.params.arms)
        first = 1 + self.number[kind.student] * many
        order = self.params.arms
        return first + order.index(kind.arm), first + order.index(self.params.control)

    # What was not taken over

    def worth(self, readout: ReadoutName, learned: Mapping[Kind, Learned]) -> dict[Kind, Worth]:
        readings = {
            kind: self.readings(kind, readout)
            for kind in (*self.kinds, *(Kind(PLAIN, arm) for arm in self.arms))
        }
        names = ("shift", "tau", "placebo_shift", "placebo_tau", "removed")
        asked: dict[str, dict[Kind, Asked]] = {name: {} for name in names}
        for kind in self.kinds:
            for name, of in (("", PLAIN), ("placebo_", self.placebos.get(kind.student))):
                if of is None:
                    continue
                whole, shift, teacher = self.paired(readings, Kind(of, kind.arm), kind, readout)
                streams = self.streams(kind)
                asked[f"{name}shift"][kind] = Asked(shift, None, streams)
                asked[f"{name}tau"][kind] = Asked(shift, teacher, streams)
                if not name:
                    asked["removed"][kind] = Asked(shift, whole, streams)
        self.asked[readout] = asked["removed"]
        found = {name: estimated(each, self.draws) for name, each in asked.items()}
        line = self.line(found["removed"], learned)
        found["beyond"] = self.beyond(found["removed"], learned, line)
        lines = {arm: line_of(learned[Kind(PLAIN, arm)].gained, line[arm]) for arm in self.arms}
        at_once = {name: together(each, self.confidence) for name, each in found.items()}

        def estimate(name: str, kind: Kind) -> tuple[Estimate, Estimate]:
            if kind not in found[name]:
                unknown = Estimate.unknown(NO_PLACEBO)
                return unknown, unknown
            return found[name][kind].estimate, at_once[name][kind]

        return {
            kind: Worth(
                less_shift=estimate("shift", kind),
                less_tau=estimate("tau", kind),
                less_shift_than_placebo=estimate("placebo_shift", kind),
                less_tau_than_placebo=estimate("placebo_tau", kind),
                removed=estimate("removed", kind),
                beyond_line=estimate("beyond", kind),
                line=lines[kind.arm],
            )
            for kind in self.kinds
        }

    @property
    def arms(self) -> list[Arm]:
        return list(dict.fromkeys(kind.arm for kind in self.kinds))

    def readings(
        self,
        kind: Kind,
        readout: ReadoutName,
        results: Mapping[Cell, CellResult] | None = None,
    ) -> Readings:
        """results: in the place of the recipe's own."""
        params = self.params
        return readings_of(
            results or self.results[kind.student],
            params.control,
            self.model,
            kind.arm,
            params.seeds_of(kind.arm, kind.student),
            readout,
            params.seeds_of(params.control, kind.student),
        )

    def paired(
        self, readings: Mapping[Kind, Readings], of: Kind, kind: Kind, readout: ReadoutName
    ) -> tuple[Rows, Rows, Rows]:
        """Of the first: its shift, what of it the second has not, and the teacher's shift."""
        first, second = readings[of], readings[kind]
        teacher = np.broadcast_to(first.teacher, first.student.shape)
        rows = [first.base[None], teacher]
        rows += [read for each in (first, second) for read in (each.control, each.student)]
        known = ~np.isnan(np.concatenate(rows)).any(axis=0)
        base, teacher, control, student, other_control, other = (r[:, known] for r in rows)
        is_rate = readout == "rate"
        numbers = [10 * self.number[each.student] for each in (of, kind)]

        def signs(number: int) -> tuple[tuple[int, int], ...]:
            return ((number + 3, 1), (number + 2, -1)) if is_rate else ()

        whole = Rows(student, control, signs(numbers[0]))
        shift = whole.minus(Rows(other, other_control, signs(numbers[1])))
        push = Rows(
            teacher - base, no_reference(base.shape[1]), ((1, 1), (0, -1)) if is_rate else ()
        )
        return whole, shift, push

    def line(
        self, removed: Mapping[Kind, Found], learned: Mapping[Kind, Learned]
    ) -> dict[Arm, list[tuple[Found, Found]]]:
        """What is removed and gained by those who merely learn less, the least trained first."""
        less = [kind for kind in self.kinds if learns_less(self.params, kind.student)]

        def order(kind: Kind) -> tuple[float, float]:
            gained = learned[kind].gained.estimate.value
            return trained(self.params, kind.student), gained or 0.0

        return {
            arm: [
                (removed[kind], learned[kind].gained)
                for kind in sorted(less, key=order)
                if kind.arm == arm
            ]
            for arm in self.arms
        }

    def beyond(
        self,
        removed: Mapping[Kind, Found],
        learned: Mapping[Kind, Learned],
        line: Mapping[Arm, Sequence[tuple[Found, Found]]],
    ) -> dict[Kind, Found]:
        return {
            kind: beyond_line(
                removed[kind],
                learned[kind].gained,
                learned[Kind(PLAIN, kind.arm)].gained,
                line[kind.arm],
                self.confidence,
            )
            for kind in self.kinds
        }

    def cells_of(self, kind: Kind) -> dict[Cell, CellResult]:
        """The students of an arm and of their control."""
        arms = (kind.arm, self.params.control)
        return {c: r for c, r in self.results[kind.student].items() if c.arm in arms}

    # What was learned

    def learned(self) -> dict[Kind, Learned]:
        """Of every recipe and arm, the control among them, and of plain; nats per token of an
        average answer: a long one weighs more, as it does in training."""
        share: dict[Kind, Asked] = {}
        gained: dict[Kind, Asked] = {}
        less: dict[Kind, Asked] = {}
        missing: dict[Kind, str] = {}
        for arm in (*self.arms, self.params.control):
            rows = self.gains(arm)
            for student in self.number:
                kind, own, plain = Kind(student, arm), rows[student], rows[PLAIN]
                streams = self.streams(kind)
                if isinstance(plain, str):
                    missing[kind] = plain
                    continue
                if isinstance(own, str):
                    missing[kind] = own
                    continue
                gained[kind] = Asked(own, None, streams)
                if student != PLAIN:
                    share[kind] = Asked(own, plain, streams)
                    less[kind] = Asked(plain.minus(own), None, streams)
        found = [estimated(asked, self.draws) for asked in (share, gained, less)]

        def of(place: int, kind: Kind) -> Found:
            if kind in found[place]:
                return found[place][kind]
            return Found(Estimate.unknown(missing.get(kind, NO_FIT)), np.empty(0))

        kinds = (*gained, *missing)
        return {kind: Learned(of(0, kind), of(1, kind), of(2, kind)) for kind in kinds}

    def gains(self, arm: Arm) -> dict[str, Rows | str]:
        """What students of each kind have gained over the base on each answer that all of them
        were read on, or why that is not known."""
        fits = {student: self._fits(Kind(student, arm)) for student in self.number}
        read = [each for own in fits.values() if not isinstance(own, str) for each in own]
        # An answer that only some seeds were read on would weigh less than the others.
        ids = sorted(set(read[0]).intersection(*read[1:])) if read else []
        if len(ids) < 2:
            return {name: own if isinstance(own, str) else FEW for name, own in fits.items()}
        tokens = np.mean([[fit[id].tokens for id in ids] for fit in read])

        def rows(own: Sequence[Fits]) -> Rows:
            gains = [[fit[id].base_nll - fit[id].student_nll for id in ids] for fit in own]
            return Rows(np.array(gains) / tokens, no_reference(len(ids)))

        return {name: own if isinstance(own, str) else rows(own) for name, own in fits.items()}

    def _fits(self, kind: Kind) -> list[Fits] | str:
        found = []
        for seed in self.params.seeds_of(kind.arm, kind.student):
            result = self.result(kind, seed)
            if result.fit is None:
                return result.fit_reason or NO_FIT
            found.append(result.fit)
        return found

    # By seed, for runs of their own

    def seeds(self, kind: Kind) -> tuple[DefenceSeed, ...]:
        return tuple(
            DefenceSeed(seed=seed, learned=self._learned_alone(kind, seed))
            for seed in self.params.seeds_of(kind.arm, kind.student)
        )

    def _learned_alone(self, kind: Kind, seed: int) -> float | None:
        plain, own = (self.result(each, seed).fit for each in (Kind(PLAIN, kind.arm), kind))
        if plain is None or own is None:
            return None
        whole, part = (
            sum(fit.base_nll - fit.student_nll for fit in each.values()) for each in (plain, own)
        )
        return part / whole if whole > 0 else None

    def cost(self, kind: Kind, name: str) -> float | None:
        """The mean of a training's cost over seeds; None where one was not recorded."""
        costs = [
            self.result(kind, seed).costs.get("distill")
            for seed in self.params.seeds_of(kind.arm, kind.student)
        ]
        known = [float(getattr(cost, name)) for cost in costs if cost is not None]
        return sum(known) / len(known) if known and len(known) == len(costs) else None
