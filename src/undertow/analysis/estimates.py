"""A value with its interval as every results file holds it: unknown is null with a reason."""

from typing import Literal

from undertow.stats.transfer import Estimate
from undertow.study.records import Record

ReadoutName = Literal["rate", "margin"]


class EstimateRecord(Record):
    """A value with its interval, or null with the reason why it is unknown."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


def unknown(reason: str) -> EstimateRecord:
    return EstimateRecord(value=None, low=None, high=None, reason=reason)


def estimate_record(estimate: Estimate) -> EstimateRecord:
    return EstimateRecord(
        value=estimate.value, low=estimate.low, high=estimate.high, reason=estimate.reason
    )


def excludes_zero(estimate: EstimateRecord) -> bool:
    """Whether the interval lies on one side of 0; a missing end is unbounded."""
    return (estimate.low is not None and estimate.low > 0) or (
        estimate.high is not None and estimate.high < 0
    )
