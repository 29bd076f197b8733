"""What a study of a given size can be expected to show, and what its grid will cost.

Takes what is not stated from params.yaml and from the last report; every number says whence.
"""

import math
from dataclasses import replace
from typing import Literal, NamedTuple

from undertow.analysis.summary import ArmSummary, Summary, read_summary
from undertow.config import Params
from undertow.errors import UndertowError
from undertow.plan.costs import GridCost, grid_cost
from undertow.plan.published import published
from undertow.plan.shares import ShareOfStudies, share_of, unknown
from undertow.plan.sizes import (
    AllocationRecord,
    AuditRows,
    Wanted,
    allocation,
    audit_rows,
    shared_arms,
)
from undertow.plan.worth import DefencePower, defence_power
from undertow.stats.allocation import control_seeds
from undertow.stats.intervals import Estimate
from undertow.stats.pooled_power import expect_pooled
from undertow.stats.power import (
    Design,
    expect_interval,
    power_apart,
    power_threshold,
    sizes_to_tell_apart,
)
from undertow.stats.transfer import Transfer
from undertow.study.layout import Study
from undertow.study.records import ReadoutName, Record

ENOUGH = 0.8
EXAMPLE = "python cli.py plan --teacher 0.6 --tau 0.3 --other-tau 0.5"
NO_OTHER = "there is no second tau to tell it from; give --other-tau"
ONE_SEED = (
    "with one seed intervals and powers are about these students: two that differ by chance of "
    "their seeds count as told apart, so plan three seeds or more for a statement on models"
)
FEWEST_STRENGTHS = 3
# Simulating grows with prompts x seeds; between these bounds a plan takes seconds.
FEWEST, MOST, BUDGET = 200, 1000, 400_000

POOLED_STUDIES = 100  # a whole model each

Source = Literal["given", "params.yaml", "results", "results, by margin", "published", "assumed"]


class PlanError(UndertowError):
    """A planned study that is not stated fully, or that cannot be."""


class Wishes(NamedTuple):
    """What the user stated; None is to be looked up."""

    teacher: float | None = None
    tau: float | None = None
    other_tau: float | None = None
    base: float | None = None
    control: float | None = None
    prompts: int | None = None
    seeds: int | None = None
    seed_sd: float | None = None
    half_width: float | None = None  # of a student's shift, in the unit of seed_sd
    students: int | None = None  # of one model


class Number(Record):
    """An input and where it comes from."""

    value: float
    source: Source


class SizeRecord(Record):
    """The fewest prompts that reach the power with so many seeds; null where none tried do."""

    seeds: int
    prompts: int | None
    power: ShareOfStudies


class Plan(Record):
    """Everything that `cli.py plan` says."""

    inputs: dict[str, Number]
    interval: Estimate  # of tau: medians over studies
    undefined: ShareOfStudies  # studies without a tau
    excludes_zero: ShareOfStudies  # studies whose interval of tau excludes 0
    apart: ShareOfStudies  # the power to tell tau from other_tau
    pooled_apart: ShareOfStudies  # the same by the pooled tau of all strengths
    control_seeds: int  # that the control, which all arms share, is worth
    arms: int  # that share it
    allocations: tuple[AllocationRecord, ...]  # for a wanted interval or number of students
    audit: AuditRows
    strengths: int  # of params.yaml, on the side that has most
    threshold: ShareOfStudies  # the power to recognise a threshold
    threshold_error: ShareOfStudies  # lines that are called one
    defences: DefencePower | None  # null: no recipe beside plain, no trait arm, or one seed
    sizes: tuple[SizeRecord, ...]
    enough: float  # the power that sizes are looked for
    caution: str | None  # what the numbers above do not say
    cost: GridCost


def make_plan(study: Study, wishes: Wishes, *, studies: int | None = None) -> Plan:
    """Simulate the study and cost its grid.

    studies: simulated per number; by default as many as the size allows in seconds. Raises
    PlanError where a rate is missing or cannot be.
    """
    summary = read_summary(study.layout) if study.layout.summary.exists() else None
    inputs = _inputs(wishes, study.params, summary)
    design = Design(
        teacher=inputs["teacher"].value,
        tau=inputs["tau"].value,
        base=inputs["base"].value,
        control=inputs["control"].value,
        prompts=round(inputs["prompts"].value),
        seeds=round(inputs["seeds"].value),
        seed_sd=inputs["seed_sd"].value,
    )
    other = inputs["other_tau"].value if "other_tau" in inputs else None
    _check(design, other)
    count = studies or max(FEWEST, min(MOST, BUDGET // (design.prompts * design.seeds)))
    expected = expect_interval(design, studies=count)
    strengths, arms = strengths_of(study.params), shared_arms(study.params)
    threshold, error = _threshold(design, strengths, count)
    reason = None if expected.low is not None else "tau was undefined in every simulated study"
    return Plan(
        inputs=inputs,
        interval=Estimate(
            value=design.tau if expected.low is not None else None,
            low=expected.low,
            high=expected.high,
            reason=reason,
        ),
        undefined=share_of(expected.undefined, count),
        excludes_zero=share_of(expected.excludes_zero, count),
        apart=unknown(NO_OTHER)
        if other is None
        else share_of(power_apart(design, other, studies=count), count),
        pooled_apart=unknown(NO_OTHER) if other is None else _pooled(design, other, study),
        control_seeds=control_seeds(arms, design.seeds),
        arms=arms,
        allocations=allocation(arms, design.seed_sd, Wanted(wishes.half_width, wishes.students)),
        audit=audit_rows(study.params, summary),
        strengths=strengths,
        threshold=threshold,
        threshold_error=error,
        defences=defence_power(study.params, design.prompts, design.seeds),
        sizes=() if other is None else _sizes(design, other, studies or FEWEST),
        enough=ENOUGH,
        caution=ONE_SEED if design.seeds == 1 else None,
        cost=grid_cost(study, summary),
    )


def strengths_of(params: Params) -> int:
    """Trait strengths beside the control, on the side that has most of them."""
    alphas = [arm.alpha for arm in params.arms if arm.direction == "trait" and not arm.is_control]
    return max(sum(alpha > 0 for alpha in alphas), sum(alpha < 0 for alpha in alphas))


def _inputs(wishes: Wishes, params: Params, summary: Summary | None) -> dict[str, Number]:
    """Each number from the first of: the command line, the results, params.yaml, an assumption."""
    found: dict[str, Number] = {
        "base": Number(value=Design.base, source="assumed"),
        "control": Number(value=Design.control, source="assumed"),
        "seed_sd": Number(value=Design.seed_sd, source="assumed"),
        "prompts": Number(value=params.evaluation.prompts, source="params.yaml"),
        "seeds": Number(value=len(params.grid.seeds), source="params.yaml"),
    }
    stated: dict[str, Number] = {} if summary is None else _from_results(summary)
    stated |= {
        name: Number(value=value, source="given")
        for name, value in wishes._asdict().items()
        if value is not None and name not in ("half_width", "students")
    }
    if not {"teacher", "tau"} <= stated.keys():
        # A whole set of rates or none: published ones belong together.
        found |= {
            name: Number(value=value, source="published")
            for name, value in published(params.trait).items()
        }
    found |= stated
    missing = [name for name in ("teacher", "tau") if name not in found]
    if missing:
        options = " and ".join(f"--{name}" for name in missing)
        raise PlanError(
            f"no {' and no '.join(missing)} to plan with: "
            + (
                "there is no results/summary.json yet"
                if summary is None
                else "no trait arm of results/summary.json has a tau"
            )
            + f", and no study of the trait {params.trait} is published with this version",
            f"give {options}, for example: {EXAMPLE}",
        )
    return found


def _from_results(summary: Summary) -> dict[str, Number]:
    """Rates and tau at the largest strength of the first model that has them; the next one's
    tau is the other. Half an answer is added on both sides: a rate of 0 in the results is no
    rate that could be planned with. Where no arm has a tau by rate, it is the margin's."""
    readout: ReadoutName = "rate"
    arms = _with_tau(summary, readout)
    if not arms:
        readout = "margin"
        arms = _with_tau(summary, readout)
    if not arms:
        return {}
    base, teacher, control, student = _smoothed(arms[0].rate)
    by_rate = (student - control) / (teacher - base) if readout == "rate" else None
    taus = [arm.by(readout).tau.value for arm in arms]
    found = {"tau": taus[0] if by_rate is None else by_rate, "other_tau": (*taus, None)[1]}
    source: Source = "results" if readout == "rate" else "results, by margin"
    numbers = {
        name: Number(value=value, source=source)
        for name, value in found.items()
        if value is not None
    }
    rates = {"base": base, "teacher": teacher, "control": control}
    return numbers | {name: Number(value=rate, source="results") for name, rate in rates.items()}


def _with_tau(summary: Summary, readout: ReadoutName) -> list[ArmSummary]:
    """Of every model the arm of the largest strength that has a tau."""
    found = [
        [
            arm
            for arm in summary.views[model].trait
            if arm.by(readout).tau.value is not None and arm.degenerate is None
        ]
        for model in summary.models
    ]
    return [max(arms, key=lambda arm: abs(arm.alpha)) for arms in found if arms]


def _smoothed(rate: Transfer) -> list[float]:
    known = [rate.base, rate.teacher, rate.control, rate.student]
    return [((value or 0.0) * rate.prompts + 0.5) / (rate.prompts + 1) for value in known]


def _check(design: Design, other: float | None) -> None:
    """Every expected rate must lie between 0 and 1, both students' included."""
    rates = {
        "--teacher": design.teacher,
        "--base": design.base,
        "--control": design.control,
    }
    for option, rate in rates.items():
        if not 0 < rate < 1:
            raise PlanError(
                f"{option} {rate:g} is no rate: it must lie between 0 and 1, both excluded",
                f"give shares, not percent, for example: {EXAMPLE}",
            )
    for option, tau in (("--tau", design.tau), ("--other-tau", other)):
        if tau is None:
            continue
        student = replace(design, tau=tau).student
        if not (math.isfinite(tau) and 0 < student < 1):
            low, high = (
                sorted(
                    (edge - design.control) / (design.teacher - design.base) for edge in (0.0, 1.0)
                )
                if design.teacher != design.base
                else (math.nan, math.nan)
            )
            raise PlanError(
                f"{option} {tau:g} asks for a student at {student:.3g}, which is no rate "
                "(control + tau x (teacher - base))",
                f"with these rates {option} must lie between {low:.3g} and {high:.3g}",
            )
    if design.seed_sd < 0:
        raise PlanError(f"--seed-sd {design.seed_sd:g} is negative", "give 0 or more, as 0.3")


def _threshold(
    design: Design, strengths: int, studies: int
) -> tuple[ShareOfStudies, ShareOfStudies]:
    if strengths < FEWEST_STRENGTHS:
        none = unknown(
            f"a verdict needs {FEWEST_STRENGTHS} strengths beside the control and grid.arms has "
            f"{strengths} on one side"
        )
        return none, none
    found = power_threshold(design, strengths=strengths, studies=studies)
    return share_of(found.if_threshold, studies), share_of(found.if_line, studies)


def _pooled(design: Design, other: float, study: Study) -> ShareOfStudies:
    """The power by the pooled tau, with the strengths and control students of params.yaml."""
    found = expect_pooled(
        design,
        strengths=max(strengths_of(study.params), 1),
        control_seeds=design.seeds + len(study.params.grid.control_seeds),
        other_tau=other,
        studies=POOLED_STUDIES,
    )
    return share_of(found.apart or 0.0, POOLED_STUDIES)


def _sizes(design: Design, other: float, studies: int) -> tuple[SizeRecord, ...]:
    return tuple(
        SizeRecord(seeds=size.seeds, prompts=size.prompts, power=share_of(size.power, studies))
        for size in sizes_to_tell_apart(design, other, power=ENOUGH, studies=studies)
    )
