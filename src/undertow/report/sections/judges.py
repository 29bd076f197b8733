"""The report on the judge: how good it is, and whether another would conclude the same."""

from undertow.analysis.judges import Corrected, JudgeEvidence, Sensitivity
from undertow.analysis.summary import Summary
from undertow.findings.numbers import PERCENT, RATIO
from undertow.report.page import Column, Items, Paragraph, Part, Section, Table
from undertow.stats.agreement import AgreementRecord, KappaRecord
from undertow.stats.intervals import Estimate
from undertow.study.records import ShareRecord


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


def _ratio(estimate: Estimate | Estimate) -> str:
    if estimate.value is None:
        return "undefined"
    low, high = RATIO.number(estimate.low), RATIO.number(estimate.high)
    return f"{RATIO.number(estimate.value)} [{low}, {high}]"
