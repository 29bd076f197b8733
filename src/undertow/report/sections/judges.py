"""The report on the judge: how good it is, and whether another would conclude the same."""

from undertow.analysis.judges import Corrected, JudgeEvidence, Sensitivity
from undertow.analysis.summary import Summary
from undertow.findings.numbers import PERCENT, RATIO
from undertow.report.page import Column, Items, Paragraph, Part, Section, Table
from undertow.stats.agreement import Agreement


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
                (label, f"{PERCENT.number(share.value)} %", PERCENT.interval(share))
                for label, share in (
                    ("accuracy", found.accuracy),
                    ("sensitivity", found.sensitivity),
                    ("specificity", found.specificity),
                )
            ),
            ("Cohen's kappa", RATIO.number(found.kappa.value), RATIO.interval(found.kappa)),
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
                PERCENT.bare.written(values.teacher),
                PERCENT.number(arm.rate.student),
                PERCENT.bare.written(values.student),
                RATIO.written(arm.rate.tau),
                RATIO.written(values.tau),
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
                *(RATIO.written(arm.tau[judge]) for judge in sensitivity.judges),
                "depends on the judge" if arm.changes else "the same by every judge",
            )
            for arm in sensitivity.arms
        ],
        headers=2,
    )
    return [table, Items(_agreement(sensitivity.agreement))]


def _agreement(agreement: Agreement) -> tuple[str, ...]:
    pairs = tuple(
        f"{pair.first} and {pair.second} agree on {PERCENT.number(pair.agreement)} % of "
        f"{pair.kappa.rows} rows; Cohen's kappa {RATIO.written(pair.kappa)}"
        for pair in agreement.pairs
    )
    whole = f"Fleiss' kappa {RATIO.written(agreement.fleiss)}"
    return (*pairs, whole, f"{len(agreement.disagreements)} rows are judged differently")
