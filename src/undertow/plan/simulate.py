"""The wall time of a run on so many GPUs: its jobs, given out by the rule of `run-cells --ray`."""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from undertow.plan.jobs import Job, Kind
from undertow.plan.schedule import LONG, TOGETHER, Rates, chosen, hands, holders_first, portion


class Times(NamedTuple):
    """What jobs take, in seconds.

    job: of a job. setup: what a worker's first portion of a kind takes besides; first: it has
    done nothing with the base before but fetch it. size: of a kind's groups, None where they are
    not known.
    """

    job: Callable[[Job], float]
    setup: Callable[[Kind, bool], float]
    size: Callable[[Kind], int | None]


class Simulated(NamedTuple):
    """wall: seconds from the first job to the last; busy: of each worker."""

    wall: float
    busy: tuple[float, ...]


@dataclass(eq=False)
class _Worker:
    number: int
    held: str = ""
    known: set[Kind] = field(default_factory=set)
    portion: list[Job] = field(default_factory=list)
    free_at: float = 0.0
    busy: float = 0.0


def simulate(jobs: Sequence[Job], workers: int, times: Times) -> Simulated:
    """Run all these jobs, none of which has been done, on so many workers.

    Judging is the driver's and takes no worker; jobs of a portion end together.
    """
    return _Run(jobs, workers, times).outcome()


class _Run:
    def __init__(self, jobs: Sequence[Job], workers: int, times: Times) -> None:
        self._times, self._rates, self._now = times, Rates(), 0.0
        self._all = [_Worker(number) for number in range(workers)]
        self._runs: dict[Kind, int] = defaultdict(int)
        self._waits: dict[Job, int] = {}
        self._next: dict[Job, list[Job]] = defaultdict(list)
        self._due: dict[Job, None] = {}
        self._working: list[tuple[float, int]] = []
        inside = set(jobs)
        for job in jobs:
            self._runs[job.kind] += 1
            before = [other for other in {*job.after, *job.behind} if other in inside]
            self._waits[job] = len(before)
            for other in before:
                self._next[other].append(job)
        self._settle([job for job in jobs if not self._waits[job]])

    def outcome(self) -> Simulated:
        self._give()
        while self._working:
            self._now, number = heapq.heappop(self._working)
            worker = self._all[number]
            kind = worker.portion[0].kind
            seconds = self._spent(worker)
            self._rates.add(kind, seconds, len(worker.portion), first=kind not in worker.known)
            worker.known.add(kind)
            worker.busy += seconds
            done, worker.portion = worker.portion, []
            self._settle(self._freed(done))
            self._give()
        return Simulated(self._now, tuple(worker.busy for worker in self._all))

    def _settle(self, ready: Iterable[Job]) -> None:
        """What waits for nothing more is due, or judged at once."""
        waiting = list(ready)
        while waiting:
            job = waiting.pop()
            if job.stage == "judge":
                waiting += self._freed([job])
            else:
                self._due[job] = None

    def _freed(self, done: Iterable[Job]) -> list[Job]:
        free = []
        for job in done:
            for other in self._next[job]:
                self._waits[other] -= 1
                if not self._waits[other]:
                    free.append(other)
        return free

    def _give(self) -> None:
        refused: set[str] = set()  # of workers that hold nothing of what is due, one asks for all
        for worker in holders_first(self._all, self._due):
            if worker.portion or worker.held in refused or not self._due:
                continue
            crew: dict[str, list[float]] = defaultdict(list)
            for other in self._all:
                if other.portion:
                    crew[other.held].append(self._free_in(other))
            found = chosen(
                self._due,
                worker.held,
                worker.known,
                self._rates,
                crew,
                self._most,
            )
            if found:
                self._start(worker, found)
            else:
                refused.add(worker.held)

    def _start(self, worker: _Worker, found: list[Job]) -> None:
        if worker.held != found[0].base:
            worker.held, worker.known = found[0].base, set()
        worker.portion = found
        for job in found:
            del self._due[job]
        worker.free_at = self._now + self._spent(worker)
        heapq.heappush(self._working, (worker.free_at, worker.number))

    def _spent(self, worker: _Worker) -> float:
        kind = worker.portion[0].kind
        first = all(stage == "fetch" for stage, *_ in worker.known)
        setup = 0.0 if kind in worker.known else self._times.setup(kind, first)
        return setup + sum(self._times.job(job) for job in worker.portion)

    def _free_in(self, worker: _Worker) -> float:
        """As the driver guesses it."""
        kind = worker.portion[0].kind
        usual = self._rates.of(kind)
        return LONG if usual >= LONG else max(0.0, worker.free_at - self._now)

    def _most(self, alike: Sequence[Job]) -> int:
        kind = alike[0].kind
        if kind[0] not in TOGETHER:
            return 1
        size = self._times.size(kind)
        if size is None:
            crew = sum(not other.portion or other.held == kind[1] for other in self._all)
            return portion(len(alike), self._runs[kind], crew, None)
        idle = (other.held for other in self._all if not other.portion)
        at_hand = hands(alike, idle, self._rates)
        return portion(len(alike), self._runs[kind], at_hand, size)
