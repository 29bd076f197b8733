"""The numbers of runs by the names that MLflow shows; what is unknown has no entry."""

import math
from collections.abc import Sequence

from undertow.analysis.costs import summed
from undertow.analysis.doses import DoseRecord
from undertow.analysis.summary import (
    ArmSummary,
    CellSummary,
    ChainArm,
    DefenceArm,
    ModelView,
    RoundOfChain,
    Summary,
)
from undertow.stats.intervals import Estimate
from undertow.stats.transfer import Transfer
from undertow.study.records import Costs, ReadoutName

Metrics = dict[str, float]
# A chart over strength takes this metric, logged exactly where its own y is known, as its x.
# MLflow pairs the two of a group of runs by position: over a shared `strength`, one unknown tau
# would shift every later tau to a wrong strength.
OVER_STRENGTH = (
    "tau_margin",
    "tau",
    "margin_student_shift",
    "student_rate",
    "margin_teacher_shift",
    "teacher_rate",
)


def readouts(cell: CellSummary) -> Metrics:
    """The readouts of one cell."""
    return (
        _rates(cell.rate)
        | _transfer("", cell.rate)
        | _margins(cell.margin)
        | _transfer("_margin", cell.margin)
        | {"prompts": float(cell.margin.prompts)}
    )


def _rates(rate: Transfer) -> Metrics:
    return _known(
        base_rate=rate.base,
        teacher_rate=rate.teacher,
        control_rate=rate.control,
        student_rate=rate.student,
        teacher_shift=rate.teacher_shift.value,
        student_shift=rate.student_shift.value,
    )


def _margins(margin: Transfer) -> Metrics:
    return _known(
        margin_base=margin.base,
        margin_teacher=margin.teacher,
        margin_control=margin.control,
        margin_student=margin.student,
        margin_teacher_shift=margin.teacher_shift.value,
        margin_student_shift=margin.student_shift.value,
    )


def _transfer(suffix: str, record: Transfer) -> Metrics:
    tau = record.tau
    named = {"tau": tau.value, "tau_naive": record.tau_naive.value}
    ends = {"low": tau.low, "high": tau.high}
    return _known(
        **{f"{name}{suffix}": value for name, value in named.items()},
        **{f"tau{suffix}_{end}": value for end, value in ends.items()},
    )


def _known(**values: float | None) -> Metrics:
    # The store keeps an infinite end of an interval as 1.8e308, which ruins every axis.
    return {
        name: value for name, value in values.items() if value is not None and math.isfinite(value)
    }


def side_effects(cell: CellSummary) -> Metrics:
    """Perplexity, repetition and refusals on held-back benign prompts."""
    found: dict[str, float | None] = {}
    for subject, effects in (("teacher", cell.teacher_effects), ("student", cell.student_effects)):
        if effects is not None:
            found[f"{subject}_perplexity"] = effects.perplexity.value
            found[f"{subject}_repetition"] = effects.repetition.value
            found[f"{subject}_benign_refusals"] = effects.refusals.value
            found[f"{subject}_overrefusals"] = effects.overrefusals.value
    return _known(**found)


def defence_of(summary: Summary, model: str, arm: str, student: str, seed: int) -> Metrics:
    """What one student of a recipe removes and learns, as shares of its plain twin's.

    removed is 1 - tau / plain's tau, known where the plain students of the arm clearly moved.
    """
    wanted = (model, arm, student)
    found = next((d for d in summary.defences if (d.model, d.arm, d.student) == wanted), None)
    if found is None:
        return {}
    plain = next(a for a in summary.arms if (a.model, a.arm) == wanted[:2])
    own = next(a for a in summary.students if (a.model, a.arm, a.student) == wanted)
    shares: dict[str, float | None] = {
        "learned": next((each.learned for each in found.seeds if each.seed == seed), None)
    }
    for name, readout in TAUS.items():
        pair = [next(c for c in a.cells if c.seed == seed).by(readout).tau for a in (own, plain)]
        if found.by(readout).removed[0].value is None or None in (pair[0].value, pair[1].value):
            continue
        shares[name] = 1 - (pair[0].value or 0.0) / pair[1].value if pair[1].value else None
    return _known(**shares)


def worth_of(defence: DefenceArm, arm: ArmSummary) -> Metrics:
    """A recipe at one strength over all seeds; ends are of intervals that hold at once."""
    found: dict[str, float | None] = {
        "seconds": defence.seconds,
        "tokens_trained": defence.tokens_trained,
        **_interval("learned", defence.learned),
        **(_interval("gain_less", defence.gain_less) if defence.gain_less else {}),
    }
    for name, readout in TAUS.items():
        suffix = name.removeprefix("removed")
        found |= _interval(name, defence.by(readout).removed[1])
        found |= _interval(f"beyond_line{suffix}", defence.by(readout).beyond_line[1])
        found |= _interval(f"tau{suffix}", arm.by(readout).tau)
    return _known(**found)


def round_of_chain(each: RoundOfChain) -> Metrics:
    """One round over all lineages: shifts from its control, and tau."""
    found: dict[str, float | None] = {}
    for name, readout in (("", "rate"), ("_margin", "margin")):
        numbers = each.margin if readout == "margin" else each.rate
        found |= _interval(f"tau{name}", numbers.tau)
        found[f"{'margin_' if name else ''}student_shift"] = numbers.shift.value
    return _known(**found)


def steps_of(chain: ChainArm) -> Metrics:
    """The mean step ratio over the rounds of a chain."""
    return _known(
        **_interval("step_ratio", chain.rate_step),
        **_interval("step_ratio_margin", chain.margin_step),
    )


def _interval(name: str, estimate: Estimate) -> dict[str, float | None]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


TAUS: dict[str, ReadoutName] = {"removed": "rate", "removed_margin": "margin"}


def pooled(view: ModelView) -> Metrics:
    """The slope of the transfer line over the students of all seeds, by both readouts."""
    names = {"rate": "tau_pooled", "margin": "tau_pooled_margin"}
    return _known(**{names[readout]: line.tau.value for readout, line in view.lines.items()})


def on_line(view: ModelView, arm: CellSummary) -> Metrics:
    """Where the transfer line lies at this teacher's shift; nothing without a pooled tau."""
    names: dict[ReadoutName, str] = {"rate": "line", "margin": "margin_line"}
    found: dict[str, float | None] = {}
    for readout, line in view.lines.items():
        shift = arm.by(readout).teacher_shift.value
        if line.tau.value is not None and shift is not None:
            found[names[readout]] = line.tau.value * shift
    return _known(**found)


def thresholds(dose: DoseRecord | None) -> Metrics:
    """The threshold of the students of all seeds, where the verdict says that there is one."""
    threshold = dose.stated_threshold if dose else None
    if threshold is None:
        return {}
    return _known(
        threshold=threshold.value, threshold_low=threshold.low, threshold_high=threshold.high
    )


def x_of(metric: str) -> str:
    """The metric that holds the strengths at which `metric` is known."""
    return f"strength_{metric}"


def along(alpha: float, measured: Metrics) -> Metrics:
    axes = {x_of(name): alpha for name in OVER_STRENGTH if name in measured}
    return {"strength": alpha} | measured | axes


def costs(stages: Sequence[Costs]) -> Metrics:
    """What stages took together."""
    total = summed(stages)
    found: dict[str, float | None] = {
        "tokens_generated": total.tokens_generated,
        "tokens_trained": total.tokens_trained,
        "seconds": total.seconds,
        "load_seconds": total.load_seconds,
        "peak_memory_gb": total.peak_memory_bytes / 1e9,
        "gpu_seconds": total.gpu_seconds,
        "usd": total.usd,
    }
    if total.prompt_tokens:
        found["judge_prompt_tokens"] = total.prompt_tokens
        found["judge_completion_tokens"] = total.completion_tokens
    return {name: float(value) for name, value in found.items() if value is not None}


def strength_steps(alphas: Sequence[float]) -> list[int]:
    """Integer steps for strengths: hundredths, or the first finer unit that keeps them apart."""
    unit = 100
    while len({round(alpha * unit) for alpha in alphas}) < len(set(alphas)):
        unit *= 10
    return [round(alpha * unit) for alpha in alphas]
