"""What a planned study can be expected to say of how much its kinds of student remove.

Simulates whole models and passes them through worth.py, as power.py does for single arms. All
numbers are shares of what plain students take over, so that they hold for readouts of any unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from undertow.stats.draws import Draws
from undertow.stats.intervals import Floats
from undertow.stats.worth import Asked, Rows, estimated, together

TRUTHS = (0.0, 0.25, 0.5, 1.0)  # shares removed
RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class WorthDesign:
    """The size of a study, and how its students differ, by margin.

    kinds: of student beside plain, all of them compared at once. The spreads are standard
    deviations of a student's mean over prompts, in shares of plain's shift: between plain students
    of several seeds, and of what a kind's student differs by from the plain one of the same seed
    (the median over kinds). unlike: coefficient of variation of the latter over kinds and arms.
    By default what gives the widths of the published studies of two small models with eight
    control students, 27 and 7 kinds at two strengths (test_worth_power.py).
    """

    kinds: int
    arms: int = 1
    seeds: int = 3
    control_seeds: int = 3
    prompts: int = 100
    plain_sd: float = 0.13
    paired_sd: float = 0.04
    unlike: float = 1.5
    prompt_sd: float = 0.25  # of plain's shift over prompts
    noise: float = 1.25  # of a single readout, in the spread between seeds


@dataclass(frozen=True)
class WorthExpectation:
    """Of kinds that remove this share, over all studies; intervals hold for all kinds at once."""

    removed: float
    half_width: float | None  # median; None where it was known in no study
    above_zero: float  # share whose interval lies above 0
    little: float  # share whose interval does not, and lies below `least` of expect_removed


def expect_removed(
    design: WorthDesign,
    *,
    truths: Sequence[float] = TRUTHS,
    least: float = 0.5,
    studies: int = 40,
    seed: int = 0,
) -> list[WorthExpectation]:
    """What is found of kinds that remove these shares; every study has some of each in turn."""
    rng = np.random.default_rng([seed, design.kinds, design.arms, design.seeds])
    ends: dict[float, list[tuple[float, float]]] = {truth: [] for truth in truths}
    asked = dict.fromkeys(truths, 0)
    for study in range(studies):
        truth_of = [truths[(kind + study) % len(truths)] for kind in range(design.kinds)]
        rows = simulated_worth(rng, design, truth_of)
        draws = Draws(RESAMPLES, seed + study, CONFIDENCE)
        found = together(estimated(rows, draws), CONFIDENCE)
        for (kind, _), each in found.items():
            asked[truth_of[kind]] += 1
            if each.value is not None:
                ends[truth_of[kind]].append(each.ends)
    return [_expected(truth, ends[truth], asked[truth], least) for truth in truths]


def _expected(
    truth: float, ends: Sequence[tuple[float, float]], asked: int, least: float
) -> WorthExpectation:
    if not ends:
        return WorthExpectation(truth, None, 0.0, 0.0)
    low, high = np.array(ends).T
    return WorthExpectation(
        removed=truth,
        half_width=float(np.median(high - low)) / 2,
        above_zero=float((low > 0).sum()) / asked,
        little=float(((low <= 0) & (high >= 0) & (high < least)).sum()) / asked,
    )


def simulated_worth(
    rng: np.random.Generator, design: WorthDesign, truth_of: Sequence[float]
) -> dict[tuple[int, int], Asked]:
    """What each kind of one model removes at each arm, by (kind, arm)."""
    log_sd = float(np.sqrt(np.log1p(design.unlike**2)))
    pushed = 1 + design.prompt_sd * rng.standard_normal(design.prompts)

    def rows(seeds: int, sd: float) -> Floats:
        noise = design.noise * rng.standard_normal((seeds, design.prompts))
        found: Floats = sd * (rng.standard_normal((seeds, 1)) + noise)
        return found

    control = rows(design.control_seeds, design.plain_sd)
    plain = [
        Rows(pushed + rows(design.seeds, design.plain_sd), control) for _ in range(design.arms)
    ]
    found: dict[tuple[int, int], Asked] = {}
    for kind, truth in enumerate(truth_of):
        spreads = design.paired_sd * np.exp(log_sd * rng.standard_normal(design.arms + 1))
        first = 1 + kind * (design.arms + 1)  # the stream of its control, which its arms share
        # Who takes over less has less of what plain students of its seeds differ by, too.
        reference = truth * control + rows(design.control_seeds, float(spreads[0]))
        for arm in range(design.arms):
            less = truth * plain[arm].moved + rows(design.seeds, float(spreads[arm + 1]))
            streams = (first + 1 + arm, first)
            found[kind, arm] = Asked(Rows(less, reference), plain[arm], streams)
    return found
