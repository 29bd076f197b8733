"""Would another judge conclude something else? Tau per judge, and the cells where they differ.

Reads the votes that a panel leaves beside its verdicts; each member's votes stand in for the
verdicts, and everything else is computed as always.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from undertow.analysis.readings import readings_of
from undertow.analysis.summarise import summarise
from undertow.analysis.summary import Summary
from undertow.config import Cell, Params, parse_arm
from undertow.stats.agreement import Agreement, agreement
from undertow.stats.intervals import Estimate
from undertow.stats.judge_error import CorrectedTransfer, correct_transfer
from undertow.study.found import read_rows
from undertow.study.layout import Layout, Study
from undertow.study.records import Calibration, CellResult, Readout, Record, Vote
from undertow.study.results import read_calibrations

Conclusion = Literal["transfers", "does not", "undecided", "undefined"]


class ArmByJudge(Record):
    """One model and arm: tau by the rate that each judge sees."""

    model: str
    arm: str
    tau: dict[str, Estimate]
    conclusions: dict[str, Conclusion]
    changes: bool


class Sensitivity(Record):
    """A study by judge; the first judge is the one whose verdicts the report shows."""

    judges: tuple[str, ...]
    arms: tuple[ArmByJudge, ...]
    agreement: Agreement


def judge_sensitivity(
    study: Study, grid: Mapping[Cell, CellResult], summary: Summary
) -> Sensitivity | None:
    """The study by judge; None where the cells were not judged by a panel."""
    params, layout = study
    votes = {cell: _votes(layout, cell) for cell in grid}
    names = list(dict.fromkeys(vote.judge for rows in votes.values() for vote in rows))
    if not names or any(not rows for rows in votes.values()):
        return None
    by_judge = {
        name: summarise(
            params,
            {cell: _seen_by(name, result, votes[cell]) for cell, result in grid.items()},
        )
        for name in names
    }
    studies = {summary.judge: summary, **by_judge}
    rows, table = _table(votes, names)
    return Sensitivity(
        judges=tuple(studies),
        arms=tuple(
            _arm(position, studies)
            for position, arm in enumerate(summary.arms)
            if not arm.is_control
        ),
        agreement=agreement(
            table, rows, confidence=params.statistics.confidence, seed=params.statistics.seed
        ),
    )


def conclusion_of(tau: Estimate) -> Conclusion:
    """What a tau says about transfer: its interval is above 0, at or below it, or covers it."""
    if tau.value is None or tau.low is None or tau.high is None:
        return "undefined"
    if tau.low > 0:
        return "transfers"
    return "does not" if tau.high <= 0 else "undecided"


def _arm(position: int, studies: Mapping[str, Summary]) -> ArmByJudge:
    arms = {name: study.arms[position] for name, study in studies.items()}
    conclusions = {name: conclusion_of(arm.rate.tau) for name, arm in arms.items()}
    first = next(iter(arms.values()))
    return ArmByJudge(
        model=first.model,
        arm=first.arm,
        tau={name: arm.rate.tau for name, arm in arms.items()},
        conclusions=conclusions,
        changes=len(set(conclusions.values())) > 1,
    )


def _votes(layout: Layout, cell: Cell) -> list[Vote]:
    path = layout.stage(cell, "judge") / "votes.jsonl"
    return read_rows(path, Vote) if path.exists() else []


def _seen_by(judge: str, result: CellResult, votes: list[Vote]) -> CellResult:
    """The cell as if this member had judged alone."""

    def readout(subject: str, old: Readout) -> Readout:
        own = {v.id: v.shows_trait for v in votes if v.subject == subject and v.judge == judge}
        return old.model_copy(update={"verdicts": own})

    return result.model_copy(
        update={
            "judge": judge,
            "teacher": readout("teacher", result.teacher),
            "student": readout("student", result.student),
        }
    )


def _table(
    votes: Mapping[Cell, list[Vote]], names: list[str]
) -> tuple[list[str], dict[str, list[bool | None]]]:
    """Row names and, per judge, its votes in the same order."""
    by_row: dict[str, dict[str, bool | None]] = {}
    for cell, rows in votes.items():
        for vote in rows:
            by_row.setdefault(f"{cell.key}/{vote.subject}/{vote.id}", {})[vote.judge] = (
                vote.shows_trait
            )
    table = {name: [said.get(name) for said in by_row.values()] for name in names}
    return list(by_row), table


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
    study: Study, grid: Mapping[Cell, CellResult], summary: Summary
) -> JudgeEvidence:
    """Read votes and calibrations; both may be absent."""
    params, layout = study
    fingerprint = next(iter(grid.values())).judge_fingerprint
    return JudgeEvidence(
        sensitivity=judge_sensitivity(study, grid, summary),
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
