"""Values and intervals as text: the only place where "value [low, high]" is written.

An unknown value is said to be so. An end that is None is infinite; where a reason stands beside
the value there is no interval, and none is written. Writes ASCII.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

MOST_PLACES = 6  # beyond them a power of ten is easier to read than zeros


class Measured(Protocol):
    """What is written: stats.intervals.Estimate, or whatever else has a value and two ends."""

    @property
    def value(self) -> float | None: ...

    @property
    def low(self) -> float | None: ...

    @property
    def high(self) -> float | None: ...

    @property
    def reason(self) -> str | None: ...


class Ends(NamedTuple):
    """An estimate's value and both ends as text."""

    value: str
    low: str
    high: str


class Scale(NamedTuple):
    """How a number is written: its unit, the factor from stored to shown, and the digits."""

    unit: str
    factor: float
    digits: int
    absent: str = "unknown"

    @property
    def bare(self) -> "Scale":
        """The same without the unit, for a column that has it in its head."""
        return self._replace(unit="")

    def number(
        self, value: float | None, *, signed: bool = False, apart_from_zero: bool = False
    ) -> str:
        """One number without its unit. apart_from_zero: as many digits as show that it is not 0."""
        if value is None:
            return self.absent
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        # Adding 0.0 after rounding turns -0.0 into 0.0: "-0.00" would claim a direction.
        shown = round(value * self.factor, self.digits) + 0.0
        sign = "+" if signed and value > 0 else ""
        if apart_from_zero and not shown and value:
            exact = value * self.factor
            first = -math.floor(math.log10(abs(exact)))  # the place of its first digit
            return f"{exact:{sign}.0e}" if first > MOST_PLACES else f"{exact:{sign}.{first}f}"
        return f"{shown:{sign if shown else ''}.{self.digits}f}"

    def ends(self, measured: Measured, *, signed: bool = False) -> Ends:
        """A known value and its ends; where 0 lies outside, none of them is written as 0."""
        low = -math.inf if measured.low is None else measured.low
        high = math.inf if measured.high is None else measured.high
        # "[-0.32, 0.00], which excludes 0" contradicts itself.
        apart = low > 0 or high < 0
        numbers = (measured.value, low, high)
        return Ends(*(self.number(n, signed=signed, apart_from_zero=apart) for n in numbers))

    def interval(self, measured: Measured, *, signed: bool = False) -> str:
        """'[+0.80, +1.50]'; nothing where the reason says why there is none."""
        if measured.reason and measured.low is None and measured.high is None:
            return ""
        _, low, high = self.ends(measured, signed=signed)
        return f"[{low}, {high}]"

    def written(self, measured: Measured, *, signed: bool = False) -> str:
        """Value, unit and interval: '+1.13 nats [+0.80, +1.50]'."""
        if measured.value is None:
            return self.absent
        value = self.ends(measured, signed=signed).value
        parts = (value, self.unit, self.interval(measured, signed=signed))
        return " ".join(part for part in parts if part)


PERCENT = Scale("%", 100, 1)
POINTS = Scale("pp", 100, 1)
RATIO = Scale("", 1, 2, absent="undefined")
AREA = Scale("", 1, 2)  # under a curve


class Written(NamedTuple):
    """An estimate as text: '+1.13' and '[+0.80, +1.50]'."""

    value: str
    interval: str


def aligned(estimates: Sequence[Measured], scale: Scale, *, signed: bool) -> list[Written | None]:
    """Estimates padded with blanks to stand under each other; None where one is unknown."""
    texts = [scale.ends(e, signed=signed) for e in estimates if e.value is not None]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    written = []
    for text in texts:
        value, low, high = map(str.rjust, text, widths)
        # Padding goes before the bracket: '[ 0.46' looks like a slip.
        written.append(Written(value, f"[{low.strip()}, {high}]".rjust(sum(widths[1:]) + 4)))
    rest = iter(written)
    return [None if estimate.value is None else next(rest) for estimate in estimates]
