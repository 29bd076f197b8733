"""How far ratios of rows differ between two revisions: what a defence removes, a round's step.

What worth.py estimates of one revision, taken after minus before on the same prompts. Knows
nothing of recipes, git or which revision is older.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from undertow.stats.draws import Draws, SeedErrors
from undertow.stats.intervals import Estimate, Floats, percentiles
from undertow.stats.seeds import SeedPrior, Spread, prior_of, spread
from undertow.stats.transfer import resampled_ratio
from undertow.stats.worth import HALF, Asked, Rows, error_rows, estimated

K = TypeVar("K", bound=Hashable)

OTHER_SIGN = "the last round's shift has the other sign on one side"


class Change(NamedTuple):
    """A ratio on both sides, its rows over the same prompts in the same order.

    paired: whether students, and controls, have the same seeds on both sides. same: streams of
    the rates of models that are the very same on both sides. power: the ratio counts to this.
    """

    before: Asked
    after: Asked
    paired: tuple[bool, bool]
    same: frozenset[int] = frozenset()
    power: float = 1.0

    @property
    def sides(self) -> tuple[Asked, Asked]:
        return self.before, self.after


def ratio_changes(asked: Mapping[K, Change], draws: tuple[Draws, Draws]) -> dict[K, Estimate]:
    """After minus before of every ratio, with bootstrap intervals.

    Each resample draws prompts once for both sides. Students of the same seed are subtracted
    from each other before their spread is taken, so that one that is the same on both sides has
    no error; else each side has its own, from random numbers of its own. Spreads of all that is
    asked moderate each other. Unknown where either side's ratio is.
    """
    alone = [
        {key: found.estimate for key, found in estimated(side, own).items()}
        for side, own in (
            ({key: each.before for key, each in asked.items()}, draws[0]),
            ({key: each.after for key, each in asked.items()}, draws[1]),
        )
    ]
    found: dict[K, Estimate] = {}
    parts: dict[K, _Parts] = {}
    for key, each in asked.items():
        reason = next((side[key].reason for side in alone if side[key].value is None), None)
        ratios = [_ratio(side) for side in each.sides] if reason is None else []
        if reason is None and each.power != 1 and min(ratios) <= 0:
            reason = OTHER_SIGN
        if reason is None:
            parts[key] = _Parts(each, ratios)
        else:
            found[key] = Estimate.unknown(reason)
    priors = _priors(list(parts.values()))
    for key, part in parts.items():
        found[key] = _interval(part, draws, priors)
    return {key: found[key] for key in asked}


class _Priors(NamedTuple):
    before: SeedPrior | None
    after: SeedPrior | None
    change: SeedPrior | None


class _Parts:
    """One change: its ratios, and the rows whose spread between seeds is its error.

    Rows are scaled to the readouts' own unit, in which all changes are alike.
    """

    def __init__(self, asked: Change, ratios: Sequence[float]) -> None:
        self.asked, self.ratios = asked, ratios
        bottoms = [side.bottom.value for side in asked.sides if side.bottom is not None]
        self.size = math.sqrt(abs(math.prod(bottoms))) if bottoms else 1.0
        self.rows = [
            _scaled(error_rows(side), self._slope(ratio) * self.size / _bottom(side))
            for side, ratio in zip(asked.sides, ratios, strict=True)
        ]

    def _slope(self, ratio: float) -> float:
        power = self.asked.power
        return power * ratio ** (power - 1) if power != 1 else 1.0

    def counted(self, ratios: Floats) -> Floats:
        power = self.asked.power
        found: Floats = np.maximum(ratios, 0.0) ** power if power != 1 else ratios
        return found

    @property
    def value(self) -> float:
        before, after = (float(self.counted(np.array(ratio))) for ratio in self.ratios)
        return after - before

    def spreads(self) -> list[tuple[int, bool, list[Spread]]]:
        """Of students, then controls: their stream, whether paired, and a spread or two."""
        before, after = self.rows
        kinds = ((before.moved, after.moved), (before.reference, after.reference))
        found = []
        for stream, paired, (old, new) in zip(
            self.asked.after.streams, self.asked.paired, kinds, strict=True
        ):
            rows = [new - old] if paired else [old, new]
            found.append((stream, paired, [spread(each) for each in rows]))
        return found


def _ratio(side: Asked) -> float:
    return side.top.value / _bottom(side)


def _bottom(side: Asked) -> float:
    return 1.0 if side.bottom is None else side.bottom.value


def _scaled(rows: Rows, times: float) -> Rows:
    return Rows(times * rows.moved, times * rows.reference, rows.rates)


def _priors(parts: Sequence[_Parts]) -> _Priors:
    """Of each side, and of changes, from all that differ between seeds at all."""
    shown: tuple[dict[tuple[int, int], Spread], ...] = ({}, {}, {})
    for part in parts:
        for stream, paired, spreads in part.spreads():
            for place, each in zip((2,) if paired else (0, 1), spreads, strict=True):
                if each.between > 0:
                    # Arms of a recipe share their control: it counts once.
                    shown[place].setdefault((stream, each.seeds), each)
    rounded = [part.rows[0].prompts for part in parts if part.rows[0].rates]
    least = 1 / (12 * min(rounded) ** 2) if rounded else 0.0
    return _Priors(*(prior_of(each.values(), least) for each in shown))


def _interval(part: _Parts, draws: tuple[Draws, Draws], priors: _Priors) -> Estimate:
    sides = [
        part.counted(_resampled(side, draws[0], draws[number], part.asked.same))
        for number, side in enumerate(part.asked.sides)
    ]
    with np.errstate(invalid="ignore"):
        change = sides[1] - sides[0] + _seed_error(part, draws, priors) / part.size
    unknown = np.isnan(change)  # it could be anything: it stretches both ends
    confidence = draws[0].confidence
    low, _ = percentiles(np.where(unknown, -math.inf, change), confidence)
    _, high = percentiles(np.where(unknown, math.inf, change), confidence)
    return Estimate(part.value, low, high)


def _resampled(side: Asked, shared: Draws, own: Draws, same: frozenset[int]) -> Floats:
    """The ratio over resampled prompts, which both sides share."""

    def means(rows: Rows) -> Floats:
        found: Floats = shared.means(rows.moved.mean(axis=0) - rows.reference.mean(axis=0))
        for stream, sign in rows.rates:
            errors = (shared if stream in same else own).rate_errors(stream)
            found = found + sign * errors * HALF / rows.prompts
        return found

    if side.bottom is None:
        return means(side.top)
    sign = math.copysign(1.0, side.bottom.value)
    return resampled_ratio(means(side.top), means(side.bottom), sign)


def _seed_error(part: _Parts, draws: tuple[Draws, Draws], priors: _Priors) -> Floats:
    total = np.zeros(draws[0].resamples)
    for sign, (stream, paired, spreads) in zip((1, -1), part.spreads(), strict=True):
        for number, each in enumerate(spreads):
            if each.between == 0:
                continue
            if paired:
                error = SeedErrors(draws[0], priors.change).of_mean(each, stream)
            else:
                prior = (priors.before, priors.after)[number]
                error = SeedErrors(draws[number], prior).of_mean(each, stream)
                error = error if number else -error
            total = total + sign * error
    return total
