"""From the grid's results files to every number that people read.

The table, metrics.json, plots, report and MLflow all show these values; none computes its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from undertow.analysis.contrasts import ContrastRecord, contrast_records
from undertow.analysis.costs import totals_of
from undertow.analysis.doses import DoseArm, DoseRecord, dose_records
from undertow.analysis.mechanism import ArmMechanism
from undertow.analysis.side_effects import EffectsSummary, incoherence, summarise_effects
from undertow.analysis.summary import ArmSummary, CellSummary, RateRecord, Summary, TransferRecord
from undertow.config import Arm, Cell, Params, parse_arm
from undertow.stats.intervals import wilson
from undertow.stats.transfer import Readings, Transfer, estimate_transfer
from undertow.study.records import CellResult, ReadoutName


def summarise(
    params: Params,
    grid: Mapping[Cell, CellResult],
    mechanism: tuple[ArmMechanism, ...] = (),
) -> Summary:
    """All estimates of a study from the cells of its grid.

    mechanism: from mechanism.read_mechanism; it comes from activations, not from cells.
    """
    settings = params.statistics
    seeds = params.grid.seeds
    pairs = [(model, arm) for model in params.grid.models for arm in params.arms]
    groups: dict[tuple[ReadoutName, str, str, int | None], Readings] = {}
    for model, arm in pairs:
        for readout in ("rate", "margin"):
            for chosen in (None, *seeds):
                used = seeds if chosen is None else (chosen,)
                groups[readout, model, arm.name, chosen] = readings_of(
                    grid, params.control, model, arm, used, readout
                )
    estimates = estimate_transfer(
        groups,
        resamples=settings.resamples,
        confidence=settings.confidence,
        seed=settings.seed,
    )
    arms = [
        ArmSummary(
            model=model,
            arm=arm.name,
            direction=arm.direction,
            strength=arm.strength,
            rate=_record(estimates["rate", model, arm.name, None]),
            margin=_record(estimates["margin", model, arm.name, None]),
            teacher_rate=_rate(_results(grid, model, arm, seeds), "teacher", settings.confidence),
            student_rate=_rate(_results(grid, model, arm, seeds), "student", settings.confidence),
            cells=tuple(
                CellSummary(
                    seed=seed,
                    rate=_record(estimates["rate", model, arm.name, seed]),
                    margin=_record(estimates["margin", model, arm.name, seed]),
                    teacher_effects=_effects(params, grid, model, arm, (seed,), "teacher"),
                    student_effects=_effects(params, grid, model, arm, (seed,), "student"),
                )
                for seed in seeds
            ),
            degenerate=_degenerate(params, grid, model, arm),
            teacher_effects=_effects(params, grid, model, arm, seeds, "teacher"),
            student_effects=_effects(params, grid, model, arm, seeds, "student"),
        )
        for model, arm in pairs
    ]
    first = next(iter(grid.values()))
    unscored: dict[str, int] = {}
    for result in grid.values():
        for reason, count in result.unscored.items():
            unscored[reason] = unscored.get(reason, 0) + count
    return Summary(
        trait=first.trait,
        rate_name=first.rate_name,
        judge=first.judge,
        confidence=settings.confidence,
        resamples=settings.resamples,
        arms=tuple(arms),
        costs={cell.key: result.costs for cell, result in grid.items()},
        cost_totals=totals_of(grid),
        unscored=unscored,
        doses=_doses(params, grid, arms),
        contrasts=_contrasts(params, grid, arms),
        mechanism=mechanism,
    )


def _doses(
    params: Params, grid: Mapping[Cell, CellResult], arms: Sequence[ArmSummary]
) -> tuple[DoseRecord, ...]:
    """Both fits of every model, from the verdicts on its students along the trait direction."""
    return tuple(
        dose
        for model in params.grid.models
        for dose in dose_records(
            model,
            [
                DoseArm(
                    name=arm.arm,
                    alpha=arm.alpha,
                    push=arm.margin.teacher_shift.value,
                    teacher_rate=arm.teacher_rate.value,
                    counts=tuple(
                        _count(grid[Cell(model, parse_arm(arm.arm), seed)])
                        for seed in params.grid.seeds
                    ),
                    degenerate=arm.degenerate,
                )
                for arm in arms
                if arm.model == model and arm.direction == "trait"
            ],
            confidence=params.statistics.confidence,
            seed=params.statistics.seed,
        )
    )


def _count(result: CellResult) -> tuple[int, int]:
    """Student answers that show the trait, and answers with a verdict."""
    verdicts = [verdict for verdict in result.student.verdicts.values() if verdict is not None]
    return sum(verdicts), len(verdicts)


def _contrasts(
    params: Params, grid: Mapping[Cell, CellResult], arms: Sequence[ArmSummary]
) -> tuple[ContrastRecord, ...]:
    """Every trait arm against control, random direction and opposite sign."""
    readouts: tuple[ReadoutName, ...] = ("rate", "margin")
    shifts = {
        (arm.model, arm.arm, seed, readout): getattr(found, readout).student_shift
        for arm in arms
        for seed, found in ((None, arm), *((cell.seed, cell) for cell in arm.cells))
        for readout in readouts
    }

    def readings(
        model: str, reference: Arm, arm: Arm, seeds: tuple[int, ...], readout: ReadoutName
    ) -> Readings:
        return readings_of(grid, reference, model, arm, seeds, readout)

    return contrast_records(
        params.grid.models,
        params.arms,
        params.grid.seeds,
        shifts,
        readings,
        resamples=params.statistics.resamples,
        confidence=params.statistics.confidence,
        seed=params.statistics.seed,
    )


def _results(
    grid: Mapping[Cell, CellResult], model: str, arm: Arm, seeds: Iterable[int]
) -> list[CellResult]:
    return [grid[Cell(model, arm, seed)] for seed in seeds]


def readings_of(
    grid: Mapping[Cell, CellResult],
    control: Arm,
    model: str,
    arm: Arm,
    seeds: Sequence[int],
    readout: ReadoutName,
) -> Readings:
    """One arm's four readouts on the same prompts; verdicts are 0 or 1, NaN is unknown."""
    controls = _results(grid, model, control, seeds)
    results = _results(grid, model, arm, seeds)
    ids = sorted({id for result in (*controls, *results) for id in result.teacher.margins})
    teacher_of_control = _matrix(controls, "teacher", readout, ids)
    return Readings(
        # The unsteered teacher is the base model; under greedy decoding all seeds agree.
        base=teacher_of_control.mean(axis=0),
        teacher=_matrix(results, "teacher", readout, ids),
        control=_matrix(controls, "student", readout, ids),
        student=_matrix(results, "student", readout, ids),
    )


def _matrix(
    results: Sequence[CellResult],
    subject: Literal["teacher", "student"],
    readout: ReadoutName,
    ids: Sequence[str],
) -> NDArray[np.float64]:
    """[seeds, prompts]; NaN where there is no verdict."""
    rows = []
    for result in results:
        measured = result.teacher if subject == "teacher" else result.student
        values: Mapping[str, float | None] = (
            measured.verdicts if readout == "rate" else measured.margins
        )
        rows.append([values.get(id) for id in ids])
    return np.array(
        [[np.nan if value is None else float(value) for value in row] for row in rows],
        dtype=np.float64,
    )


def _rate(
    results: Sequence[CellResult], subject: Literal["teacher", "student"], confidence: float
) -> RateRecord:
    """Wilson treats rows of several seeds as independent; tau's bootstrap does not.

    A greedy teacher answers alike whatever the seed: then one seed is all that there is.
    """
    if all(getattr(result, subject) == getattr(results[0], subject) for result in results):
        results = results[:1]
    verdicts = [
        verdict
        for result in results
        for verdict in getattr(result, subject).verdicts.values()
        if verdict is not None
    ]
    if not verdicts:
        return RateRecord(value=None, low=None, high=None, scored=0)
    low, high = wilson(sum(verdicts), len(verdicts), confidence)
    return RateRecord(value=sum(verdicts) / len(verdicts), low=low, high=high, scored=len(verdicts))


def _effects(
    params: Params,
    grid: Mapping[Cell, CellResult],
    model: str,
    arm: Arm,
    seeds: Sequence[int],
    subject: Literal["teacher", "student"],
) -> EffectsSummary:
    results = _results(grid, model, arm, seeds)
    measured = [
        result.teacher_effects if subject == "teacher" else result.student_effects
        for result in results
    ]
    reason = next((result.effects_reason for result in results if result.effects_reason), None)
    return summarise_effects(measured, reason, params.statistics)


def _degenerate(
    params: Params, grid: Mapping[Cell, CellResult], model: str, arm: Arm
) -> str | None:
    """The control's teacher is the base model: it is what coherence is measured against."""
    if arm.is_control:
        return None
    steered, unsteered = (
        _effects(params, grid, model, each, params.grid.seeds, "teacher")
        for each in (arm, params.control)
    )
    return incoherence(steered, unsteered, params.statistics.coherence)


def _record(transfer: Transfer) -> TransferRecord:
    def known(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    return TransferRecord(
        base=known(transfer.base),
        teacher=known(transfer.teacher),
        control=known(transfer.control),
        student=known(transfer.student),
        teacher_shift=transfer.teacher_shift,
        student_shift=transfer.student_shift,
        naive_shift=transfer.naive_shift,
        tau=transfer.tau,
        tau_naive=transfer.tau_naive,
        prompts=transfer.prompts,
        seeds=transfer.seeds,
        dropped=transfer.dropped,
    )
