"""Shares, differences and resamples as estimates with intervals."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A value with its interval, as stats returns it and every results file holds it.

    An unknown value is None with a reason. An end that is None beside a known value has no bound:
    JSON knows no infinity, so ends are made finite at this door and `ends` gives them back.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):
            number = getattr(self, name)
            known = number is not None and math.isfinite(number)
            object.__setattr__(self, name, float(number) if known else None)

    @classmethod
    def unknown(cls, reason: str | None) -> "Estimate":
        """No value, and why."""
        return cls(None, reason=reason)

    @property
    def ends(self) -> Interval:
        """The interval; an end without a bound is infinite."""
        return Interval(
            -math.inf if self.low is None else self.low,
            math.inf if self.high is None else self.high,
        )

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        low, high = self.ends
        return low > 0 or high < 0


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Score interval of a binomial rate (Wilson 1927; Brown, Cai and DasGupta 2001, eq. 4).

    With n = 0 nothing is known about the rate and the interval is (0, 1).
    """
    _check_confidence(confidence)
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"successes must lie between 0 and n, got {successes} of {n}")
    if n == 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / n
    shrink = 1 + z * z / n
    centre = (rate + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # At 0 and n successes the closed form misses 0 and 1 by a rounding error, and a rate
    # would lie outside its own interval.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Interval(low, high)


def percentiles(resampled: Floats, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    # Order statistics, not interpolation: between a finite and an infinite ratio
    # interpolation gives infinity or NaN.
    low = np.quantile(resampled, tail, method="higher")
    high = np.quantile(resampled, 1 - tail, method="lower")
    return Interval(float(low), float(high))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")


def difference(first: Estimate, second: Estimate) -> Estimate:
    """first - second for two independent estimates, from their intervals alone.

    Square and add (Zou and Donner 2008); keeps the asymmetry of ratios. Two models read on
    the same prompts are treated as independent, which can only widen the interval where
    their shifts go with the same prompts.
    """
    if first.value is None or second.value is None:
        return Estimate.unknown(first.reason or second.reason)
    value = first.value - second.value
    (low_1, high_1), (low_2, high_2) = first.ends, second.ends
    return Estimate(
        value,
        value - math.hypot(first.value - low_1, high_2 - second.value),
        value + math.hypot(high_1 - first.value, second.value - low_2),
    )
