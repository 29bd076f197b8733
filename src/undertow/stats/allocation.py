"""How many students to train, and on which side: arms or the control they share.

Equal variances between seeds and evaluation prompts that are not what limits; planning needs
no more. Pure arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

MOST_SEEDS = 30
MOST_CONTROLS = 100


@dataclass(frozen=True)
class Allocation:
    """Students of every arm and of the control, and the interval to expect of an arm's shift."""

    seeds: int
    control_seeds: int
    students: int  # of one model
    half_width: float


def control_seeds(arms: int, seeds: int) -> int:
    """sqrt(arms) times as many control students as an arm has (Dunnett 1955).

    The variance sd^2 (1/m + 1/k) of a shift is least, for J m + k students in all, at
    k = m sqrt(J): the control enters every arm's shift.
    """
    return max(seeds, round(seeds * math.sqrt(arms)))


def half_width(
    arms: int, seeds: int, controls: int, seed_sd: float, confidence: float = 0.95
) -> float:
    """Half the interval of an arm's shift when the variance between seeds is pooled."""
    from scipy.special import stdtrit

    freedom = arms * (seeds - 1) + controls - 1
    if freedom < 1:
        return math.inf
    t = float(stdtrit(freedom, 0.5 + confidence / 2))
    return t * seed_sd * math.sqrt(1 / seeds + 1 / controls)


def cheapest(
    arms: int, seed_sd: float, wanted: float, confidence: float = 0.95
) -> Allocation | None:
    """The fewest students whose interval of a shift is +-wanted; None where none tried do.

    At least two students an arm: one does not show how far the next would be off.
    """
    found: list[Allocation] = []
    for seeds in range(2, MOST_SEEDS + 1):
        for controls in range(seeds, MOST_CONTROLS + 1):
            reach = half_width(arms, seeds, controls, seed_sd, confidence)
            if reach <= wanted:
                found.append(Allocation(seeds, controls, arms * seeds + controls, reach))
                break
    return min(found, key=lambda one: (one.students, one.half_width), default=None)


def rows_to_pass(
    share: float, most: float, confidence: float, power: float = 0.8, limit: int = 20_000
) -> int | None:
    """Rows at which so large a share of carriers without a trace pass their audit.

    share: of everyday answers that hold a phrase for the trait by chance; an audit passes
    where the interval of the difference from the control's lies within +-most. The interval is
    that of Bonett and Price (2012) for pairs of independent answers, and the difference itself
    may be off. None where no number up to `limit` does.
    """
    normal = NormalDist()
    reach, chance = normal.inv_cdf(0.5 + confidence / 2), normal.inv_cdf(0.5 + power / 2)
    variance = 2 * share * (1 - share)

    def off(rows: int) -> float:
        adjusted = (rows * variance + 2) / (rows + 2)
        return reach * math.sqrt(adjusted / (rows + 2)) + chance * math.sqrt(variance / rows)

    return next((rows for rows in range(2, limit) if off(rows) <= most), None)


def fixed_budget(
    arms: int, students: int, seed_sd: float, confidence: float = 0.95
) -> Allocation | None:
    """The narrowest interval for so many students of a model; None where they are too few."""
    found = [
        Allocation(
            seeds,
            students - arms * seeds,
            students,
            half_width(arms, seeds, students - arms * seeds, seed_sd, confidence),
        )
        for seeds in range(1, students // arms + 1)
        if students - arms * seeds >= seeds
    ]
    return min(found, key=lambda one: one.half_width, default=None)
