"""How far judges agree: Cohen's and Fleiss' kappa with bootstrap intervals.

Pure functions on votes in memory; a vote is True, False or None for no verdict.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Votes = Sequence[bool | None]


@dataclass(frozen=True)
class Kappa:
    """A kappa with its bootstrap interval; null where all votes are the same."""

    value: float | None
    low: float | None
    high: float | None
    rows: int
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    @property
    def reason(self) -> str | None:
        """Why there is no value, or no interval to it."""
        if self.value is None:
            return "all votes are the same" if self.rows else "no row has a vote of every judge"
        return "in every resample all votes are the same" if self.low is None else None


@dataclass(frozen=True)
class PairOfJudges:
    """Two judges on the rows that both have scored."""

    first: str
    second: str
    agreement: float | None
    kappa: Kappa
    __pydantic_config__: ClassVar = {"extra": "forbid"}


@dataclass(frozen=True)
class Disagreement:
    """A row on which the judges do not all say the same."""

    row: str
    votes: dict[str, bool | None]
    __pydantic_config__: ClassVar = {"extra": "forbid"}


@dataclass(frozen=True)
class Agreement:
    """How far a panel agrees: every pair, all together, and the rows on which they differ."""

    judges: tuple[str, ...]
    pairs: tuple[PairOfJudges, ...]
    fleiss: Kappa
    disagreements: tuple[Disagreement, ...]
    __pydantic_config__: ClassVar = {"extra": "forbid"}


class _Formula(NamedTuple):
    observed: Floats
    expected: Floats

    @property
    def value(self) -> Floats:
        """1 - disagreement / expected disagreement; NaN where chance alone explains everything."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(
                self.expected < 1, (self.observed - self.expected) / (1 - self.expected), np.nan
            )


def agreement(
    votes: Mapping[str, Votes],
    rows: Sequence[str],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Agreement:
    """All pairs, all judges together, and every row on which they differ.

    Intervals resample rows. A resample in which all votes are the same has no kappa and is left
    out of the interval.
    """
    names = list(votes)

    def kappa(chosen: Sequence[str], formula: Callable[[Floats, Floats], _Formula]) -> Kappa:
        table = _scored([votes[name] for name in chosen])
        return _interval(table, formula, resamples, confidence, seed)

    pairs = [
        PairOfJudges(
            first=a,
            second=b,
            agreement=_share(_scored([votes[a], votes[b]])),
            kappa=kappa((a, b), _cohen),
        )
        for index, a in enumerate(names)
        for b in names[index + 1 :]
    ]
    differing = [
        Disagreement(row=row, votes={name: votes[name][i] for name in names})
        for i, row in enumerate(rows)
        if len({votes[name][i] for name in names}) > 1
    ]
    return Agreement(
        judges=tuple(names),
        pairs=tuple(pairs),
        fleiss=kappa(names, _fleiss),
        disagreements=tuple(differing),
    )


def _scored(votes: Sequence[Votes]) -> Floats:
    """[rows, judges] of 0 and 1, rows without a verdict from every judge left out."""
    rows = [row for row in zip(*votes, strict=True) if None not in row]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(votes))


def _cohen(table: Floats, weights: Floats) -> _Formula:
    """weights [resamples, rows] sum to 1 in each row."""
    first, second = (weights @ table[:, judge] for judge in (0, 1))
    observed = weights @ (table[:, 0] == table[:, 1]).astype(np.float64)
    return _Formula(observed, first * second + (1 - first) * (1 - second))


def _fleiss(table: Floats, weights: Floats) -> _Formula:
    judges = table.shape[1]
    present = table.sum(axis=1)
    absent = judges - present
    within = (present * (present - 1) + absent * (absent - 1)) / (judges * (judges - 1))
    share = weights @ (present / judges)
    return _Formula(weights @ within, share**2 + (1 - share) ** 2)


def _point(table: Floats, formula: Callable[[Floats, Floats], _Formula]) -> float:
    rows = len(table)
    if rows == 0:
        return math.nan
    return float(formula(table, np.full((1, rows), 1 / rows)).value[0])


def _interval(
    table: Floats,
    formula: Callable[[Floats, Floats], _Formula],
    resamples: int,
    confidence: float,
    seed: int,
) -> Kappa:
    rows, value = len(table), _point(table, formula)
    if not math.isfinite(value):
        return Kappa(value=None, low=None, high=None, rows=rows)
    stream = np.random.default_rng([seed, rows])
    weights = stream.multinomial(rows, np.full(rows, 1 / rows), resamples) / rows
    found = formula(table, weights).value
    found = found[np.isfinite(found)]
    if not len(found):
        return Kappa(value=value, low=None, high=None, rows=rows)
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return Kappa(value=value, low=float(low), high=float(high), rows=rows)


def _share(table: Floats) -> float | None:
    return float((table[:, 0] == table[:, 1]).mean()) if len(table) else None
