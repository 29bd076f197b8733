"""plots/*.csv: the study's numbers as tidy tables for `dvc plots` and for download.

One row is one estimate. A value that is unknown, or an interval end that is unbounded, is an
empty field; rates are shares and margins are nats, as in summary.json.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from undertow.analysis.mechanism import SeedRange
from undertow.analysis.summary import ArmSummary, RateSummary, Summary
from undertow.config import Cell
from undertow.findings import returns
from undertow.findings.defences import judged, student_of
from undertow.findings.numbers import READOUTS
from undertow.findings.rounds import course_of
from undertow.stats.intervals import Estimate
from undertow.study.files import atomic_folder
from undertow.study.records import CellResult

SIX_DIGITS = ".6g"
YES_NO = ("no", "yes")  # by a bool

LossCurves = Mapping[Cell, Sequence[tuple[int, float]]]


class TidyTable(NamedTuple):
    """A CSV file before it is written."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def to_csv(self) -> str:
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return stream.getvalue()


def write_plot_tables(
    folder: Path,
    summary: Summary,
    loss_curves: LossCurves,
    grid: Mapping[Cell, CellResult],
) -> None:
    """Write the tables of `estimate_tables`, loss.csv and readings.csv; the folder is replaced.

    All or none.
    """
    tables = estimate_tables(summary) | {
        "loss.csv": loss_table(loss_curves),
        "readings.csv": readings_table(grid),
    }
    with atomic_folder(folder) as staged:
        for name, table in tables.items():
            (staged / name).write_text(table.to_csv(), encoding="utf-8")


def estimate_tables(summary: Summary) -> dict[str, TidyTable]:
    """tau.csv, shifts.csv, rates.csv, mechanism.csv and line.csv, by name; with other recipes
    than plain defences.csv, too, and with later rounds rounds.csv.
    """
    return {
        # dvc may draw an empty field as 0, so points without a value are left out here; the
        # report lists them with their reasons.
        "tau.csv": _without_gaps(tau_table(summary), "tau"),
        "shifts.csv": _without_gaps(shift_table(summary), "shift"),
        "rates.csv": _without_gaps(rate_table(summary), "rate"),
        "mechanism.csv": mechanism_table(summary),
        "line.csv": line_table(summary),
        **({"defences.csv": defence_table(summary)} if summary.defences else {}),
        **({"rounds.csv": round_table(summary)} if summary.rounds else {}),
    }


def defence_table(summary: Summary) -> TidyTable:
    """What every recipe is worth by both readouts; `at_once` holds for all of a model's."""
    measures = (
        *("less_shift", "less_tau", "less_shift_than_placebo", "less_tau_than_placebo"),
        *("removed", "beyond_line"),
    )
    rows: list[tuple[str, ...]] = []
    for arm in summary.defences:
        names = (arm.model, arm.student, arm.placebo_of or "", arm.arm, arm.strength or "")
        for readout in READOUTS:
            verdict = judged(summary, arm, readout).verdict
            tau = student_of(summary, arm).by(readout).tau
            rows.append(
                (*names, readout, "tau", *_estimate(tau), "", "", verdict, tau.reason or "")
            )
            for measure in measures:
                one, at_once = getattr(arm.by(readout), measure)
                values = (*_estimate(one), *_estimate(at_once)[1:], verdict, one.reason or "")
                rows.append((*names, readout, measure, *values))
        for measure in ("learned", "learned_control", "gain_plain", "gain_less"):
            one = getattr(arm, measure)
            if one is None:  # a file from before
                continue
            rows.append((*names, "", measure, *_estimate(one), "", "", "", one.reason or ""))
        rows.append((*names, "", "loss_control", _number(arm.loss_control), *[""] * 6))
        for each in arm.returns:
            one, at_once = each.back
            told = (*_estimate(each.removed), "", "", "", each.removed.reason or "")
            rows.append((*names, each.readout, f"removed_by_{each.condition}", *told))
            word = returns.course_of(each)
            told = (*_estimate(one), *_estimate(at_once)[1:], word, one.reason or "")
            rows.append((*names, each.readout, f"back_by_{each.condition}", *told))
    columns = ("model", "student", "placebo_of", "arm", "strength", "readout", "measure", "value")
    ends = ("low", "high", "at_once_low", "at_once_high", "verdict", "reason")
    return TidyTable((*columns, *ends), rows)


def round_table(summary: Summary) -> TidyTable:
    """Every round of every chain by both readouts; `mean_step` is over all rounds.

    continued: whether the round's adapter is that of the round before, trained further.
    """
    rows: list[tuple[str, ...]] = []
    for chain in summary.rounds:
        path = " ".join(chain.students)
        places = {
            each: (chain.model, path, each.student, str(each.round), YES_NO[each.continued])
            for each in chain.rounds
        }
        for readout in READOUTS:
            word = course_of(chain, readout)
            for each, place in places.items():
                numbers = each.by(readout)
                for measure in ("shift", "tau", "step"):
                    one: Estimate = getattr(numbers, measure)
                    names = (*place, chain.arm, readout, measure)
                    rows.append((*names, *_estimate(one), word, one.reason or ""))
            step = chain.step(readout)
            names = (chain.model, path, "", "", "", chain.arm, readout, "mean_step")
            rows.append((*names, *_estimate(step), word, step.reason or ""))
        for each, place in places.items():
            if (seen := each.projection) is not None:
                ends = _estimate(Estimate(seen.mean, seen.low, seen.high))
                rows.append((*place, chain.arm, "", "projection", *ends, "", ""))
    columns = ("model", "chain", "student", "round", "continued", "arm", "readout", "measure")
    return TidyTable((*columns, "value", "low", "high", "course", "reason"), rows)


def line_table(summary: Summary) -> TidyTable:
    """Arms and random draws as points of the transfer line, both shifts with intervals."""
    rows = [
        (
            line.model,
            line.readout,
            point.arm,
            "" if point.seed is None else str(point.seed),
            *_estimate(point.teacher_shift),
            *_estimate(point.student_shift),
        )
        for line in summary.lines
        for point in line.points
        if point.teacher_shift.value is not None and point.student_shift.value is not None
    ]
    ends = ("shift", "low", "high")
    columns = (f"{subject}_{end}" for subject in ("teacher", "student") for end in ends)
    return TidyTable(("model", "readout", "arm", "seed", *columns), rows)


class ReadingRow(NamedTuple):
    """One reading; a verdict is 0 or 1."""

    model: str
    arm: str
    seed: int
    subject: str
    readout: str
    prompt: str
    value: float


def reading_rows(grid: Mapping[Cell, CellResult]) -> list[ReadingRow]:
    """Every reading of teacher and student: seed by seed, prompt by prompt, and no text.

    The unsteered teacher is the base model. Unknown readings are left out.
    """
    return [
        ReadingRow(cell.model, cell.arm.name, cell.seed, subject, readout, id, float(value))
        for cell, result in grid.items()
        for subject, read in (("teacher", result.teacher), ("student", result.student))
        for readout in READOUTS
        for id, value in read.by(readout).items()
        if value is not None
    ]


def readings_table(grid: Mapping[Cell, CellResult]) -> TidyTable:
    """`reading_rows` as text."""
    rows = [(*map(str, row[:-1]), _number(row.value)) for row in reading_rows(grid)]
    return TidyTable(ReadingRow._fields, rows)


def tau_table(summary: Summary) -> TidyTable:
    """tau of every arm but the control, by both readouts; an undefined one has a reason."""
    rows = [
        (*_names(arm), readout, *_estimate(tau), tau.reason or "")
        for readout in READOUTS
        for arm in _arms(summary)
        if not arm.is_control
        for tau in [arm.by(readout).tau]
    ]
    return TidyTable((*NAMES, "readout", "tau", "low", "high", "reason"), rows)


def shift_table(summary: Summary) -> TidyTable:
    """Shifts of teacher (against base) and student (against control student) by both readouts."""
    rows: list[tuple[str, ...]] = []
    for readout in READOUTS:
        for arm in _arms(summary):
            if arm.is_control:
                continue
            transfer = arm.by(readout)
            rows.append((*_names(arm), readout, "teacher", *_estimate(transfer.teacher_shift)))
            rows.append((*_names(arm), readout, "student", *_estimate(transfer.student_shift)))
    return TidyTable((*NAMES, "readout", "subject", "shift", "low", "high"), rows)


def rate_table(summary: Summary) -> TidyTable:
    """Rates of teacher and student with Wilson intervals, the control arm included."""
    rows = [
        (*_names(arm), subject, *_rate(rate), str(rate.scored))
        for arm in _arms(summary)
        for subject, rate in (("teacher", arm.teacher_rate), ("student", arm.student_rate))
    ]
    return TidyTable((*NAMES, "subject", "rate", "low", "high", "scored"), rows)


def loss_table(loss_curves: LossCurves) -> TidyTable:
    """Training loss per cell and step."""
    rows = [
        (cell.model, cell.arm.name, str(cell.seed), cell.key, str(step), _number(loss))
        for cell, curve in loss_curves.items()
        for step, loss in curve
    ]
    return TidyTable(("model", "arm", "seed", "cell", "step", "loss"), rows)


def mechanism_table(summary: Summary) -> TidyTable:
    """Cosine and projection of students' activation shifts per block, over seeds."""
    rows = [
        (
            arm.model,
            arm.arm,
            arm.direction or "",
            arm.strength or "",
            arm.against,
            str(block.block),
            YES_NO[block.steered],
            *_seed_range(block.cosine),
            *_seed_range(block.projection),
            str(arm.seeds),
            _number(arm.chance),
        )
        for arm in summary.mechanism
        for block in arm.blocks
    ]
    columns = ("against", "block", "steered", *COSINE, *PROJECTION, "seeds", "chance_sd")
    return TidyTable((*NAMES, *columns), rows)


COSINE = ("cosine", "cosine_low", "cosine_high")
PROJECTION = ("projection", "projection_low", "projection_high")


def _seed_range(found: SeedRange | None) -> tuple[str, ...]:
    if found is None:
        return ("", "", "")
    return _number(found.mean), _number(found.low), _number(found.high)


NAMES = ("model", "arm", "direction", "strength")


def _names(arm: ArmSummary) -> tuple[str, str, str, str]:
    return arm.model, arm.arm, arm.direction or "", arm.strength or ""


def _arms(summary: Summary) -> Iterable[ArmSummary]:
    for view in summary.views.values():
        yield from sorted(view.arms, key=_place)


def _place(arm: ArmSummary) -> tuple[str, float]:
    return arm.direction or "~", 0.0 if arm.direction is None else arm.alpha


def _estimate(estimate: Estimate) -> tuple[str, str, str]:
    return _number(estimate.value), _number(estimate.low), _number(estimate.high)


def _rate(rate: RateSummary) -> tuple[str, str, str]:
    return _number(rate.value), _number(rate.low), _number(rate.high)


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else format(value, SIX_DIGITS)


def _without_gaps(table: TidyTable, column: str) -> TidyTable:
    """Rows with a value in `column`, which makes a column of reasons pointless."""
    index = table.columns.index(column)
    kept = [i for i, name in enumerate(table.columns) if name != "reason"]
    return TidyTable(
        tuple(table.columns[i] for i in kept),
        [tuple(row[i] for i in kept) for row in table.rows if row[index]],
    )
