"""Differences of one arm between two snapshots: paired over shared prompts, else independent."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property

from undertow.analysis.readings import readings_of
from undertow.compare.records import Difference, Word
from undertow.compare.revisions import Snapshot
from undertow.config import Arm, Cell, parse_arm
from undertow.stats.change import Differences, paired_differences
from undertow.stats.change_seeds import (
    UNKNOWN,
    Pair,
    Priors,
    Same,
    Side,
    change_priors,
    have_own_teachers,
)
from undertow.stats.intervals import Estimate
from undertow.stats.intervals import difference as independent
from undertow.study.records import CellResult, Readout, ReadoutName


@dataclass(frozen=True)
class Sides:
    """Two snapshots, and which evaluation prompts they have in common."""

    before: Snapshot
    after: Snapshot
    _priors: dict[tuple[str, ReadoutName], Priors] = field(default_factory=dict)

    def priors(self, model: str, readout: ReadoutName) -> Priors:
        """What all arms that both sides have whole show of how students differ."""
        if (model, readout) not in self._priors:
            arms = [arm for arm in self.before.params.arms if arm in self.after.params.arms]
            pairs = [_pair(self, model, arm, readout) for arm in arms if not arm.is_control]
            found = [pair for pair in pairs if pair is not None and not have_own_teachers(pair)]
            self._priors[model, readout] = change_priors(found)
        return self._priors[model, readout]

    @cached_property
    def alike(self) -> Set[str] | None:
        """Ids of the prompts with the same text; None says that all ids mean the same text."""
        if self.before.trait_hash and self.before.trait_hash == self.after.trait_hash:
            return None
        first, second = self.before.prompts, self.after.prompts
        if first is None or second is None:
            return set()
        return {id for id, text in first.items() if second.get(id) == text}

    @property
    def other_trait(self) -> bool:
        return self.before.params.trait != self.after.params.trait

    @cached_property
    def unpaired(self) -> str | None:
        """Why no pairing is possible, in words; None where it is."""
        if self.other_trait or self.alike is None or self.alike:
            return None
        if self.before.prompts is None or self.after.prompts is None:
            return "the evaluation prompts of one side could not be read"
        return "they share no evaluation prompt"


def differences_of(
    sides: Sides, model: str, arm: str, readout: ReadoutName
) -> "PairedArm | IndependentArm":
    """The differences of an arm that both sides have whole."""
    if sides.other_trait:
        return IndependentArm("the two sides follow different traits")
    if sides.unpaired:
        return IndependentArm(None)
    pair = _pair(sides, model, parse_arm(arm), readout)
    if pair is None:
        return IndependentArm(None)
    settings = sides.after.params.statistics
    found = paired_differences(
        *pair,
        priors=UNKNOWN if have_own_teachers(pair) else sides.priors(model, readout),
        resamples=settings.resamples,
        confidence=settings.confidence,
        seed=settings.seed,
    )
    same_seeds = (
        pair.before.seeds == pair.after.seeds and pair.before.controls == pair.after.controls
    )
    return PairedArm(found, pair.same, same_seeds)


@dataclass(frozen=True)
class PairedArm:
    found: Differences
    same: Same
    same_seeds: bool

    def tau(self, before: Estimate, after: Estimate) -> Difference:
        undefined = next((tau.reason for tau in (before, after) if tau.value is None), None)
        if all(self.same) and self.same_seeds:
            return self._difference(self.found.tau, "same data")
        # Over fewer prompts a tau may be defined that is not over all; the table says it is not.
        return unknown(undefined) if undefined else self._difference(self.found.tau)

    def teacher_shift(self, before: Estimate, after: Estimate) -> Difference:
        return self._difference(self.found.teacher_shift)

    def student_shift(self, before: Estimate, after: Estimate) -> Difference:
        return self._difference(self.found.student_shift)

    def _difference(self, estimate: Estimate, word: Word | None = None) -> Difference:
        record = estimate
        return Difference(
            estimate=record,
            basis="paired",
            prompts=self.found.prompts,
            word=word or word_for(record),
        )


@dataclass(frozen=True)
class IndependentArm:
    """No prompts in common; `reason` says why not even that can be compared."""

    reason: str | None

    def tau(self, before: Estimate, after: Estimate) -> Difference:
        return unknown(self.reason) if self.reason else independent_difference(before, after)

    teacher_shift = tau
    student_shift = tau


def independent_difference(before: Estimate, after: Estimate) -> Difference:
    found = independent(after, before)
    return Difference(estimate=found, basis="independent", prompts=None, word=word_for(found))


def unknown(reason: str) -> Difference:
    estimate = Estimate.unknown(reason)
    return Difference(estimate=estimate, basis=None, prompts=None, word="unknown")


def word_for(estimate: Estimate) -> Word:
    if estimate.value is None:
        return "unknown"
    if not estimate.excludes_zero:
        return "not distinguishable"
    return "higher" if estimate.value > 0 else "lower"


def _restricted(side: Snapshot, model: str, arm: Arm) -> dict[Cell, CellResult]:
    """The cells of one arm and of its control."""
    return {
        cell: result
        for cell, result in side.results.items()
        if cell.model == model and cell.arm in (arm, side.params.control)
    }


def _ids(grid: Mapping[Cell, CellResult]) -> set[str]:
    return {id for result in grid.values() for id in result.teacher.verdicts}


def _pair(sides: Sides, model: str, arm: Arm, readout: ReadoutName) -> Pair | None:
    """An arm on the prompts that both sides share; None for fewer than two, or without cells."""
    snapshots = (sides.before, sides.after)
    grids = [_restricted(side, model, arm) for side in snapshots]
    for side, grid in zip(snapshots, grids, strict=True):
        wanted = {Cell(model, one, seed) for one, seeds in _seeds(side, arm) for seed in seeds}
        if not wanted <= grid.keys():
            return None
    shared = _ids(grids[0]) & _ids(grids[1])
    if sides.alike is not None:
        shared &= sides.alike
    if len(shared) < 2:
        return None
    kept = [{cell: only(result, shared) for cell, result in grid.items()} for grid in grids]
    before, after = (
        _side(side, grid, model, arm, readout) for side, grid in zip(snapshots, kept, strict=True)
    )
    return Pair(before, after, _same(kept, snapshots, model, arm))


def _side(
    side: Snapshot,
    grid: Mapping[Cell, CellResult],
    model: str,
    arm: Arm,
    readout: ReadoutName,
) -> Side:
    control = side.params.control
    (_, seeds), (_, controls) = _seeds(side, arm)
    readings = readings_of(grid, control, model, arm, seeds, readout, controls)
    return Side(readings, seeds, controls)


def _seeds(side: Snapshot, arm: Arm) -> list[tuple[Arm, tuple[int, ...]]]:
    """Of an arm and of its control, in order."""
    params = side.params
    return [(each, tuple(sorted(params.seeds_of(each)))) for each in (arm, params.control)]


def only(result: CellResult, ids: Set[str]) -> CellResult:
    """A result on these prompts alone."""

    def kept(readout: Readout) -> Readout:
        return Readout(
            verdicts={id: readout.verdicts[id] for id in readout.verdicts if id in ids},
            margins={id: readout.margins[id] for id in readout.margins if id in ids},
        )

    return result.model_copy(
        update={"teacher": kept(result.teacher), "student": kept(result.student)}
    )


def _same(
    grids: list[dict[Cell, CellResult]], sides: tuple[Snapshot, Snapshot], model: str, arm: Arm
) -> Same:
    """Which models are the same: real-valued margins are equal only if the model is."""

    def readouts(index: int, of_control: bool) -> list[tuple[Readout, Readout]]:
        chosen, seeds = _seeds(sides[index], arm)[of_control]
        results = [grids[index][Cell(model, chosen, seed)] for seed in seeds]
        return [(result.teacher, result.student) for result in results]

    controls = [readouts(index, True) for index in (0, 1)]
    arms = [readouts(index, False) for index in (0, 1)]

    def equal(pair: list[list[tuple[Readout, Readout]]], which: int) -> bool:
        first, second = ([each[which] for each in side] for side in pair)
        return first == second

    return Same(
        base=equal(controls, 0),
        teacher=equal(arms, 0),
        control=equal(controls, 1),
        student=equal(arms, 1),
    )
