"""Students of students: does what was taken over grow or decay from round to round?

A round's shift is students minus control students of the same round, lineages (seeds) as rows. A
step ratio is one round's shift over that of the round before, of the same lineages and prompts, so
what is theirs cancels. Knows nothing of cells or recipes.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

from undertow.stats.draws import Draws
from undertow.stats.intervals import Estimate
from undertow.stats.worth import Asked, Rows, estimated

K = TypeVar("K", bound=Hashable)
Course = Literal["grows", "decays", "neither", "undecided"]

NEITHER = (0.8, 1.25)  # a step ratio within these is said to be neither
FIRST = "the first round has none before it"
ONE_LINEAGE = "one lineage cannot show how the next one would differ"


class Chain(NamedTuple):
    """rounds: each one's shift, the first one's first; teacher: the steered teacher's shift.

    streams: of each round's arm and control, none of them 0 and no two the same.
    """

    rounds: Sequence[Rows]
    teacher: Rows
    streams: Sequence[tuple[int, int]]

    @property
    def lineages(self) -> int:
        return int(self.rounds[0].moved.shape[0])


class Followed(NamedTuple):
    """By round shift, tau and step ratio; over all rounds the step ratio's geometric mean."""

    shifts: tuple[Estimate, ...]
    taus: tuple[Estimate, ...]
    steps: tuple[Estimate, ...]
    mean_step: Estimate


def followed(chains: Mapping[K, Chain], draws: Draws) -> dict[K, Followed]:
    """Every chain with its intervals; variances between seeds moderate each other.

    The mean step is (D_K / D_1)^(1 / (K - 1)), which is the trend of log D over rounds from its
    ends, and 0 where the last shift has the other sign; unknown where that of the first covers 0.
    """
    places = [(key, n) for key, chain in chains.items() for n in range(len(chain.rounds))]

    def at(key: K, n: int, bottom: Rows | None) -> Asked:
        chain = chains[key]
        return Asked(chain.rounds[n], bottom, chain.streams[n])

    shifts = estimated({(k, n): at(k, n, None) for k, n in places}, draws)
    taus = estimated({(k, n): at(k, n, chains[k].teacher) for k, n in places}, draws)
    later = [(k, n) for k, n in places if n]
    steps = estimated({(k, n): at(k, n, chains[k].rounds[n - 1]) for k, n in later}, draws)
    last = {k: len(chain.rounds) - 1 for k, chain in chains.items()}
    whole = estimated({k: at(k, n, chains[k].rounds[0]) for k, n in last.items() if n}, draws)
    found = {}
    for key, chain in chains.items():
        numbers = range(len(chain.rounds))
        mean = Estimate.unknown(FIRST)
        if last[key]:
            mean = _root(whole[key].estimate, last[key])
        found[key] = Followed(
            tuple(shifts[key, n].estimate for n in numbers),
            tuple(taus[key, n].estimate for n in numbers),
            (Estimate.unknown(FIRST), *(steps[key, n].estimate for n in numbers if n)),
            mean,
        )
    return found


def _root(ratio: Estimate, steps: int) -> Estimate:
    if ratio.value is None:
        return ratio
    value, low, high = (max(end, 0.0) ** (1 / steps) for end in (ratio.value, *ratio.ends))
    return Estimate(value, low, high)


def course(step: Estimate, lineages: int) -> Course:
    """The word that the interval of a mean step ratio carries."""
    if step.value is None or lineages < 2:
        return "undecided"
    low, high = step.ends
    if NEITHER[0] < low and high < NEITHER[1]:
        return "neither"
    if low > 1:
        return "grows"
    return "decays" if high < 1 else "undecided"
