"""The estimates of one snapshot, computed anew from its cells."""

from typing import NamedTuple

from undertow.analysis.defences import with_defences
from undertow.analysis.rounds import with_rounds
from undertow.analysis.students import with_students
from undertow.analysis.summarise import summarise
from undertow.analysis.summary import ArmSummary, ChainArm, DefenceArm, StudentArm, Summary
from undertow.compare.records import Measure
from undertow.compare.revisions import Snapshot
from undertow.config import Cell, StatisticsSettings
from undertow.stats.intervals import Estimate
from undertow.study.records import ReadoutName


class StatedVerdict(NamedTuple):
    """What a verdict of a summary is about."""

    model: str
    arm: str | None
    readout: ReadoutName | None
    subject: str


class Computed:
    """The estimates of one side; an arm that lacks a cell has none."""

    def __init__(self) -> None:
        self.arms: dict[tuple[str, str], ArmSummary] = {}
        self.stated: dict[StatedVerdict, str] = {}

    def add(self, summary: Summary) -> None:
        self.arms |= {(arm.model, arm.arm): arm for arm in summary.arms}
        self.stated |= _stated(summary)

    def tau(self, model: str, arm: str, readout: ReadoutName) -> Estimate | None:
        found = self.arms.get((model, arm))
        return None if found is None else found.by(readout).tau


def compute(side: Snapshot, statistics: StatisticsSettings) -> Computed:
    """Estimates of every arm that is whole; of all at once where no cell is missing."""
    found = Computed()
    params = side.params.model_copy(update={"statistics": statistics})
    if not side.missing:
        found.add(summarise(params, side.results))
        return found
    for model in params.grid.models:
        whole = [
            arm
            for arm in params.arms
            if all(Cell(model, arm, seed) in side.results for seed in params.seeds_of(arm))
        ]
        if params.control not in whole:
            continue
        names = tuple(arm.name for arm in whole if arm.adapter is None)
        adapters = tuple(arm.name for arm in whole if arm.adapter is not None)
        update = {"models": (model,), "arms": names, "adapters": adapters}
        grid = params.grid.model_copy(update=update)
        reduced = params.model_copy(update={"grid": grid})
        summary = summarise(reduced, {cell: side.results[cell] for cell in reduced.cells()})
        found.add(summary)
        if len(whole) < len(params.arms):
            # A curve through other points is another curve.
            found.stated = {
                key: verdict
                for key, verdict in found.stated.items()
                if key.model != model or key.arm is not None
            }
    return found


def _stated(summary: Summary) -> dict[StatedVerdict, str]:
    """Verdicts that the summary itself states: dose-response fits and contrasts of students.

    Read by name from its JSON form, so that a summary without them has none.
    """
    raw = summary.model_dump(mode="json")
    doses = {
        StatedVerdict(dose["model"], None, None, f"dose-response over {dose['x']}"): dose["verdict"]
        for dose in raw.get("doses", [])
    }
    contrasts = {
        StatedVerdict(each["model"], each["arm"], each["readout"], f"against {each['against']}"): (
            each["verdict"]
        )
        for each in raw.get("contrasts", [])
        # The one against the control is the student's own shift, which has its interval here.
        if each["seed"] is None and each["against"] != "control"
    }
    return doses | contrasts


class Further:
    """What one side says of recipes and rounds whose students are all there."""

    def __init__(self) -> None:
        self.defences: dict[tuple[str, str, str], DefenceArm] = {}
        self.students: dict[tuple[str, str, str], StudentArm] = {}
        self.chains: dict[tuple[str, tuple[str, ...], str], ChainArm] = {}

    def of_recipe(
        self, model: str, student: str, arm: str, readout: ReadoutName, measure: Measure
    ) -> Estimate | None:
        defence = self.defences.get((model, student, arm))
        own = self.students.get((model, student, arm))
        if defence is None or own is None:
            return None
        return own.by(readout).tau if measure == "tau" else defence.by(readout).removed[0]

    def of_chain(
        self,
        model: str,
        students: tuple[str, ...],
        arm: str,
        readout: ReadoutName,
        round: int | None,
    ) -> Estimate | None:
        """tau of a round, or the mean step; a chain that ends earlier has its rounds' taus."""
        for (own, names, steered), chain in self.chains.items():
            if (own, steered) != (model, arm) or names != students[: len(names)]:
                continue
            if round is None:
                return chain.step(readout) if names == students else None
            return chain.rounds[round - 1].by(readout).tau if round <= len(names) else None
        return None


def compute_further(side: Snapshot, statistics: StatisticsSettings) -> Further:
    """Of every model whose plain students are all there."""
    found = Further()
    models = tuple(
        model
        for model in side.params.grid.models
        if not any(cell.model == model for cell in side.missing)
    )
    if not models or not side.others:
        return found
    grid = side.params.grid.model_copy(update={"models": models})
    params = side.params.model_copy(update={"statistics": statistics, "grid": grid})
    whole = {
        (model, student)
        for model in models
        for student in params.further_students
        if all(cell in side.others for cell in params.cells(student) if cell.model == model)
    }
    others = {c: r for c, r in side.others.items() if (c.model, c.student) in whole}
    plain = {cell: side.results[cell] for cell in params.cells()}
    summary = with_students(summarise(params, plain), params, others)
    summary = with_defences(summary, params, plain, others)
    summary = with_rounds(summary, params, plain | {**side.others}, {})
    found.students = {(each.model, each.student, each.arm): each for each in summary.students}
    found.defences = {(each.model, each.student, each.arm): each for each in summary.defences}
    found.chains = {(each.model, each.students, each.arm): each for each in summary.rounds}
    return found
