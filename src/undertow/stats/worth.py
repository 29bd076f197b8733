"""What one kind of student takes over less than another, paired by seed and prompt.

Every quantity is a mean of rows, or one over another: what was removed over what plain students
took over, what was learned over what they learned. Rows of two students of the same seed are
subtracted before anything is resampled, so that what they share cancels. Knows nothing of
recipes.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from undertow.stats.draws import Draws, SeedErrors
from undertow.stats.family import deviation, stretch_of, stretched_estimate
from undertow.stats.intervals import Estimate, Floats, percentiles
from undertow.stats.seeds import SeedPrior, Spread, prior_of, spread
from undertow.stats.transfer import resampled_ratio

K = TypeVar("K", bound=Hashable)

COVERS_ZERO = "the interval of what it is a share of covers 0"
TOO_FEW = "fewer than two prompts have a readout in every student that is compared"
HALF = 0.5  # of one pseudo-prompt that is as likely 0 as 1


class Rows(NamedTuple):
    """mean(moved) - mean(reference); a reference of one row of zeros is none.

    rates: streams of the rates that it is made of, with their signs; empty for real numbers.
    """

    moved: Floats  # [seeds, prompts]
    reference: Floats  # [control seeds, prompts]
    rates: tuple[tuple[int, int], ...] = ()

    @property
    def value(self) -> float:
        return float(self.moved.mean() - self.reference.mean())

    @property
    def prompts(self) -> int:
        return int(self.moved.shape[1])

    def minus(self, other: Rows, times: float = 1.0) -> Rows:
        """Seeds of the same number are pairs: row i of both is the same seed."""
        turned = tuple((stream, -sign) for stream, sign in other.rates)
        return Rows(
            self.moved - times * other.moved,
            self.reference - times * other.reference,
            (*self.rates, *turned),
        )


class Asked(NamedTuple):
    """top, or top / bottom; streams: of the arm and of its control, none of them 0."""

    top: Rows
    bottom: Rows | None
    streams: tuple[int, int]


class Found(NamedTuple):
    estimate: Estimate
    resampled: Floats  # [resamples]; empty where the estimate is unknown


def no_reference(prompts: int) -> Floats:
    """In the place of a control, where there is none."""
    return np.zeros((1, prompts))


def estimated(
    asked: Mapping[K, Asked], draws: Draws, company: Sequence[Asked] = ()
) -> dict[K, Found]:
    """Every quantity with its interval; the variances between seeds moderate each other.

    company: what else of these students is estimated, which has a say in how seeds differ.

    Per resample this inverts the test of top - t bottom = 0 (Fieller 1954), with the error
    between seeds taken at the estimated ratio, as transfer.py does for tau. Rates get the
    variance of one pseudo-prompt each. Unknown where the interval of bottom covers 0.
    """
    found: dict[K, Found] = {}
    usable: dict[K, Asked] = {}
    bottoms = _bottoms(asked, draws, company)
    for key, each in asked.items():
        if each.top.prompts < 2:
            found[key] = _unknown(TOO_FEW)
        elif each.bottom is not None and not bottoms[key].estimate.excludes_zero:
            found[key] = _unknown(COVERS_ZERO)
        else:
            usable[key] = each
    errors = {key: error_rows(each) for key, each in usable.items()}
    others = [(each.streams, error_rows(each)) for each in company if _has_errors(each)]
    prior = _prior([*others, *((usable[key].streams, rows) for key, rows in errors.items())])
    for key, each in usable.items():
        found[key] = _one(each, errors[key], SeedErrors(draws, prior))
    return {key: found[key] for key in asked}


def _has_errors(asked: Asked) -> bool:
    return asked.top.prompts > 1 and (asked.bottom is None or asked.bottom.value != 0)


def _bottoms(asked: Mapping[K, Asked], draws: Draws, company: Sequence[Asked]) -> dict[K, Found]:
    rows = {
        key: Asked(each.bottom, None, each.streams)
        for key, each in asked.items()
        if each.bottom is not None and each.bottom.prompts > 1
    }
    others = [each._replace(top=each.bottom, bottom=None) for each in company if each.bottom]
    return estimated(rows, draws, others) if rows else {}


def error_rows(asked: Asked) -> Rows:
    """What differs between seeds of top / bottom about its estimate, times bottom."""
    if asked.bottom is None:
        return asked.top
    return asked.top.minus(asked.bottom, asked.top.value / asked.bottom.value)


def _prior(rows: Sequence[tuple[tuple[int, int], Rows]]) -> SeedPrior | None:
    """Of all that differ between seeds at all: what is the same student twice shows nothing."""
    spreads: dict[int, Spread] = {}
    for (arm, control), each in rows:
        spreads[arm] = spread(each.moved)
        # Arms of a recipe share their control: it counts once.
        spreads.setdefault(control, spread(each.reference))
    shown = [each for each in spreads.values() if each.between > 0]
    rounded = [each.prompts for _, each in rows if each.rates]
    return prior_of(shown, 1 / (12 * min(rounded) ** 2) if rounded else 0.0)


def _one(asked: Asked, errors: Rows, seeds: SeedErrors) -> Found:
    draws = seeds.draws
    total = np.zeros(draws.resamples)
    parts = zip((errors.moved, errors.reference), asked.streams, (1, -1), strict=True)
    for rows, stream, side in parts:
        shown = spread(rows)
        if shown.between > 0:
            total = total + side * seeds.of_mean(shown, stream)
    top = _means(asked.top, draws)
    if asked.bottom is None:
        return _interval(asked.top.value, top + total, draws.confidence)
    sign = math.copysign(1.0, asked.bottom.value)
    ratios = resampled_ratio(top + total, _means(asked.bottom, draws), sign)
    return _interval(asked.top.value / asked.bottom.value, ratios, draws.confidence)


def _means(rows: Rows, draws: Draws) -> Floats:
    """Over resampled prompts, without the error between seeds."""
    means: Floats = draws.means(rows.moved.mean(axis=0) - rows.reference.mean(axis=0))
    for stream, sign in rows.rates:
        means = means + sign * draws.rate_errors(stream) * HALF / rows.prompts
    return means


def _interval(value: float, resampled: Floats, confidence: float) -> Found:
    # A resample that is no number could be anything: it stretches both ends.
    unknown = np.isnan(resampled)
    low, _ = percentiles(np.where(unknown, -math.inf, resampled), confidence)
    _, high = percentiles(np.where(unknown, math.inf, resampled), confidence)
    return Found(Estimate(value, low, high), resampled)


def _unknown(reason: str | None) -> Found:
    return Found(Estimate.unknown(reason), np.empty(0))


def together(found: Mapping[K, Found], confidence: float) -> dict[K, Estimate]:
    """The same estimates with intervals that hold for all of them at once (max-|t|)."""
    known = {key: each for key, each in found.items() if each.estimate.value is not None}
    if not known:
        return {key: each.estimate for key, each in found.items()}
    far = [
        np.nan_to_num(deviation(each.estimate, each.resampled), nan=math.inf, posinf=math.inf)
        for each in known.values()
    ]
    stretch = stretch_of(np.array(far), confidence)
    return {
        key: stretched_estimate(each.estimate, stretch) if key in known else each.estimate
        for key, each in found.items()
    }


def beyond_line(
    removed: Found,
    gained: Found,
    plain: Found,
    line: Sequence[tuple[Found, Found]],
    confidence: float,
) -> Found:
    """What was removed beyond those who merely learn less and have gained no less.

    gained: on held-back answers, over the base; plain: the same of plain students. line: (removed,
    gained) of each of those who learn less, those who are trained least first. The line goes from
    a student that was not trained (removed 1, gained 0) to the one who gains most, mostly the
    plain one (removed 0), through all who are trained less than that one, straight between; whoever
    is trained more has learned its rows too well and is no part of it. It nowhere lies below
    somebody further on it: who has learned more than it takes is no worse. Beyond its end it is 0.
    """
    if removed.estimate.value is None:
        return _unknown(removed.estimate.reason)
    for part in (gained, plain):
        if part.estimate.value is None:
            return _unknown(part.estimate.reason)
    xs, ys = _at_estimates(plain, line)
    value = float(_removed_at(np.array([gained.estimate.value]), xs, ys)[0])
    points = _known(line)
    resampled = _removed_at(
        gained.resampled,
        [*(x.resampled for _, x in points), plain.resampled],
        [r.resampled for r, _ in points],
    )
    own = removed.estimate.value - value
    with np.errstate(invalid="ignore"):
        found = _interval(own, removed.resampled - resampled, confidence)
    # Who gains most is found at random where several gain alike, and beyond the line is nothing:
    # a value can lie outside of what its resamples are.
    low, high = found.estimate.ends
    return found._replace(estimate=Estimate(own, min(low, own), max(high, own)))


def line_of(plain: Found, line: Sequence[tuple[Found, Found]]) -> tuple[tuple[float, float], ...]:
    """The corners (gained, removed) of the line by the estimates; none where plain's is unknown."""
    if plain.estimate.value is None:
        return ()
    xs, ys = _corners(np.zeros(1), *_at_estimates(plain, line))
    return tuple(dict.fromkeys(zip(xs[:, 0].tolist(), ys[:, 0].tolist(), strict=True)))


def _known(line: Sequence[tuple[Found, Found]]) -> list[tuple[Found, Found]]:
    return [(r, x) for r, x in line if None not in (r.estimate.value, x.estimate.value)]


def _at_estimates(
    plain: Found, line: Sequence[tuple[Found, Found]]
) -> tuple[list[Floats], list[Floats]]:
    points = _known(line)
    gained = [*(x for _, x in points), plain]
    return (
        [np.array([x.estimate.value or 0.0]) for x in gained],
        [np.array([r.estimate.value or 0.0]) for r, _ in points],
    )


def _corners(
    like: Floats, gained: Sequence[Floats], removed: Sequence[Floats]
) -> tuple[Floats, Floats]:
    """Gained and removed [points, resamples] along the line, of as many resamples as `like`."""
    xs = np.stack([np.zeros_like(like), *gained])
    ys = np.stack([np.ones_like(like), *removed, np.zeros_like(like)])
    most = xs.argmax(axis=0)[None]
    beyond = np.arange(len(xs))[:, None] > most
    xs, ys = (np.where(beyond, np.take_along_axis(v, most, axis=0), v) for v in (xs, ys))
    order = np.argsort(xs, axis=0, kind="stable")
    xs, ys = np.take_along_axis(xs, order, axis=0), np.take_along_axis(ys, order, axis=0)
    return xs, np.maximum.accumulate(ys[::-1], axis=0)[::-1]


def _removed_at(at: Floats, gained: Sequence[Floats], removed: Sequence[Floats]) -> Floats:
    """The line at what was gained, `at` [resamples], each resample with a line of its own.

    gained: of those who may lie on the line, plain last, who removes nothing.
    """
    xs, ys = _corners(at, gained, removed)
    found: Floats = np.where(at <= xs[0], ys[0], 0.0)
    for left in range(len(xs) - 1):
        width = xs[left + 1] - xs[left]
        here = (at >= xs[left]) & (at <= xs[left + 1]) & (width > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = (at - xs[left]) / width
            value = ys[left] * (1 - share) + ys[left + 1] * share
        found = np.where(here, value, found)
    return found
