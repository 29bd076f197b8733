"""Levels and paired differences with intervals; prompts are clusters, seeds are rows in them."""

from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from undertow.stats.intervals import Estimate, wilson

Floats = NDArray[np.float64]
TOO_FEW = "fewer than two prompts have a value in both carriers"


@dataclass(frozen=True)
class Compared:
    """One measure in an arm's carrier, in its reference, and the difference paired by prompt."""

    arm: Estimate
    reference: Estimate
    difference: Estimate
    prompts: int  # with a value in both
    __pydantic_config__: ClassVar = {"extra": "forbid"}


def in_both_carriers(arm: Floats, reference: Floats, confidence: float, *, share: bool) -> Compared:
    """A measure in two carriers.

    arm, reference: [seeds, prompts], the same prompts in the same order; NaN is unknown.
    share: values are 0 or 1, and the levels carry Wilson intervals.
    """
    known = ~np.isnan(arm) & ~np.isnan(reference)
    arm, reference = np.where(known, arm, np.nan), np.where(known, reference, np.nan)
    return Compared(
        arm=_level(arm, confidence, share),
        reference=_level(reference, confidence, share),
        difference=paired_difference(arm, reference, confidence, share=share),
        prompts=int(known.any(axis=0).sum()),
    )


def paired_difference(
    arm: Floats, reference: Floats, confidence: float, *, share: bool
) -> Estimate:
    """Mean of arm - reference over prompts, with an interval that takes prompts as clusters.

    Shares get the adjusted Wald interval for paired proportions (Bonett and Price 2012, eq. 4):
    one pseudo-prompt that differs by +1 and one by -1 join the others, so that an interval is
    never empty where no pair differs. With several seeds these are one row in their prompt each.
    """
    difference = _by_prompt(arm - reference)
    if len(difference) < 2:
        return Estimate.unknown(TOO_FEW)
    centred = difference
    if share:
        row = 1 / len(arm)
        centred = np.append(difference, [row, -row])
    spread = centred.std(ddof=0 if share else 1) / np.sqrt(len(centred))
    return _measured(float(difference.mean()), float(centred.mean()), float(spread), confidence)


def _level(values: Floats, confidence: float, share: bool) -> Estimate:
    known = values[~np.isnan(values)]
    if share:
        if not known.size:
            return Estimate.unknown(TOO_FEW)
        low, high = wilson(int(known.sum()), known.size, confidence)
        return Estimate(value=float(known.mean()), low=low, high=high)
    by_prompt = _by_prompt(values)
    if len(by_prompt) < 2:
        return Estimate.unknown(TOO_FEW)
    mean = float(by_prompt.mean())
    return _measured(mean, mean, float(by_prompt.std(ddof=1) / np.sqrt(len(by_prompt))), confidence)


def _by_prompt(values: Floats) -> Floats:
    """[seeds, prompts] to the mean over known seeds of every prompt that has one."""
    known = ~np.isnan(values)
    counts = known.sum(axis=0)
    sums = np.where(known, values, 0.0).sum(axis=0)
    means: Floats = sums[counts > 0] / counts[counts > 0]
    return means


def _measured(value: float, centre: float, spread: float, confidence: float) -> Estimate:
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * spread
    return Estimate(value=value, low=centre - reach, high=centre + reach)
