"""A summary as tidy rows: one estimate or one student a row, numbers as numbers.

What `results --format` prints and what notebooks read as data frames. Rates are shares and margins
are nats, as in summary.json; unknown is None, and so is an interval end without a bound.
"""

import json
from collections.abc import Sequence
from typing import Literal, NamedTuple

from tabulate import tabulate

from undertow.analysis.summary import ArmSummary, ModelView, Summary
from undertow.findings.arms import Finding, findings
from undertow.findings.audits import verdict_words
from undertow.findings.numbers import READOUTS
from undertow.report.tables import TidyTable
from undertow.stats.intervals import Estimate
from undertow.study.audit_records import ArmAudit
from undertow.study.records import ReadoutName

Unit = Literal["nats", "share"]
UNITS: dict[ReadoutName, Unit] = {"margin": "nats", "rate": "share"}


class ModelRow(NamedTuple):
    """A model by one readout: the pooled tau and what its largest trait strength shows."""

    model: str
    readout: ReadoutName
    unit: Unit
    base: float | None
    control: float | None
    tau: float | None  # pooled over the strengths that moved the teacher
    tau_low: float | None
    tau_high: float | None
    tau_reason: str | None
    fit_p: float | None  # small: one tau does not fit all strengths
    strength: float | None  # the largest of a coherent trait arm; what follows is of it
    shift: float | None
    shift_low: float | None
    shift_high: float | None
    clear_of_control: bool | None
    against_random: str | None  # clear, less, apart, unclear or unknown
    carrier: str | None  # subliminal, overt, too few rows; None: not audited
    dose: str | None  # threshold, continuous, none or undecided


class ArmRow(NamedTuple):
    """An arm by one readout, over all seeds; the control has levels and no shifts."""

    model: str
    arm: str
    direction: str | None  # None, as the strength, where the teacher is not steered
    strength: float | None
    readout: ReadoutName
    unit: Unit
    prompts: int
    seeds: int
    base: float | None
    teacher: float | None
    control: float | None
    student: float | None
    teacher_shift: float | None
    teacher_low: float | None
    teacher_high: float | None
    student_shift: float | None
    student_low: float | None
    student_high: float | None
    tau: float | None
    tau_low: float | None
    tau_high: float | None
    tau_reason: str | None
    against_random: str | None
    carrier: str | None


class StudentRow(NamedTuple):
    """One student by one readout: its level, and its shift against the control student."""

    model: str
    arm: str
    direction: str | None
    strength: float | None
    seed: int
    readout: ReadoutName
    unit: Unit
    control: float | None
    student: float | None
    shift: float | None
    tau: float | None


class AuditRow(NamedTuple):
    """What the carrier audit says of an arm."""

    model: str
    arm: str
    direction: str | None
    strength: float | None
    verdict: str | None  # subliminal, overt, too few rows; None for arms without a trait
    passes: bool
    leaks: str
    gaps: str
    reference: str
    rows: int
    words_auc: float | None
    words_auc_low: float | None
    words_auc_high: float | None
    format_auc: float | None
    format_auc_low: float | None
    format_auc_high: float | None


class CostRow(NamedTuple):
    """What a stage of a model took over all its cells; model and stage are None for the whole."""

    model: str | None
    stage: str | None
    cells: int
    seconds: float
    load_seconds: float
    gpu_hours: float | None
    tokens_generated: int
    generated_per_second: float | None
    tokens_trained: int
    trained_per_second: float | None
    peak_memory_bytes: int
    judge_tokens: int
    usd: float | None


def model_rows(summary: Summary) -> list[ModelRow]:
    """One row per model and readout, the margin first."""
    return [
        _model(view, readout, {found.readout: found for found in findings(summary, model)})
        for model, view in summary.views.items()
        for readout in READOUTS
    ]


def _model(view: ModelView, readout: ReadoutName, found: dict[ReadoutName, Finding]) -> ModelRow:
    line, finding = view.lines.get(readout), found.get(readout)
    tau = line.tau if line else Estimate.unknown("no transfer line in this summary")
    shift = finding.shift if finding else Estimate.unknown("no trait arm was run")
    transfer = next((arm.by(readout) for arm in view.arms), None)
    return ModelRow(
        view.name,
        readout,
        UNITS[readout],
        transfer.base if transfer else None,
        transfer.control if transfer else None,
        *(tau.value, tau.low, tau.high),
        tau.reason,
        line.fit_p if line else None,
        finding.arm.alpha if finding else None,
        *(shift.value, shift.low, shift.high),
        finding.is_clear_of_control if finding else None,
        finding.standing if finding else None,
        _carrier(finding.arm) if finding else None,
        view.dose.verdict if view.dose else None,
    )


def arm_rows(summary: Summary) -> list[ArmRow]:
    """One row per model, arm and readout: control first, trait by strength, random last."""
    return [
        _arm(view, arm, readout)
        for view in summary.views.values()
        for arm in view.arms
        for readout in READOUTS
    ]


def _arm(view: ModelView, arm: ArmSummary, readout: ReadoutName) -> ArmRow:
    found = arm.by(readout)
    contrast = view.contrasts.get((arm.arm, readout, "random"))
    # The control's shifts are 0 by definition; as rows of a table they would be taken for data.
    absent = Estimate.unknown("the control is what shifts are measured from")
    teacher, student, tau = (
        absent if arm.is_control else each
        for each in (found.teacher_shift, found.student_shift, found.tau)
    )
    return ArmRow(
        *_names(arm),
        readout,
        UNITS[readout],
        found.prompts,
        found.seeds,
        *(found.base, found.teacher, found.control, found.student),
        *(teacher.value, teacher.low, teacher.high),
        *(student.value, student.low, student.high),
        *(tau.value, tau.low, tau.high),
        tau.reason,
        contrast.verdict if contrast else None,
        _carrier(arm),
    )


def student_rows(summary: Summary) -> list[StudentRow]:
    """One row per model, arm, seed and readout."""
    return [
        StudentRow(
            *_names(arm),
            cell.seed,
            readout,
            UNITS[readout],
            found.control,
            found.student,
            None if arm.is_control else found.student_shift.value,
            None if arm.is_control else found.tau.value,
        )
        for view in summary.views.values()
        for arm in view.arms
        for cell in arm.cells
        for readout in READOUTS
        for found in [cell.by(readout)]
    ]


def audit_rows(summary: Summary) -> list[AuditRow]:
    """One row per arm that was audited."""
    return [
        _audit(arm, arm.audit)
        for view in summary.views.values()
        for arm in view.arms
        if arm.audit is not None
    ]


def _audit(arm: ArmSummary, audit: ArmAudit) -> AuditRow:
    words, form = audit.pooled.words_auc, audit.pooled.format_auc
    return AuditRow(
        *_names(arm),
        audit.verdict,
        audit.passes,
        "; ".join(audit.leaks),
        "; ".join(audit.gaps),
        audit.reference,
        audit.pooled.rows,
        *(words.value, words.low, words.high),
        *(form.value, form.low, form.high),
    )


def cost_rows(summary: Summary) -> list[CostRow]:
    """One row per model and stage, then one of the whole study."""
    return [CostRow(**total.model_dump()) for total in summary.cost_totals]


def _names(arm: ArmSummary) -> tuple[str, str, str | None, float | None]:
    return arm.model, arm.arm, arm.direction, None if arm.strength is None else arm.alpha


def _carrier(arm: ArmSummary) -> str | None:
    if arm.audit is None or arm.audit.verdict is None:
        return None
    return verdict_words(arm.audit)


Format = Literal["table", "markdown", "csv", "json"]


def written(rows: Sequence[ArmRow], form: Format) -> str:
    """Rows of arms as text; a number has the digits that it has, an unknown value is empty."""
    values = [row._asdict() for row in rows]
    if form == "json":
        return json.dumps(values, indent=2, allow_nan=False) + "\n"
    if form == "csv":
        return TidyTable(ArmRow._fields, [tuple(map(_cell, row)) for row in rows]).to_csv()
    shown = [[_short(row[name]) for name in SHOWN] for row in values]
    return tabulate(shown, SHOWN, tablefmt="github", disable_numparse=True) + "\n"


SHOWN = (
    *("model", "arm", "readout", "unit", "teacher_shift"),
    *("student_shift", "student_low", "student_high", "tau", "tau_low", "tau_high"),
    *("against_random", "carrier"),
)


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def _short(value: object) -> str:
    """Three digits are enough to read; csv and json have all of them."""
    return f"{value:.3g}" if isinstance(value, float) else _cell(value)
