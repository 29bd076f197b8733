"""Recipes and rounds of two snapshots: changes of tau, of what is removed, of steps."""

from collections.abc import Iterator

from undertow.compare.computed import Further
from undertow.compare.differences import Sides, independent_difference, unknown
from undertow.compare.paired import Asking, arms_of, changes_of
from undertow.compare.records import Difference, Measure, RecipeChange, RoundChange
from undertow.config import PLAIN, Arm
from undertow.findings.numbers import READOUTS
from undertow.stats.intervals import Estimate

ABSENT = "a student of it, of plain or of the control has no result on one side"
OTHER_TRAIT = "the two sides follow different traits"


def recipe_changes(sides: Sides, old: Further, new: Further) -> list[RecipeChange]:
    """tau and what is removed of every recipe on the teacher's own base, by strength."""
    found = []
    for model in _models(sides):
        keys = [
            (student, arm)
            for student, arm in _recipes(sides)
            if any((model, student, arm.name) in side.defences for side in (old, new))
        ]
        asked: dict[tuple[str, Arm, Measure], Asking] = {}
        for student, arm in keys:
            asked[student, arm, "tau"] = Asking(arm, (student,), 0)
            asked[student, arm, "removed"] = Asking(arm, (PLAIN, student), 0, less=1, bottom=0)
        for readout in READOUTS:
            changes = changes_of(sides, model, asked, readout)
            for student, arm, measure in asked:
                first, second = (
                    side.of_recipe(model, student, arm.name, readout, measure)
                    for side in (old, new)
                )
                absent = _why_absent(sides, model, student, "recipe")
                found.append(
                    RecipeChange(
                        model=model,
                        student=student,
                        arm=arm.name,
                        readout=readout,
                        measure=measure,
                        before=first,
                        after=second,
                        difference=_told(
                            first, second, changes.get((student, arm, measure)), absent, sides
                        ),
                    )
                )
    return found


def round_changes(sides: Sides, old: Further, new: Further) -> list[RoundChange]:
    """tau by round, and the mean step ratio, of every chain of either side."""
    found = []
    for model in _models(sides):
        asked: dict[tuple[tuple[str, ...], Arm, int | None], Asking] = {}
        for names in _chains(model, old, new):
            for arm in arms_of(sides):
                if arm.is_control:
                    continue
                for n, name in enumerate(names, start=1):
                    asked[names, arm, n] = Asking(arm, (names[0], name), 1)
                both, power = (names[0], names[-1]), 1 / (len(names) - 1)
                asked[names, arm, None] = Asking(arm, both, 1, bottom=0, power=power)
        for readout in READOUTS:
            changes = changes_of(sides, model, asked, readout, lineages=True)
            for names, arm, round in asked:
                first, second = (
                    side.of_chain(model, names, arm.name, readout, round) for side in (old, new)
                )
                absent = _why_absent(sides, model, names[-1], "chain of rounds")
                found.append(
                    RoundChange(
                        model=model,
                        students=names,
                        arm=arm.name,
                        readout=readout,
                        round=round,
                        before=first,
                        after=second,
                        difference=_told(
                            first, second, changes.get((names, arm, round)), absent, sides
                        ),
                    )
                )
    return found


def _chains(model: str, old: Further, new: Further) -> list[tuple[str, ...]]:
    """Of either side; one that goes on for longer stands for its beginning."""
    every = [*new.chains, *old.chains]
    found = dict.fromkeys(names for own, names, _ in every if own == model)
    return [
        names
        for names in found
        if not any(len(o) > len(names) and o[: len(names)] == names for o in found)
    ]


def _told(
    first: Estimate | None,
    second: Estimate | None,
    change: Difference | None,
    absent: str,
    sides: Sides,
) -> Difference:
    if first is None or second is None:
        return unknown(absent)
    if sides.other_trait:
        return unknown(OTHER_TRAIT)
    if change is None:
        return independent_difference(first, second)
    undefined = next((each.reason for each in (first, second) if each.value is None), None)
    return unknown(undefined) if undefined and change.word != "same data" else change


def _why_absent(sides: Sides, model: str, student: str, what: str) -> str:
    for side, name in ((sides.before, "second"), (sides.after, "first")):
        params = side.params
        names = {*params.grid.students, *(each.student for each in params.grid.rounds)}
        if student not in names or model not in params.grid.models:
            return f"only the {name} revision has this {what}"
    return ABSENT


def _models(sides: Sides) -> list[str]:
    both = (sides.after, sides.before)
    return list(dict.fromkeys(model for side in both for model in side.params.grid.models))


def _recipes(sides: Sides) -> Iterator[tuple[str, Arm]]:
    names = dict.fromkeys(
        name for side in (sides.after, sides.before) for name in side.params.further_students
    )
    for name in names:
        for arm in arms_of(sides):
            if arm.teaches_trait:
                yield name, arm
