"""From two snapshots of a study to what lies between them.

Words come from intervals alone. Both sides are computed anew from their cells, with the
statistics settings of the later one, so that two intervals side by side mean the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from undertow.analysis.summary import METHOD, ArmSummary
from undertow.compare.cells import cell_changes
from undertow.compare.computed import StatedVerdict, compute, compute_further
from undertow.compare.differences import (
    IndependentArm,
    PairedArm,
    Sides,
    differences_of,
    unknown,
)
from undertow.compare.engines import engine_notes
from undertow.compare.further import recipe_changes, round_changes
from undertow.compare.records import (
    CellChange,
    ChangedParam,
    Comparison,
    Difference,
    MissingCell,
    RecipeChange,
    RevisionRecord,
    RoundChange,
    TauChange,
    VerdictChange,
)
from undertow.compare.revisions import Snapshot
from undertow.config import Cell, Params
from undertow.config.dotted import flat
from undertow.findings.numbers import READOUTS
from undertow.stats.intervals import Estimate
from undertow.study.records import ReadoutName

ABSENT = "<absent>"


def compare(before: Snapshot, after: Snapshot) -> Comparison:
    """Parameters, cells, taus and verdicts that differ between two snapshots."""
    statistics = after.params.statistics
    sides = Sides(before, after)
    old, new = compute(before, statistics), compute(after, statistics)
    cells, unchanged = cell_changes(before, after)
    taus: list[TauChange] = []
    verdicts: list[VerdictChange] = []
    for model, arm in _arms(before.params, after.params):
        first, second = old.arms.get((model, arm)), new.arms.get((model, arm))
        for readout in READOUTS:
            if first is None or second is None:
                difference = unknown(_why_absent(sides, model, arm))
            else:
                found = differences_of(sides, model, arm, readout)
                old_arm, new_arm = first.by(readout), second.by(readout)
                difference = found.tau(old_arm.tau, new_arm.tau)
                verdicts += _verdicts((first, second), found, readout)
            taus.append(
                TauChange(
                    model=model,
                    arm=arm,
                    readout=readout,
                    before=old.tau(model, arm, readout),
                    after=new.tau(model, arm, readout),
                    difference=difference,
                )
            )
    verdicts += _stated_verdicts(old.stated, new.stated)
    further = compute_further(before, statistics), compute_further(after, statistics)
    recipes, rounds = recipe_changes(sides, *further), round_changes(sides, *further)
    params = _params(before.params, after.params)
    missing = [*_missing(before, "before"), *_missing(after, "after")]
    return Comparison(
        before=RevisionRecord(label=before.label, commit=before.commit),
        after=RevisionRecord(label=after.label, commit=after.commit),
        headline=" ".join(
            [
                _headline(params, cells, taus, missing, statistics.confidence),
                *_of_further(recipes, rounds, statistics.confidence),
            ]
        ),
        confidence=statistics.confidence,
        resamples=statistics.resamples,
        params=tuple(params),
        cells=tuple(cells),
        cells_unchanged=unchanged,
        taus=tuple(taus),
        recipes=tuple(recipes),
        rounds=tuple(rounds),
        verdicts=tuple(verdicts),
        missing=tuple(missing),
        notes=tuple(_notes(sides)),
    )


def _arms(before: Params, after: Params) -> dict[tuple[str, str], None]:
    """Model and name of every arm of either grid but the controls, the later grid first."""
    return {
        (model, arm.name): None
        for params in (after, before)
        for model in params.grid.models
        for arm in params.arms
        if not arm.is_control
    }


def _params(before: Params, after: Params) -> list[ChangedParam]:
    """Every key whose value differs, defaults filled in on both sides."""
    first, second = (dict(flat(params.model_dump(mode="json"))) for params in (before, after))
    return [
        ChangedParam(key=key, before=first.get(key), after=second.get(key))
        for key in {**first, **second}
        if first.get(key, ABSENT) != second.get(key, ABSENT)
    ]


def _why_absent(sides: Sides, model: str, arm: str) -> str:
    for side, name in ((sides.before, "second"), (sides.after, "first")):
        params = side.params
        known = {each.name for each in params.arms}
        if model not in params.grid.models or arm not in known:
            return f"only the {name} revision has this arm"
    return "a cell of this arm or of the control has no result on one side"


def _verdicts(
    arms: tuple[ArmSummary, ArmSummary], found: PairedArm | IndependentArm, readout: ReadoutName
) -> Iterable[VerdictChange]:
    old, new = (arm.by(readout) for arm in arms)
    teacher = found.teacher_shift(old.teacher_shift, new.teacher_shift)
    student = found.student_shift(old.student_shift, new.student_shift)
    read_off: tuple[tuple[str, str, str, str, Difference], ...] = (
        ("tau", _defined(old.tau), _defined(new.tau), "teacher's shift", teacher),
        (
            "student",
            _clear(old.student_shift),
            _clear(new.student_shift),
            "student's shift",
            student,
        ),
    )
    for subject, before, after, rests_on, difference in read_off:
        if before != after:
            yield VerdictChange(
                model=arms[0].model,
                arm=arms[0].arm,
                readout=readout,
                subject=subject,
                before=before,
                after=after,
                rests_on=rests_on,
                difference=difference,
            )


def _defined(tau: Estimate) -> str:
    return "defined" if tau.value is not None else "undefined"


def _clear(shift: Estimate) -> str:
    if shift.value is None:
        return "unknown"
    return "not clear of the control" if not shift.excludes_zero else "clear of the control"


def _stated_verdicts(
    old: Mapping[StatedVerdict, str], new: Mapping[StatedVerdict, str]
) -> list[VerdictChange]:
    return [
        VerdictChange(
            **about._asdict(),
            before=old[about],
            after=new[about],
            rests_on=None,
            difference=None,
        )
        for about in old
        if about in new and old[about] != new[about]
    ]


def _missing(side: Snapshot, name: Literal["before", "after"]) -> list[MissingCell]:
    """Every plain cell, and the first one of any other recipe or round."""
    firsts: dict[tuple[str, str], Cell] = {}
    for cell in side.no_others:
        firsts.setdefault((cell.model, cell.student), cell)
    gaps = {**side.missing, **{cell: side.no_others[cell] for cell in firsts.values()}}
    return [
        MissingCell(cell=cell.key, side=name, reason=gap.reason, remedy=gap.remedy)
        for cell, gap in gaps.items()
    ]


def _notes(sides: Sides) -> Iterable[str]:
    for side in (sides.before, sides.after):
        if side.method is not None and side.method != METHOD:
            yield (
                f"The method changed, not the data: summary.json of {side.label} was computed by "
                f"method {side.method}, this version's is {METHOD}. Here both sides are computed "
                "anew from their cells; intervals that differ from that file's do so by method."
            )
        if side.has_cross:
            yield (
                f"{side.label} is from before there were recipes and calls students of another "
                "base cross: they are not compared."
            )
    if sides.unpaired:
        yield f"Differences take the two sides as independent: {sides.unpaired}."
    judges = [
        {result.judge_fingerprint for result in side.results.values()}
        for side in (sides.before, sides.after)
    ]
    if all(judges) and judges[0] != judges[1]:
        yield "The two sides were judged by different judges: differences by rate include that."
    yield from engine_notes(sides.before, sides.after)


def _headline(
    params: Sequence[ChangedParam],
    cells: Sequence[CellChange],
    taus: Sequence[TauChange],
    missing: Sequence[MissingCell],
    confidence: float,
) -> str:
    if not (params or cells or missing):
        return "Nothing changed: the same parameters and the same cells."
    counts: dict[str, int] = {}
    for cell in cells:
        counts[cell.state] = counts.get(cell.state, 0) + 1
    states = ", ".join(f"{count} {_state(state)}" for state, count in counts.items())
    parts = [
        f"{_counted(len(params), 'parameter')} changed.",
        f"Cells: {states}." if states else "No cell changed.",
    ]
    known = [tau for tau in taus if tau.difference.word not in ("unknown", "same data")]
    clear = [tau for tau in known if tau.difference.word in ("higher", "lower")]
    if known and clear:
        names = ", ".join(
            f"{tau.model} {tau.arm} by {tau.readout} ({tau.difference.word})" for tau in clear
        )
        chance = (1 - confidence) * len(known)
        parts.append(
            f"Differ by more than their noise, {len(clear)} of {len(known)} comparable taus: "
            f"{names}. (By chance alone, {chance:.2g} of {len(known)} would.)"
        )
    elif known:
        parts.append(f"None of {len(known)} comparable taus differs by more than its noise.")
    elif any(tau.difference.word == "same data" for tau in taus):
        parts.append("Every tau that both sides have rests on the same data.")
    else:
        parts.append("No tau can be compared.")
    if missing:
        parts.append(f"{_counted(len(missing), 'result')} could not be had; see below.")
    return " ".join(parts)


def _of_further(
    recipes: Sequence[RecipeChange], rounds: Sequence[RoundChange], confidence: float
) -> Iterable[str]:
    """Of the shares removed and of the step ratios that differ by more than their noise."""
    removed = [
        (f"{each.model} {each.student} {each.arm}", each.readout, each.difference)
        for each in recipes
        if each.measure == "removed"
    ]
    steps = [
        (f"{each.model} {each.students[-1]} {each.arm}", each.readout, each.difference)
        for each in rounds
        if each.round is None
    ]
    for what, changes in (("shares removed by recipes", removed), ("step ratios", steps)):
        known = [each for each in changes if each[2].word not in ("unknown", "same data")]
        clear = [
            f"{name} by {readout} ({difference.word})"
            for name, readout, difference in known
            if difference.word in ("higher", "lower")
        ]
        if known:
            chance = f"{(1 - confidence) * len(known):.2g} of {len(known)}"
            named = f": {', '.join(clear)}. (By chance alone, {chance} would.)" if clear else "."
            yield (
                f"Of {len(known)} comparable {what}, {len(clear) or 'none'} differ by more than "
                f"their noise{named}"
            )


def _state(state: str) -> str:
    return {
        "other readouts": "with other readouts",
        "same readouts": "run again with the same readouts",
    }.get(state, state)


def _counted(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}".capitalize()
