"""Ratios of students' shifts on two snapshots, over the prompts and seeds that both have."""

from collections.abc import Hashable, Mapping, Sequence, Set
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from undertow.analysis.readings import readings_of
from undertow.compare.differences import Sides, only, word_for
from undertow.compare.records import Difference
from undertow.config import PLAIN, Arm, Cell, Params
from undertow.stats.change_worth import Change, ratio_changes
from undertow.stats.draws import Draws
from undertow.stats.intervals import Estimate
from undertow.stats.transfer import Readings
from undertow.stats.worth import Asked, Rows, no_reference
from undertow.study.records import Readout, ReadoutName

K = TypeVar("K", bound=Hashable)


class Asking(NamedTuple):
    """A ratio of shifts of one arm, its students as places among the names."""

    arm: Arm
    names: tuple[str, ...]
    top: int
    less: int | None = None  # whose shift is taken off the top
    bottom: int | None = None  # None: the shift of the first one's teacher
    power: float = 1.0  # that the ratio counts to


def changes_of(
    sides: Sides,
    model: str,
    asked: Mapping[K, Asking],
    readout: ReadoutName,
    *,
    lineages: bool = False,
) -> dict[K, Difference]:
    """Paired differences of all that both sides have whole on two shared prompts or more.

    lineages: that grid.seeds alone count, as in a chain of rounds.
    """
    if sides.other_trait or sides.unpaired:
        return {}
    settings = sides.after.params.statistics
    study = _Shared(sides, model, readout, lineages)
    found = {key: study.change(asking) for key, asking in asked.items()}
    paired = {key: each for key, each in found.items() if each is not None}
    draws = [Draws(settings.resamples, settings.seed + n, settings.confidence) for n in (0, 1)]
    estimates = ratio_changes(
        {key: each.change for key, each in paired.items()}, (draws[0], draws[1])
    )
    told = {}
    for key, each in paired.items():
        estimate = Estimate(0.0, 0.0, 0.0) if each.same else estimates[key]
        word = "same data" if each.same else word_for(estimate)
        told[key] = Difference(
            estimate=estimate, basis="paired", prompts=each.change.after.top.prompts, word=word
        )
    return told


Bools = NDArray[np.bool_]


class _Paired(NamedTuple):
    change: Change
    same: bool  # every model of it is the very same on both sides


class _Shared:
    """One model's students on both sides, on the prompts that these share."""

    def __init__(self, sides: Sides, model: str, readout: ReadoutName, lineages: bool) -> None:
        self.sides, self.model, self.readout, self.lineages = sides, model, readout, lineages
        both = (sides.before, sides.after)
        self.cells = [
            {c: r for c, r in {**side.results, **side.others}.items() if c.model == model}
            for side in both
        ]
        self.params = [side.params for side in both]
        shared = [{id for r in cells.values() for id in r.teacher.verdicts} for cells in self.cells]
        ids = shared[0] & shared[1]
        self.ids: Set[str] = ids if sides.alike is None else ids & sides.alike
        names = [name for p in self.params for name in _names(p)]
        self.number = {name: n for n, name in enumerate(dict.fromkeys(names))}
        self.arms = {arm: n for n, arm in enumerate(arms_of(sides), start=1)}

    def change(self, asking: Asking) -> _Paired | None:
        """None where a cell is missing on either side, or fewer than two prompts are shared."""
        arm = asking.arm
        readings = [[self._readings(side, name, arm) for name in asking.names] for side in (0, 1)]
        known = [[each for each in side if each is not None] for side in readings]
        if len(self.ids) < 2 or any(len(side) < len(asking.names) for side in known):
            return None
        rows = [
            row
            for side in known
            for each in side
            for row in (each.base[None], each.teacher, each.control, each.student)
        ]
        kept: Bools = np.logical_not(np.isnan(np.concatenate(rows)).any(axis=0))
        if kept.sum() < 2:
            return None
        before, after = (self._asked(asking, side, kept) for side in known)
        same = [self._same(name, arm) for name in asking.names]
        paired = self._seeds(0, asking.names[-1], arm) == self._seeds(1, asking.names[-1], arm)
        controls = self._controls(0, asking.names[-1]) == self._controls(1, asking.names[-1])
        streams = {0} if same[0].base else set()
        streams |= {1} if same[0].teacher else set()
        for name, each in zip(asking.names, same, strict=True):
            streams |= {10 * self.number[name] + 2} if each.control else set()
            streams |= {10 * self.number[name] + 3} if each.student else set()
        change = Change(before, after, (paired, controls), frozenset(streams), asking.power)
        return _Paired(change, paired and controls and all(all(each) for each in same))

    def _asked(self, asking: Asking, readings: Sequence[Readings], known: Bools) -> Asked:
        is_rate = self.readout == "rate"
        numbers = [10 * self.number[name] for name in asking.names]

        def signs(first: int, then: int) -> tuple[tuple[int, int], ...]:
            return ((first, 1), (then, -1)) if is_rate else ()

        def shift(place: int) -> Rows:
            each, n = readings[place], numbers[place]
            return Rows(each.student[:, known], each.control[:, known], signs(n + 3, n + 2))

        first = readings[0]
        teacher = np.broadcast_to(first.teacher, first.student.shape)
        push = Rows((teacher - first.base)[:, known], no_reference(int(known.sum())), signs(1, 0))
        top = shift(asking.top)
        if asking.less is not None:
            top = top.minus(shift(asking.less))
        bottom = push if asking.bottom is None else shift(asking.bottom)
        first_stream = self.number[asking.names[-1]] * (len(self.arms) + 1)
        places = self.arms[asking.arm], self.arms[self.params[1].control]
        return Asked(top, bottom, (first_stream + places[0], first_stream + places[1]))

    def _readings(self, side: int, name: str, arm: Arm) -> Readings | None:
        control = self.params[side].control
        wanted = [
            *(Cell(self.model, arm, seed, name) for seed in self._seeds(side, name, arm)),
            *(Cell(self.model, control, seed, name) for seed in self._controls(side, name)),
        ]
        cells = self.cells[side]
        if arm not in self.params[side].arms or not all(cell in cells for cell in wanted):
            return None
        if name not in _names(self.params[side]):
            return None
        own = {cell.plain: only(cells[cell], self.ids) for cell in wanted}
        return readings_of(
            own,
            control,
            self.model,
            arm,
            self._seeds(side, name, arm),
            self.readout,
            self._controls(side, name),
        )

    def _seeds(self, side: int, name: str, arm: Arm) -> tuple[int, ...]:
        params = self.params[side]
        return params.grid.seeds if self.lineages else tuple(params.seeds_of(arm, name))

    def _controls(self, side: int, name: str) -> tuple[int, ...]:
        return self._seeds(side, name, self.params[side].control)

    def _same(self, name: str, arm: Arm) -> "_Same":
        """Real-valued margins are equal only if the model is."""

        def read(side: int, arm: Arm, seeds: Sequence[int], of: str) -> list[Readout]:
            cells = self.cells[side]
            found = (cells[Cell(self.model, arm, seed, name)] for seed in seeds)
            return [getattr(only(each, self.ids), of) for each in found]

        def equal(arm: Arm, seeds: Sequence[Sequence[int]], of: str) -> bool:
            return read(0, arm, seeds[0], of) == read(1, arm, seeds[1], of)

        seeds = [self._seeds(side, name, arm) for side in (0, 1)]
        controls = [self._controls(side, name) for side in (0, 1)]
        control = self.params[1].control
        return _Same(
            equal(control, controls, "teacher"),
            equal(arm, seeds, "teacher"),
            equal(control, controls, "student"),
            equal(arm, seeds, "student"),
        )


class _Same(NamedTuple):
    base: bool
    teacher: bool
    control: bool
    student: bool


def arms_of(sides: Sides) -> list[Arm]:
    """Those of either grid, the later one first."""
    return list(dict.fromkeys([*sides.after.params.arms, *sides.before.params.arms]))


def _names(params: Params) -> list[str]:
    rounds = (each.student for each in params.grid.rounds)
    return [PLAIN, *params.further_students, *rounds]
