"""Shares of simulated studies, with how well so many studies know them."""

from undertow.stats.intervals import wilson
from undertow.study.records import Record


class ShareOfStudies(Record):
    """A share of simulated studies with its 95 % Monte Carlo interval, or null with a reason."""

    value: float | None
    low: float | None
    high: float | None
    studies: int
    reason: str | None


def share_of(value: float, studies: int) -> ShareOfStudies:
    """value: the share of so many studies."""
    low, high = wilson(round(value * studies), studies)
    return ShareOfStudies(value=value, low=low, high=high, studies=studies, reason=None)


def unknown(reason: str) -> ShareOfStudies:
    return ShareOfStudies(value=None, low=None, high=None, studies=0, reason=reason)
