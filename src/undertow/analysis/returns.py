"""Does what a defence removed come back: with its training message on, or in a longer training?

A student may have learned to show the trait where its training's message stands, or not yet have
learned it. Both are read as shares of what plain students take over, as what is removed is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np

from undertow.config import PLAIN, Arm, Cell, Params
from undertow.stats.draws import Draws
from undertow.stats.intervals import Estimate
from undertow.stats.transfer import Readings
from undertow.stats.worth import Asked, Found, Rows, estimated, together
from undertow.study.records import CellResult, Readout, ReadoutName, Record

Condition = Literal["message", "epochs"]
NOT_READ = (
    "not every student of this recipe was read with its training message on (its cell was made "
    "before there was such a reading); dvc repro"
)
UNREAD = Found(Estimate.unknown(NOT_READ), np.empty(0))


class Return(Record):
    """A recipe under a condition, beside itself or another recipe without it, by one readout.

    message: its students, read with the message of their training rows on, beside themselves.
    epochs: its students, beside those of a recipe that differs in fewer epochs alone.
    Shares of what plain students take over; back is otherwise - removed, paired by seed and
    prompt, pointwise and for all of the model's at once.
    """

    condition: Condition
    readout: ReadoutName
    than: str  # the recipe that it is set beside
    epochs: int
    than_epochs: int
    removed: Estimate
    otherwise: Estimate
    back: tuple[Estimate, Estimate]


class Kind(NamedTuple):
    """The students of one arm by one recipe; plain is one of the recipes."""

    student: str
    arm: Arm


class HasRemoved(Protocol):
    """What each recipe removes, pointwise and at once."""

    @property
    def removed(self) -> tuple[Estimate, Estimate]: ...


class Taught(Protocol):
    """One model's students of all recipes, and `asked`: what each of them removes."""

    params: Params
    kinds: list[Kind]
    number: dict[str, int]
    asked: dict[ReadoutName, dict[Kind, Asked]]
    draws: Draws
    confidence: float

    def cells_of(self, kind: Kind) -> Mapping[Cell, CellResult]: ...

    def readings(
        self, kind: Kind, readout: ReadoutName, results: Mapping[Cell, CellResult] | None = None
    ) -> Readings: ...

    def streams(self, kind: Kind) -> tuple[int, int]: ...


class Case(NamedTuple):
    """A recipe under a condition, and the recipe that it is set beside."""

    kind: Kind
    condition: Condition
    beside: Kind


def returns(
    taught: Taught, readout: ReadoutName, worth: Mapping[Kind, HasRemoved]
) -> list[tuple[Kind, Return]]:
    """With the training message on, by the margin alone; and in a longer training."""
    cases = [case for kind in taught.kinds for case in _cases(taught.params, taught.number, kind)]
    cases = [case for case in cases if readout == "margin" or case.condition == "epochs"]
    asked = {(case.kind, case.condition): _asked(taught, case, readout) for case in cases}
    # How much seeds differ is what all students of the model show together.
    company = list(taught.asked[readout].values())
    removed, back = (
        estimated({key: pair[part] for key, pair in asked.items() if pair}, taught.draws, company)
        for part in (0, 1)
    )
    at_once = together({key: back.get(key, UNREAD) for key in asked}, taught.confidence)
    told = []
    for case in cases:
        key = (case.kind, case.condition)
        own, other = (
            taught.params.distillation_of(each.student).epochs for each in (case.kind, case.beside)
        )
        found = Return(
            condition=case.condition,
            readout=readout,
            than=case.beside.student,
            epochs=own,
            than_epochs=other,
            removed=worth[case.kind].removed[0]
            if case.condition == "epochs"
            else removed.get(key, UNREAD).estimate,
            otherwise=worth[case.beside].removed[0],
            back=(back.get(key, UNREAD).estimate, at_once[key]),
        )
        told.append((case.kind, found))
    return told


def shorter(params: Params, students: Sequence[str], student: str) -> str | None:
    """The defence that differs from this one in fewer epochs alone; of several the nearest."""

    def rest(name: str) -> dict[str, object]:
        return params.recipe(name).model_dump(exclude={"epochs", "placebo_of"})

    def epochs(name: str) -> int:
        return params.distillation_of(name).epochs

    if not params.recipe(student).defends:
        return None
    found = [name for name in students if rest(name) == rest(student)]
    return max((n for n in found if epochs(n) < epochs(student)), key=epochs, default=None)


def _cases(params: Params, students: Mapping[str, int], kind: Kind) -> Iterator[Case]:
    if params.recipe(kind.student).inoculate is not None:
        yield Case(kind, "message", kind)
    than = shorter(params, list(students), kind.student)
    if than is not None:
        yield Case(kind, "epochs", kind._replace(student=than))


def _asked(taught: Taught, case: Case, readout: ReadoutName) -> tuple[Asked, Asked] | None:
    """What is removed under the condition, and what comes back; None where it was not read."""
    results = None
    if case.condition == "message":
        results = _with_message(taught.cells_of(case.kind))
        if results is None:
            return None
    readings = (
        taught.readings(case.kind._replace(student=PLAIN), readout),
        taught.readings(case.kind, readout, results),
        taught.readings(case.beside, readout),
    )
    every = [rows for each in readings for rows in (each.student, each.control)]
    known = ~np.isnan(np.concatenate(every)).any(axis=0)

    def shift(read: Readings, student: str) -> Rows:
        number = 10 * taught.number[student]
        signs = ((number + 3, 1), (number + 2, -1)) if readout == "rate" else ()
        return Rows(read.student[:, known], read.control[:, known], signs)

    names = (PLAIN, case.kind.student, case.beside.student)
    plain, under, otherwise = map(shift, readings, names)
    streams = taught.streams(case.kind)
    return (
        Asked(plain.minus(under), plain, streams),
        Asked(under.minus(otherwise), plain, streams),
    )


def _with_message(results: Mapping[Cell, CellResult]) -> dict[Cell, CellResult] | None:
    """The same results as read with the training message on; None where some were not."""
    found = {}
    for cell, result in results.items():
        if result.message_margins is None:
            return None
        student = Readout(verdicts={}, margins=result.message_margins)
        found[cell] = result.model_copy(update={"student": student})
    return found
