"""Who of many workers does what next: the rule of `run-cells --ray`, which `plan` simulates."""

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from undertow.models.sharing import shares
from undertow.plan.jobs import Job, JobStage, Kind

ORDER: tuple[JobStage, ...] = ("fetch", "direction", "steer", "pass-on", "distill", "judge")
"""Of what is ready with one base, this goes first: what others wait for."""
TOGETHER: tuple[JobStage, ...] = ("steer", "pass-on", "distill")  # are run in groups
GROUP = 16  # cells of one portion, before it is known how many make a group
LONG = 1e9  # seconds, of what has never been measured


class Holds(Protocol):
    """A worker; held: the base that it has loaded, or nothing."""

    held: str


Holder = TypeVar("Holder", bound=Holds)


class Rates:
    """Measured seconds, from which the length of what is left is guessed."""

    def __init__(self) -> None:
        self._usual: dict[Kind, list[tuple[float, int]]] = defaultdict(list)
        self._first: dict[Kind, list[tuple[float, int]]] = defaultdict(list)

    def add(self, kind: Kind, seconds: float, count: int, *, first: bool) -> None:
        """So many jobs took so long; first: their worker had not done this kind before."""
        (self._first if first else self._usual)[kind].append((seconds, count))

    def of(self, kind: Kind) -> float:
        """Seconds of a job."""
        known = self._usual.get(kind) or self._first.get(kind)
        return sum(s for s, _ in known) / sum(n for _, n in known) if known else LONG

    def setup(self, kind: Kind) -> float:
        """What a worker's first portion of a kind takes besides: loading, compiling, capturing."""
        if not self._usual.get(kind) or not self._first.get(kind):
            return 0.0
        usual = self.of(kind)
        extra = [seconds - usual * count for seconds, count in self._first[kind]]
        return max(0.0, sum(extra) / len(extra))


def hands(due: Sequence[Job], idle: Iterable[str], rates: Rates) -> int:
    """Among how many idle workers the due jobs of one kind are shared out; idle: what each holds.

    Those that hold the jobs' base; others would have to begin with it, and count where all would be
    done sooner with them, and where nobody holds it.
    """
    kind = due[0].kind
    bases = list(idle)
    holding, every = bases.count(kind[1]), len(bases)
    if holding in (0, every):
        return every
    alone, shared = (rates.of(kind) * -(-len(due) // many) for many in (holding, every))
    return every if rates.setup(kind) + shared < alone else holding


def holders_first(workers: Iterable[Holder], due: Iterable[Job]) -> list[Holder]:
    """In which order workers are asked: who holds a base of what is due before the others, which
    then know what is left to begin with."""
    bases = {job.base for job in due}
    return sorted(workers, key=lambda worker: worker.held not in bases)


def portion(due: int, run: int, workers: int, size: int | None, *, kept: bool = True) -> int:
    """How many of `due` jobs of a kind one worker takes at once, of a run of `run` of them.

    workers: that have nothing to do now, this one included. size: of the kind's groups; where it
    is not known yet, workers are those as well that hold the base. kept: what a group has captured
    serves the worker's next portion too; where it does not, everybody takes a share at once.
    """
    share = -(-due // max(1, workers))
    if size is None:
        return min(GROUP, share, -(-run // shares(run)))
    if kept or size >= min(share, GROUP):
        return min(size, share)
    return min(GROUP // size * size, -(-share // size) * size)


def chosen(
    ready: Iterable[Job],
    held: str,
    known: Container[Kind],
    rates: Rates,
    crew: Mapping[str, Sequence[float]],
    most: Callable[[Sequence[Job]], int],
) -> list[Job]:
    """The next work of a worker that holds this base: a portion of one kind, or nothing.

    The base that is held goes first, then the one with most work left for each who is at it; with
    one base what others wait for, then the longest. known: kinds that this worker has done with
    the base. crew: by base, in how many seconds each other worker that holds it will be free.
    most: how many of the due jobs of a kind are one portion. Nobody begins with a base whose crew
    would be done sooner without help.
    """
    left: dict[str, float] = defaultdict(float)
    alike: dict[Kind, list[Job]] = defaultdict(list)
    for job in ready:
        left[job.base] += rates.of(job.kind)
        alike[job.kind].append(job)

    def rank(kind: Kind) -> tuple[bool, float, int, float]:
        stage, base = kind[:2]
        each = 0.0 if base == held else left[base] / (1 + len(crew.get(base, ())))
        return base != held, -each, ORDER.index(stage), -rates.of(kind)

    for kind in sorted(alike, key=rank):
        jobs = alike[kind]
        jobs = jobs[: most(jobs)]
        others = crew.get(kind[1], ())
        if kind[1] == held or not others:
            return jobs
        without_help = (sum(others) + left[kind[1]]) / len(others)
        setup = 0.0 if kind in known else rates.setup(kind)
        if setup + rates.of(kind) * len(jobs) < without_help:
            return jobs
    return []
