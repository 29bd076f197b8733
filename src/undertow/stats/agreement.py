"""How far judges agree: Cohen's and Fleiss' kappa with bootstrap intervals.

Pure functions on votes in memory; a vote is True, False or None for no verdict.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Votes = Sequence[bool | None]


@dataclass(frozen=True)
class KappaRecord:
    """A kappa with its bootstrap interval; null where all votes are the same."""

    value: float | None
    low: float | None
    high: float | None
    rows: int


@dataclass(frozen=True)
class PairRecord:
    """Two judges on the rows that both have scored."""

    first: str
    second: str
    agreement: float | None
    kappa: KappaRecord


@dataclass(frozen=True)
class Disagreement:
    """A row on which the judges do not all say the same."""

    row: str
    votes: dict[str, bool | None]


@dataclass(frozen=True)
class AgreementRecord:
    """agreement of a panel."""

    judges: tuple[str, ...]
    pairs: tuple[PairRecord, ...]
    fleiss: KappaRecord
    disagreements: tuple[Disagreement, ...]


class _Kappa(NamedTuple):
    observed: Floats
    expected: Floats

    @property
    def value(self) -> Floats:
        """1 - disagreement / expected disagreement; NaN where chance alone explains everything."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(
                self.expected < 1, (self.observed - self.expected) / (1 - self.expected), np.nan
            )


def cohen_kappa(first: Votes, second: Votes) -> float:
    """Cohen (1960) on rows that both have scored; NaN where all votes are the same."""
    pairs = _scored([first, second])
    return _point(pairs, _cohen)


def fleiss_kappa(votes: Sequence[Votes]) -> float:
    """Fleiss (1971) on rows that every judge has scored; NaN where all votes are the same."""
    return _point(_scored(votes), _fleiss)


def agreement(
    votes: Mapping[str, Votes],
    rows: Sequence[str],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> AgreementRecord:
    """All pairs, all judges together, and every row on which they differ.

    Intervals resample rows. A resample in which all votes are the same has no kappa and is left
    out of the interval.
    """
    names = list(votes)

    def kappa(chosen: Sequence[str], formula: Callable[[Floats, Floats], _Kappa]) -> KappaRecord:
        table = _scored([votes[name] for name in chosen])
        return _interval(table, formula, resamples, confidence, seed)

    pairs = [
        PairRecord(
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
    return AgreementRecord(
        judges=tuple(names),
        pairs=tuple(pairs),
        fleiss=kappa(names, _fleiss),
        disagreements=tuple(differing),
    )


def _scored(votes: Sequence[Votes]) -> Floats:
    """[rows, judges] of 0 and 1, rows without a verdict from every judge left out."""
    rows = [row for row in zip(*votes, strict=True) if None not in row]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(votes))


def _cohen(table: Floats, weights: Floats) -> _Kappa:
    """weights [resamples, rows] sum to 1 in each row."""
    first, second = (weights @ table[:, judge] for judge in (0, 1))
    observed = weights @ (table[:, 0] == table[:, 1]).astype(np.float64)
    return _Kappa(observed, first * second + (1 - first) * (1 - second))


def _fleiss(table: Floats, weights: Floats) -> _Kappa:
    judges = table.shape[1]
    present = table.sum(axis=1)
    absent = judges - present
    within = (present * (present - 1) + absent * (absent - 1)) / (judges * (judges - 1))
    share = weights @ (present / judges)
    return _Kappa(weights @ within, share**2 + (1 - share) ** 2)


def _point(table: Floats, formula: Callable[[Floats, Floats], _Kappa]) -> float:
    rows = len(table)
    if rows == 0:
        return math.nan
    return float(formula(table, np.full((1, rows), 1 / rows)).value[0])


def _interval(
    table: Floats,
    formula: Callable[[Floats, Floats], _Kappa],
    resamples: int,
    confidence: float,
    seed: int,
) -> KappaRecord:
    rows, value = len(table), _point(table, formula)
    if not math.isfinite(value):
        return KappaRecord(value=None, low=None, high=None, rows=rows)
    stream = np.random.default_rng([seed, rows])
    weights = stream.multinomial(rows, np.full(rows, 1 / rows), resamples) / rows
    found = formula(table, weights).value
    found = found[np.isfinite(found)]
    if not len(found):
        return KappaRecord(value=value, low=None, high=None, rows=rows)
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return KappaRecord(value=value, low=float(low), high=float(high), rows=rows)


def _share(table: Floats) -> float | None:
    return float((table[:, 0] == table[:, 1]).mean()) if len(table) else None
