"""From the grid's results files to every number that people read.

The table, metrics.json, plots, report and MLflow all show these values; none computes its own.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from undertow.analysis.contrasts import ContrastRecord, contrast_records
from undertow.analysis.costs import totals_of
from undertow.analysis.doses import DoseArm, DoseRecord, dose_records
from undertow.analysis.draws import against_draws
from undertow.analysis.lines import READOUTS, Together, bounds, model_differences, together
from undertow.analysis.mechanism import ArmMechanism
from undertow.analysis.readings import readings_of, results_of
from undertow.analysis.side_effects import EffectsSummary, incoherence, summarise_effects
from undertow.analysis.summary import METHOD, ArmSummary, CellSummary, RateSummary, Summary
from undertow.config import Arm, Cell, Params, parse_arm
from undertow.stats.intervals import wilson
from undertow.stats.seeds import SeedPrior
from undertow.stats.transfer import Readings, Transfer, estimate_transfer
from undertow.study.records import CellResult, Readout, ReadoutName


def summarise(
    params: Params,
    grid: Mapping[Cell, CellResult],
    mechanism: tuple[ArmMechanism, ...] = (),
) -> Summary:
    """All estimates of a study from the cells of its grid.

    mechanism: from mechanism.read_mechanism; it comes from activations, not from cells.
    """
    settings = params.statistics
    chosen = [
        Chosen(model, arm, seed)
        for model in params.grid.models
        for arm in params.arms
        for seed in (None, *params.seeds_of(arm))
    ]
    readings = {
        (each, readout): _readings(params, grid, params.control, each, readout)
        for each in chosen
        for readout in READOUTS
    }
    transfers = estimate_transfer(
        readings,
        resamples=settings.resamples,
        confidence=settings.confidence,
        seed=settings.seed,
    )
    effects = {each: _side_effects(params, grid, each) for each in chosen}
    arms = [
        _arm(params, grid, model, arm, transfers, effects)
        for model in params.grid.models
        for arm in params.arms
    ]
    pooled = {
        (model, readout): together(
            model,
            stream,
            params.arms,
            params.seeds_of,
            partial(_one_of, readings, model, readout),
            readout,
            [parse_arm(arm.arm) for arm in arms if arm.model == model and arm.degenerate],
            settings,
        )
        for stream, model in enumerate(params.grid.models)
        for readout in READOUTS
    }
    arms = [_moderated(arm, pooled) for arm in arms]
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
        method=METHOD,
        doses=_doses(params, grid, arms),
        contrasts=against_draws(
            _contrasts(
                params, grid, arms, {key: found.family.prior for key, found in pooled.items()}
            ),
            [found.line for found in pooled.values()],
            settings.confidence,
        ),
        mechanism=mechanism,
        lines=tuple(found.line for found in pooled.values()),
        model_differences=model_differences(
            {key: found.fitted for key, found in pooled.items()}, settings.confidence
        ),
    )


class Chosen(NamedTuple):
    """The cells of one arm: of one seed, or of all where that is None."""

    model: str
    arm: Arm
    seed: int | None

    def seeds_of(self, params: Params, other: Arm | None = None) -> tuple[int, ...]:
        """Those of the arm, or of another that is read beside it: the same seed, if it has it."""
        seeds = params.seeds_of(other or self.arm)
        return (self.seed,) if self.seed in seeds else seeds


def _one_of(
    readings: Mapping[tuple[Chosen, ReadoutName], Readings],
    model: str,
    readout: ReadoutName,
    arm: Arm,
    seed: int | None,
) -> Readings:
    return readings[Chosen(model, arm, seed), readout]


def _moderated(arm: ArmSummary, pooled: Mapping[tuple[str, ReadoutName], Together]) -> ArmSummary:
    """The arm with the intervals that all arms of its model give it; the control keeps its own."""
    if arm.is_control:
        return arm
    one = parse_arm(arm.arm)
    families = {readout: pooled[arm.model, readout].family for readout in READOUTS}
    return arm.model_copy(
        update={readout: family.moderated[one] for readout, family in families.items()}
        | {"bounds": {readout: bounds(family, one) for readout, family in families.items()}}
    )


class SideEffects(NamedTuple):
    teacher: EffectsSummary
    student: EffectsSummary


def _arm(
    params: Params,
    grid: Mapping[Cell, CellResult],
    model: str,
    arm: Arm,
    transfers: Mapping[tuple[Chosen, ReadoutName], Transfer],
    effects: Mapping[Chosen, SideEffects],
) -> ArmSummary:
    whole = Chosen(model, arm, None)
    # The control's teacher is the base model: it is what coherence is measured against.
    unsteered = effects[Chosen(model, params.control, None)].teacher
    bound, confidence = params.statistics.coherence, params.statistics.confidence
    results = results_of(grid, model, arm, params.seeds_of(arm))
    return ArmSummary(
        model=model,
        arm=arm.name,
        direction=arm.direction,
        strength=arm.strength,
        rate=transfers[whole, "rate"],
        margin=transfers[whole, "margin"],
        teacher_rate=_rate([result.teacher for result in results], confidence),
        student_rate=_rate([result.student for result in results], confidence),
        cells=tuple(
            CellSummary(
                seed=seed,
                rate=transfers[one, "rate"],
                margin=transfers[one, "margin"],
                teacher_effects=effects[one].teacher,
                student_effects=effects[one].student,
            )
            for seed in params.seeds_of(arm)
            for one in [Chosen(model, arm, seed)]
        ),
        degenerate=None
        if arm.is_control
        else incoherence(effects[whole].teacher, unsteered, bound),
        diverged=diverged_of(results),
        teacher_effects=effects[whole].teacher,
        student_effects=effects[whole].student,
    )


def diverged_of(results: Sequence[CellResult]) -> str | None:
    """Which students of an arm were not trained, and why; None where all were."""
    reasons = {result.seed: result.diverged for result in results if result.diverged}
    if not reasons:
        return None
    seeds = ", ".join(map(str, reasons))
    return f"{next(iter(reasons.values()))} (seed {seeds})"


def _side_effects(params: Params, grid: Mapping[Cell, CellResult], chosen: Chosen) -> SideEffects:
    results = results_of(grid, chosen.model, chosen.arm, chosen.seeds_of(params))
    reason = next((result.effects_reason for result in results if result.effects_reason), None)
    settings = params.statistics
    return SideEffects(
        summarise_effects([result.teacher_effects for result in results], reason, settings),
        summarise_effects([result.student_effects for result in results], reason, settings),
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
                        for seed in params.seeds_of(parse_arm(arm.arm))
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
    params: Params,
    grid: Mapping[Cell, CellResult],
    arms: Sequence[ArmSummary],
    priors: Mapping[tuple[str, ReadoutName], SeedPrior | None],
) -> tuple[ContrastRecord, ...]:
    """Every trait arm against control, random direction and opposite sign."""
    shifts = {
        (arm.model, arm.arm, seed, readout): transfer.student_shift
        for arm in arms
        for readout in READOUTS
        for seed, transfer in (
            (None, arm.by(readout)),
            *((cell.seed, cell.by(readout)) for cell in arm.cells),
        )
    }

    def readings(
        model: str, reference: Arm, arm: Arm, seed: int | None, readout: ReadoutName
    ) -> Readings:
        return _readings(params, grid, reference, Chosen(model, arm, seed), readout)

    return contrast_records(
        params.grid.models,
        params.arms,
        params.grid.seeds,
        shifts,
        readings,
        priors,
        resamples=params.statistics.resamples,
        confidence=params.statistics.confidence,
        seed=params.statistics.seed,
    )


def _readings(
    params: Params,
    grid: Mapping[Cell, CellResult],
    reference: Arm,
    chosen: Chosen,
    readout: ReadoutName,
) -> Readings:
    return readings_of(
        grid,
        reference,
        chosen.model,
        chosen.arm,
        chosen.seeds_of(params),
        readout,
        chosen.seeds_of(params, reference),
    )


def _rate(subjects: Sequence[Readout], confidence: float) -> RateSummary:
    """Wilson treats rows of several seeds as independent; tau's bootstrap does not.

    A greedy teacher answers alike whatever the seed: then one seed is all that there is.
    """
    if all(subject == subjects[0] for subject in subjects):
        subjects = subjects[:1]
    verdicts = [
        verdict
        for subject in subjects
        for verdict in subject.verdicts.values()
        if verdict is not None
    ]
    if not verdicts:
        return RateSummary(value=None, low=None, high=None, scored=0)
    low, high = wilson(sum(verdicts), len(verdicts), confidence)
    return RateSummary(
        value=sum(verdicts) / len(verdicts), low=low, high=high, scored=len(verdicts)
    )
