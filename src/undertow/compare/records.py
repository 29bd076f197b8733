"""What a comparison says, as one object: the Markdown shows it and adds nothing."""

from typing import Any, Literal

from undertow.stats.intervals import Estimate
from undertow.study.records import ReadoutName, Record


class RevisionRecord(Record):
    label: str
    commit: str | None


class ChangedParam(Record):
    """A key of params.yaml; null on the side that does not have it, defaults filled in."""

    key: str
    before: Any
    after: Any


CellState = Literal["appeared", "vanished", "other readouts", "same readouts", "unknown"]


class CellChange(Record):
    """A cell that is not the same on both sides."""

    cell: str
    state: CellState
    causes: tuple[str, ...]  # parameters and files that its stages read differently
    detail: str


Word = Literal["higher", "lower", "not distinguishable", "same data", "unknown"]


class Difference(Record):
    """After minus before; `word` comes from the interval alone."""

    estimate: Estimate
    basis: Literal["paired", "independent"] | None
    prompts: int | None  # shared by both sides
    word: Word


class TauChange(Record):
    """tau of one arm by one readout; null where the arm, or its result, is on one side only."""

    model: str
    arm: str
    readout: ReadoutName
    before: Estimate | None
    after: Estimate | None
    difference: Difference


Measure = Literal["tau", "removed"]


class RecipeChange(Record):
    """One recipe and strength: its tau, or the share of plain students' transfer it removes."""

    model: str
    student: str
    arm: str
    readout: ReadoutName
    measure: Measure
    before: Estimate | None
    after: Estimate | None
    difference: Difference


class RoundChange(Record):
    """tau of one round, or, where round is null, the mean step ratio of the whole chain."""

    model: str
    students: tuple[str, ...]
    arm: str
    readout: ReadoutName
    round: int | None
    before: Estimate | None
    after: Estimate | None
    difference: Difference


class VerdictChange(Record):
    """A verdict that differs, with the difference of what it was read off."""

    model: str
    arm: str | None
    readout: ReadoutName | None
    subject: str
    before: str
    after: str
    rests_on: str | None
    difference: Difference | None


class MissingCell(Record):
    cell: str
    side: Literal["before", "after"]
    reason: str
    remedy: str


class Comparison(Record):
    """Everything between two revisions."""

    before: RevisionRecord
    after: RevisionRecord
    headline: str
    confidence: float
    resamples: int
    params: tuple[ChangedParam, ...]
    cells: tuple[CellChange, ...]
    cells_unchanged: int
    taus: tuple[TauChange, ...]
    recipes: tuple[RecipeChange, ...]
    rounds: tuple[RoundChange, ...]
    verdicts: tuple[VerdictChange, ...]
    missing: tuple[MissingCell, ...]
    notes: tuple[str, ...]
