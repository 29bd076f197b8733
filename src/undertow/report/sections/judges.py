"""The report on the judge: how good it is, and whether another would conclude the same."""

from collections.abc import Mapping
from dataclasses import dataclass

from undertow.analysis.judges import Sensitivity, judge_sensitivity
from undertow.analysis.summary import EstimateRecord, Summary, readings_of
from undertow.config import Cell, Params, parse_arm
from undertow.findings.arms import PERCENT, RATIO
from undertow.judging.calibration import Calibration, ShareRecord, read_calibrations
from undertow.report.page import Column, Items, Paragraph, Part, Section, Table
from undertow.stats.agreement import AgreementRecord, KappaRecord
from undertow.stats.judge_error import CorrectedTransfer, correct_transfer
from undertow.stats.transfer import Estimate
from undertow.study.records import CellResult, Layout


@dataclass(frozen=True)
class Corrected:
    """What one calibration makes of every arm: (model, arm) -> values without judge error."""

    calibration: Calibration
    arms: Mapping[tuple[str, str], CorrectedTransfer]


@dataclass(frozen=True)
class JudgeEvidence:
    """What is known about the judge of a study."""

    sensitivity: Sensitivity | None
    corrected: tuple[Corrected, ...]


def judge_evidence(
    layout: Layout, params: Params, grid: Mapping[Cell, CellResult], summary: Summary
) -> JudgeEvidence:
    """Read votes and calibrations; both may be absent."""
    fingerprint = next(iter(grid.values())).judge_fingerprint
    return JudgeEvidence(
        sensitivity=judge_sensitivity(layout, params, grid, summary),
        corrected=tuple(
            Corrected(calibration, _corrected(params, grid, summary, calibration))
            for calibration in read_calibrations(layout, fingerprint)
            if calibration.trait == summary.trait
        ),
    )


def _corrected(
    params: Params, grid: Mapping[Cell, CellResult], summary: Summary, calibration: Calibration
) -> dict[tuple[str, str], CorrectedTransfer]:
    settings = params.statistics
    return {
        (arm.model, arm.arm): correct_transfer(
            readings_of(
                grid, params.control, arm.model, parse_arm(arm.arm), params.grid.seeds, "rate"
            ),
            calibration.confusion,
            resamples=settings.resamples,
            confidence=settings.confidence,
            seed=settings.seed,
        )
        for arm in summary.arms
        if not arm.is_control
    }


def judges_section(summary: Summary, evidence: JudgeEvidence) -> Section:
    """Calibration, rates without judge error, and tau by every judge of a panel."""
    parts: list[Part] = []
    if not evidence.corrected:
        parts.append(
            Paragraph(
                f"The judge {summary.judge} has not been measured against human labels for this "
                "trait, so no rate here is corrected for its errors. The margin needs no judge."
            )
        )
    for corrected in evidence.corrected:
        parts += _calibrated(summary, corrected)
    if evidence.sensitivity is not None:
        parts += _by_judge(evidence.sensitivity)
    return Section("judges", "The judge", tuple(parts))


def _calibrated(summary: Summary, corrected: Corrected) -> list[Part]:
    found = corrected.calibration
    name = f"{found.set} ({found.half} rows: {found.rows})"
    quality = Table(
        f"The judge {found.judge} against people on {name}",
        (Column("Measure", numeric=False), Column("Value"), Column("Interval")),
        [
            *(
                (label, PERCENT.number(share.value) + " %", _percent_interval(share))
                for label, share in (
                    ("accuracy", found.accuracy),
                    ("sensitivity", found.sensitivity),
                    ("specificity", found.specificity),
                )
            ),
            ("Cohen's kappa", RATIO.number(found.kappa.value), _kappa_interval(found.kappa)),
        ],
    )
    rows = []
    for arm in summary.arms:
        if arm.is_control:
            continue
        values = corrected.arms[arm.model, arm.arm]
        rows.append(
            (
                arm.model,
                arm.arm,
                PERCENT.number(arm.rate.teacher),
                _percent(values.teacher),
                PERCENT.number(arm.rate.student),
                _percent(values.student),
                _ratio(arm.rate.tau),
                _ratio(values.tau),
            )
        )
    raw = Table(
        "Raw values beside values without judge error (Rogan-Gladen, calibration error included)",
        (
            Column("Model", numeric=False),
            Column("Arm", numeric=False),
            Column("Teacher, %"),
            Column("corrected"),
            Column("Student, %"),
            Column("corrected"),
            Column("tau"),
            Column("corrected"),
        ),
        rows,
        headers=2,
    )
    return [quality, raw]


def _by_judge(sensitivity: Sensitivity) -> list[Part]:
    columns = [Column("Model", numeric=False), Column("Arm", numeric=False)]
    columns += [Column(f"tau by {judge}") for judge in sensitivity.judges]
    table = Table(
        "tau by every judge",
        (*columns, Column("Conclusion", numeric=False)),
        [
            (
                arm.model,
                arm.arm,
                *(_ratio(arm.tau[judge]) for judge in sensitivity.judges),
                "depends on the judge" if arm.changes else "the same by every judge",
            )
            for arm in sensitivity.arms
        ],
        headers=2,
    )
    return [table, Items(_agreement(sensitivity.agreement))]


def _agreement(agreement: AgreementRecord) -> tuple[str, ...]:
    pairs = tuple(
        f"{pair.first} and {pair.second} agree on {PERCENT.number(pair.agreement)} % of "
        f"{pair.kappa.rows} rows; Cohen's kappa {RATIO.number(pair.kappa.value)} "
        f"{_kappa_interval(pair.kappa)}"
        for pair in agreement.pairs
    )
    fleiss = agreement.fleiss
    whole = f"Fleiss' kappa {RATIO.number(fleiss.value)} {_kappa_interval(fleiss)}"
    return (*pairs, whole, f"{len(agreement.disagreements)} rows are judged differently")


def _percent_interval(share: ShareRecord) -> str:
    return f"[{PERCENT.number(share.low)}, {PERCENT.number(share.high)}]"


def _kappa_interval(kappa: KappaRecord) -> str:
    return f"[{RATIO.number(kappa.low)}, {RATIO.number(kappa.high)}]"


def _percent(estimate: Estimate) -> str:
    if estimate.value is None:
        return "unknown"
    low, high = PERCENT.number(estimate.low), PERCENT.number(estimate.high)
    return f"{PERCENT.number(estimate.value)} [{low}, {high}]"


def _ratio(estimate: Estimate | EstimateRecord) -> str:
    if estimate.value is None:
        return "undefined"
    low, high = RATIO.number(estimate.low), RATIO.number(estimate.high)
    return f"{RATIO.number(estimate.value)} [{low}, {high}]"
