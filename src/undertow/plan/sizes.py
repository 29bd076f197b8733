"""Sizes that a study needs beside its power: students on either side, and rows for the audit."""

from typing import Literal, NamedTuple

from undertow.analysis.summary import Summary
from undertow.config import Params
from undertow.stats.allocation import (
    MOST_CONTROLS,
    MOST_SEEDS,
    Allocation,
    cheapest,
    fixed_budget,
    rows_to_pass,
)
from undertow.study.audit_records import MeasureName
from undertow.study.records import Record

EVERYDAY = 0.1  # of answers hold a phrase for the trait by chance, where nothing is measured
PASSING = 0.8  # of carriers without a trace that are to pass
SHARES: tuple[MeasureName, ...] = ("trait", "phrases", "counter_phrases")


class Wanted(NamedTuple):
    half_width: float | None
    students: int | None


class AllocationRecord(Record):
    """Students of one model for an interval of +-half_width of an arm's shift."""

    wanted: Literal["interval", "students"]
    target: float
    seeds: int | None  # of every arm; null with a reason
    control_seeds: int | None
    students: int | None
    half_width: float | None
    reason: str | None


class AuditRows(Record):
    """Rows, all seeds together, at which most carriers without a trace pass their audit."""

    needed: int | None  # null: no number that was tried
    planned: int
    share: float  # of the control's answers that show what the audit looks for
    source: Literal["results", "assumed"]
    passing: float


def shared_arms(params: Params) -> int:
    """Arms that share one control, trait and random, at least one."""
    return max(sum(not arm.is_control for arm in params.arms), 1)


def allocation(arms: int, seed_sd: float, wanted: Wanted) -> tuple[AllocationRecord, ...]:
    """What was asked for: the cheapest students for an interval, the best use of so many."""
    found = []
    if wanted.half_width is not None:
        none = f"up to {MOST_SEEDS} seeds and {MOST_CONTROLS} control seeds do not give it"
        best = cheapest(arms, seed_sd, wanted.half_width)
        found.append(_record("interval", wanted.half_width, best, none))
    if wanted.students is not None:
        none = f"{arms} arms and their control need at least {arms + 1}"
        best = fixed_budget(arms, wanted.students, seed_sd)
        found.append(_record("students", wanted.students, best, none))
    return tuple(found)


def _record(
    wanted: Literal["interval", "students"], target: float, best: Allocation | None, none: str
) -> AllocationRecord:
    return AllocationRecord(
        wanted=wanted,
        target=target,
        seeds=best and best.seeds,
        control_seeds=best and best.control_seeds,
        students=best and best.students,
        half_width=best and best.half_width,
        reason=None if best else none,
    )


def audit_rows(params: Params, summary: Summary | None) -> AuditRows:
    """By the largest share that the control's own audit found, else by an assumed one."""
    found = [
        level
        for arm in (() if summary is None else summary.arms)
        if arm.audit is not None and not arm.is_control
        for name in SHARES
        if name in arm.audit.pooled.measures
        and (level := arm.audit.pooled.measures[name].reference.value) is not None
    ]
    share = max(found, default=EVERYDAY)
    bounds = params.audit
    return AuditRows(
        needed=rows_to_pass(share, bounds.max_excess, bounds.confidence, PASSING),
        planned=(params.carrier.keep or params.carrier.prompts) * len(params.grid.seeds),
        share=share,
        source="results" if found else "assumed",
        passing=PASSING,
    )
