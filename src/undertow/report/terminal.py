"""The table of strengths and the table of an audit for a terminal.

Writes ASCII; all numbers come from the records, all words from `findings`.
"""

from collections.abc import Sequence

from undertow.analysis.summary import ArmSummary, ModelView, Summary
from undertow.config import parse_arm
from undertow.findings.arms import clothed_findings, findings, sentence
from undertow.findings.audits import (
    area,
    audit_sentence,
    level,
    points,
    tokens,
    verdict_words,
    yielded,
)
from undertow.findings.defences import defence_sentences
from undertow.findings.doses import dose_sentence
from undertow.findings.engines import engine_sentences
from undertow.findings.lines import difference_sentences, line_sentences
from undertow.findings.numbers import (
    LEVELS,
    RATIO,
    READOUTS,
    SCALES,
    UNIT_NAMES,
    Scale,
    aligned,
    arm_name,
    arm_strength,
    readout_title,
    seeds_text,
    shift_text,
)
from undertow.findings.returns import return_sentences
from undertow.findings.rounds import round_sentences
from undertow.findings.students import kinds, student_sentences
from undertow.stats.intervals import Estimate
from undertow.study.audit_records import ArmAudit, MeasureName, ModelAudit
from undertow.study.records import ReadoutName
from undertow.texts.tables import columns, wrapped


def strength_table(summary: Summary) -> str:
    """The study as plain text, at most 100 columns: per model both readouts and what they say."""
    lines = wrapped(
        f"Trait {summary.trait}, judge {summary.judge}. + is more {summary.rate_name}. "
        "Teacher shift: against the base model. Student shift: against the control student. "
        f"tau: student shift / teacher shift. [ ]: {100 * summary.confidence:.4g} % interval, "
        f"{summary.resamples:,} bootstrap resamples."
    )
    notes: dict[str, str] = {}
    for model in summary.models:
        lines += ["", *_model_block(summary, model, notes)]
    for kind in kinds(summary):
        lines += ["", *wrapped(kind.title), ""]
        for text in student_sentences(summary, kind):
            lines += wrapped(text, indent=2, hang=2)
    for model in summary.models:
        said = [*defence_sentences(summary, model), *return_sentences(summary, model)]
        lines += ["", f"{model}: defences", ""] if said else []
        for text in said:
            lines += wrapped(text, indent=2, hang=2)
        said = list(round_sentences(summary, model))
        lines += ["", f"{model}: rounds", ""] if said else []
        for text in said:
            lines += wrapped(text, indent=2, hang=2)
    for name, why in summary.no_students.items():
        lines += ["", *wrapped(f"{name}: {why}", hang=2)]
    differences = difference_sentences(summary)
    if differences:
        lines.append("")
    for text in differences:
        lines += wrapped(text, hang=2)
    if notes:
        lines.append("")
    for reason, mark in notes.items():
        lines += wrapped(f"{mark} {reason}", hang=4)
    return "\n".join(lines) + "\n"


def _model_block(summary: Summary, model: str, notes: dict[str, str]) -> list[str]:
    view = summary.views[model]
    lines = [f"{model}   {seeds_text(view)}", ""]
    for readout in READOUTS:
        lines += [*_readout_block(summary, view, readout, notes), ""]
    for text in line_sentences(summary, model):
        lines += wrapped(text, indent=2, hang=2)
    for finding in (*findings(summary, model), *clothed_findings(summary, model)):
        text = sentence(finding, readout_title(summary, finding.readout))
        lines += wrapped(text, indent=2, hang=2)
    for text in (audit_sentence(summary, model), *engine_sentences(summary, model)):
        lines += wrapped(text, indent=2, hang=2)
    dose = view.dose
    return lines + (wrapped(dose_sentence(dose), indent=2, hang=2) if dose else [])


def _readout_block(
    summary: Summary, view: ModelView, readout: ReadoutName, notes: dict[str, str]
) -> list[str]:
    scale, arms = SCALES[readout], view.arms
    transfers = [arm.by(readout) for arm in arms]
    # The control is where shifts are measured from: its own would be 0 by definition.
    teacher = [
        "" if arm.is_control else scale.number(transfer.teacher_shift.value, signed=True)
        for arm, transfer in zip(arms, transfers, strict=True)
    ]
    students = [transfer.student_shift for transfer in transfers]
    taus = [transfer.tau for transfer in transfers]
    head = ("arm", "strength", "teacher shift", "student shift", "tau")
    rows = zip(
        (_named(arm, notes) for arm in arms),
        (arm_strength(arm) for arm in arms),
        teacher,
        _stacked(arms, students, scale, notes, signed=True),
        _stacked(arms, taus, RATIO, notes, signed=False),
        strict=True,
    )
    return [
        f"  {readout_title(summary, readout)} ({UNIT_NAMES[readout]})",
        *wrapped(_levels(view, readout), indent=2),
        *columns(head, rows, indent=4),
    ]


def _levels(view: ModelView, readout: ReadoutName) -> str:
    """Where base and control student stand, which the shifts do not say."""
    if view.control is None:
        return ""
    transfer = view.control.by(readout)
    if transfer.base is None:
        return transfer.tau.reason or "no reading of the control arm"
    level = LEVELS[readout]
    text = (
        f"base {level.number(transfer.base)} {level.unit}, "
        f"control student {level.number(transfer.control)} {level.unit}; fine-tuning alone moves "
        f"by {shift_text(transfer.naive_shift, readout)}; {transfer.prompts} prompts"
    )
    left_out = max(arm.by(readout).dropped for arm in view.arms)
    return text + (f", up to {left_out} of them without a reading in an arm" if left_out else "")


def _stacked(
    arms: Sequence[ArmSummary],
    estimates: list[Estimate],
    scale: Scale,
    notes: dict[str, str],
    *,
    signed: bool,
) -> list[str]:
    """Estimates with values and both ends aligned; nothing for the control."""
    shown = [e for arm, e in zip(arms, estimates, strict=True) if not arm.is_control]
    cells = iter(
        f"undefined {_mark(notes, estimate.reason or 'no reason was recorded')}"
        if written is None
        else f"{written.value} {written.interval}"
        for estimate, written in zip(shown, aligned(shown, scale, signed=signed), strict=True)
    )
    return ["" if arm.is_control else next(cells) for arm in arms]


def _named(arm: ArmSummary, notes: dict[str, str]) -> str:
    reasons = [reason for reason in (arm.degenerate, arm.diverged) if reason]
    return " ".join([arm_name(arm), *(_mark(notes, reason) for reason in reasons)])


def _mark(notes: dict[str, str], reason: str) -> str:
    return notes.setdefault(reason, f"({chr(ord('a') + len(notes))})")


def audit_table(found: ModelAudit) -> str:
    """An audit as plain text, at most 100 columns: what decides, what only tells, the reasons."""
    judge = f"{found.judge} asked as well" if found.judge else f"not asked: {found.judge_reason}"
    lines = wrapped(
        f"Carrier audit of {found.model}, trait {found.trait}. Differences are from the unsteered "
        f"teacher's answers to the same prompts, in percentage points; [ ]: "
        f"{100 * found.bounds.confidence:.4g} % interval. Filter: {found.filter}. Configured "
        f"judge: {judge}."
    )
    arms = sorted(
        found.arms, key=lambda a: (not parse_arm(a.arm).is_control, a.direction == "random")
    )
    lines += ["", *_deciding(arms), "", *_phrases(arms), "", *_telling(arms)]
    overlap = ", ".join(f"{arm.arm} {level(arm.pooled, 'overlap')}" for arm in arms)
    lines += ["", *wrapped(f"Rows that overlap with evaluation prompts, %: {overlap}.", hang=2)]
    for arm in arms:
        for reason in arm.reasons:
            lines += wrapped(f"{arm.arm}: {reason}.", hang=2)
    return "\n".join(lines) + "\n"


def _deciding(arms: Sequence[ArmAudit]) -> list[str]:
    head = ("arm", "verdict", "pairs", "shows trait", "AUC by words", "AUC by format")
    return columns(
        head,
        [
            (
                arm.arm,
                verdict_words(arm),
                str(arm.pooled.rows),
                points(arm.pooled, "trait"),
                area(arm.pooled.words_auc),
                area(arm.pooled.format_auc),
            )
            for arm in arms
        ],
        left=2,
    )


def _phrases(arms: Sequence[ArmAudit]) -> list[str]:
    head = ("arm", "phrases for", "new phrases", "several", "phrases against")
    names: tuple[MeasureName, ...] = ("phrases", "new_phrases", "strong", "counter_phrases")
    return columns(
        head, [(arm.arm, *(points(arm.pooled, name) for name in names)) for arm in arms], left=2
    )


def _telling(arms: Sequence[ArmAudit]) -> list[str]:
    head = ("arm", "of its form, %", "refusals", "tokens", "repeated", "cut off")
    return columns(
        head,
        [
            (
                arm.arm,
                yielded(arm),
                points(arm.pooled, "refusals"),
                tokens(arm.pooled),
                points(arm.pooled, "repetition"),
                points(arm.pooled, "truncated"),
            )
            for arm in arms
        ],
        left=2,
    )
