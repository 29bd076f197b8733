"""All arms of one model and readout together: moderated intervals, and simultaneous ones.

The arms share their control students, their evaluation prompts and what they know of the
variance between seeds. Pure functions on NumPy arrays, like transfer.py.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from undertow.stats.draws import SeedErrors, drawn
from undertow.stats.intervals import Estimate, Floats
from undertow.stats.seeds import SeedPrior, are_rates, prior_of, spread, unit_of
from undertow.stats.transfer import Readings, Resampled, Transfer, estimate_arm, estimate_transfer

K = TypeVar("K", bound=Hashable)

RATIOS = ("tau", "tau_naive")
INTERVALS = ("teacher_shift", "student_shift", "naive_shift", *RATIOS)


@dataclass(frozen=True)
class Family(Generic[K]):
    """The estimates of a model's arms; values are the same in all three, intervals are not."""

    alone: dict[K, Transfer]  # every arm by its own seeds
    moderated: dict[K, Transfer]  # variances between seeds moderated; alone's where none is
    simultaneous: dict[K, Transfer]  # moderated, and all arms at once
    freedom: dict[K, float | None]  # degrees of freedom that the moderated student shift has
    prior: SeedPrior | None  # null: fewer than two arms have two seeds


def estimate_family(
    arms: Mapping[K, Readings],
    *,
    draws: Collection[K] = (),
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Family[K]:
    """Transfer of every arm of one model on one readout; the control is none of the arms.

    draws: arms whose seeds have a teacher each (random directions). What their students differ
    by is not seeds alone, so they do not enter the prior.
    """
    numbers = drawn(resamples, seed, confidence)
    prior = family_prior([arm for key, arm in arms.items() if key not in draws])

    errors, unmoderated = SeedErrors(numbers, prior), SeedErrors(numbers)
    found = {
        key: estimate_arm(
            key, arm, numbers, (unmoderated if key in draws else errors).of_arm(index)
        )
        for index, (key, arm) in enumerate(arms.items(), start=1)
    }
    return Family(
        alone=estimate_transfer(arms, resamples=resamples, confidence=confidence, seed=seed),
        moderated={key: each.transfer for key, each in found.items()},
        simultaneous=simultaneous(found, confidence, errors.caution()),
        freedom={key: each.freedom for key, each in found.items()},
        prior=prior,
    )


def family_prior(arms: Collection[Readings]) -> SeedPrior | None:
    """The prior of the variances between the students of these arms and of their control."""
    first = next(iter(arms), None)
    if first is None:
        return None
    rows = [known_columns(each) for each in (first.control, *(arm.student for arm in arms))]
    if any(each.shape[1] < 2 for each in rows):
        return None
    prompts = min(each.shape[1] for each in rows)
    return prior_of(
        [spread(each, unit_of(each)) for each in rows],
        # A rate cannot show a difference below 1/n: seeds that happen to agree have the
        # variance of that rounding, and not none.
        1 / (12 * prompts**2) if are_rates(rows) else 0.0,
    )


def known_columns(rows: Floats) -> Floats:
    """Rows [seeds, prompts] on the prompts that every seed has a readout on."""
    known: Floats = rows[:, ~np.isnan(rows).any(axis=0)]
    return known


def simultaneous(
    found: Mapping[K, Resampled], confidence: float, weights: Floats | None = None
) -> dict[K, Transfer]:
    """The same arms, each interval stretched so that all arms' hold at once.

    max-|t| over the joint resamples (Dunnett 1955; Westfall and Young 1993): the deviation of
    a resample is measured in the reach of the pointwise interval on its side, the largest over
    the arms is taken, and its quantile at `confidence` is the stretch. Each estimate (the
    student's shift, tau) is a family of its own. weights: of the resamples, equal by default.
    """
    stretched = {key: each.transfer for key, each in found.items()}
    for name in INTERVALS:
        known = {
            key: getattr(each.transfer, name)
            for key, each in found.items()
            if getattr(each.transfer, name).value is not None
        }
        if not known:
            continue
        deviations = [deviation(known[key], found[key].shares[name]) for key in known]
        # A single arm is no family: nothing is said of others.
        shares = weights if len(known) > 1 else None
        stretch = stretch_of(np.array(deviations), confidence, shares)
        for key, estimate in known.items():
            bound = math.inf if name in RATIOS else found[key].bound
            wide: dict[str, Any] = {name: stretched_estimate(estimate, stretch, bound)}
            stretched[key] = replace(stretched[key], **wide)
    return stretched


def deviation(estimate: Estimate, resampled: Floats) -> Floats:
    """How far resamples lie from the estimate, in the reach of its interval on that side."""
    if estimate.value is None:
        raise ValueError("an unknown estimate has no interval to measure by")
    low, high = estimate.ends
    above, below = resampled - estimate.value, estimate.value - resampled
    # No resample leaves an interval without a bound, and none is measured by a reach of 0.
    reach_up = high - estimate.value or math.inf
    reach_down = estimate.value - low or math.inf
    far: Floats = np.zeros(len(resampled))
    if math.isfinite(reach_up):
        far = np.maximum(far, above / reach_up)
    if math.isfinite(reach_down):
        far = np.maximum(far, below / reach_down)
    return far


def stretch_of(deviations: Floats, confidence: float, weights: Floats | None = None) -> float:
    """The factor, at least 1, by which all intervals hold at once.

    deviations: [arms, resamples]. weights: of the resamples, equal by default.
    """
    largest = deviations.max(axis=0)
    if weights is None:
        return max(1.0, float(np.quantile(largest, confidence, method="higher")))
    found = np.quantile(largest, confidence, weights=weights, method="inverted_cdf")
    return max(1.0, float(found))


def stretched_estimate(estimate: Estimate, stretch: float, bound: float = math.inf) -> Estimate:
    """The reach on both sides times stretch, within +-bound; a missing end stays missing."""
    if estimate.value is None:
        return estimate
    low, high = estimate.ends
    return Estimate(
        estimate.value,
        max(estimate.value - stretch * (estimate.value - low), -bound),
        min(estimate.value + stretch * (high - estimate.value), bound),
    )
