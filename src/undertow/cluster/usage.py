"""How busy the workers of a run were, as they say themselves; the driver's clock places it.

What a worker says of a stage is how long it was inside it, loading, compiling and capturing
included; that and the time at which the answer came make one stretch of a common clock. Sending
and waiting count as idle.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from undertow.plan.jobs import JobStage
from undertow.study.files import write_json
from undertow.study.records import Record

FILE = Path(".undertow") / "cluster" / "usage.json"
OF_MODELS: tuple[JobStage, ...] = ("fetch", "direction")


class WorkerUse(Record):
    """One worker. A share is null where it had no work to take a share of.

    start_seconds: from asking Ray for it until it is ready. busy_seconds: inside stages, of them
    load_seconds loading models. span_seconds: from its first job to its last. cells_busy_seconds:
    of the time in which anybody worked on cells. cells: students that it trained.
    """

    worker: int
    node: str
    gpus: str
    lost: bool
    jobs: int
    cells: int
    start_seconds: float
    load_seconds: float
    busy_seconds: float
    span_seconds: float
    busy_share: float | None
    cells_busy_seconds: float
    cells_busy_share: float | None


class ClusterUse(Record):
    """cells_seconds: from the beginning of the first cell to the end of the last on a worker."""

    seconds: float
    cells_seconds: float
    workers: tuple[WorkerUse, ...]


class _Stretch(NamedTuple):
    begin: float
    end: float
    of_cells: bool


@dataclass
class Use:
    """What is noted of one worker while it lives; seconds of a clock that only goes forward."""

    worker: int
    asked: float
    node: str = ""
    gpus: str = ""
    ready: float | None = None
    lost: bool = False
    jobs: int = 0
    cells: int = 0
    loading: float = 0.0
    stretches: list[_Stretch] = field(default_factory=list)

    def worked(self, stage: JobStage, seconds: float, loading: float) -> None:
        """An answer has just come, of work that took so long; loading: of it, loading models."""
        now = time.monotonic()
        # A worker's own clock may run a little faster, and nothing overlaps.
        begin = max(now - seconds, self.stretches[-1].end if self.stretches else self.asked)
        self.stretches.append(_Stretch(begin, now, stage not in OF_MODELS))
        self.loading += loading

    def between(self, begin: float, end: float) -> float:
        """Seconds inside stages between two times."""
        return sum(max(0.0, min(one.end, end) - max(one.begin, begin)) for one in self.stretches)


def used(uses: Sequence[Use], started: float) -> ClusterUse:
    """The account of a run that began at `started`."""
    cells = [one for use in uses for one in use.stretches if one.of_cells]
    first = min((one.begin for one in cells), default=started)
    last = max((one.end for one in cells), default=started)
    return ClusterUse(
        seconds=round(time.monotonic() - started, 3),
        cells_seconds=round(last - first, 3),
        workers=tuple(_of_worker(use, first, last) for use in uses if use.ready is not None),
    )


def told(use: ClusterUse) -> Iterable[str]:
    """Lines for people."""
    for one in use.workers:
        share = "no cell" if one.cells_busy_share is None else f"busy {one.cells_busy_share:.0%}"
        where = f"{one.node} worker {one.worker}" + (f" (GPU {one.gpus})" if one.gpus else "")
        yield (
            f"{where}: {one.cells} cells, {one.jobs} jobs; {share} of "
            f"{use.cells_seconds:.0f} s between first and last cell; ready after "
            f"{one.start_seconds:.0f} s, {one.load_seconds:.0f} s loading models"
        )


def keep(root: Path, use: ClusterUse) -> None:
    """Write it where the next run will replace it; it is no result."""
    (root / FILE).parent.mkdir(parents=True, exist_ok=True)
    write_json(root / FILE, use)


def _of_worker(use: Use, first: float, last: float) -> WorkerUse:
    busy = use.between(float("-inf"), float("inf"))
    span = use.stretches[-1].end - use.stretches[0].begin if use.stretches else 0.0
    in_cells = use.between(first, last)
    return WorkerUse(
        worker=use.worker,
        node=use.node,
        gpus=use.gpus,
        lost=use.lost,
        jobs=use.jobs,
        cells=use.cells,
        start_seconds=round((use.ready or use.asked) - use.asked, 3),
        load_seconds=round(use.loading, 3),
        busy_seconds=round(busy, 3),
        span_seconds=round(span, 3),
        busy_share=round(busy / span, 4) if span else None,
        cells_busy_seconds=round(in_cells, 3),
        cells_busy_share=round(in_cells / (last - first), 4) if last > first else None,
    )
