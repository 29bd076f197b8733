"""How long the grid takes on so many GPUs, and where more of them stop helping.

The jobs of `run-cells --ray` are given out by its own rule, at the speeds that costs.py plans
with. Judging is the driver's and runs beside it; nothing is lost on the way.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from undertow.analysis.summary import read_summary
from undertow.config import Cell
from undertow.plan.costs import Speed, speed_of
from undertow.plan.jobs import Job, Kind, jobs_of
from undertow.plan.simulate import Times, simulate
from undertow.study.layout import Stage, Study
from undertow.study.records import Record

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
NO_BETTER = 1.03  # times the least wall time, from which on more GPUs no longer help


class WallTime(Record):
    """A run on so many GPUs; speedup: against one; busy: their mean share of the time."""

    gpus: int
    seconds: float
    speedup: float
    busy: float


class Link(Record):
    """A stage of the longest chain, once or several times in a row."""

    stage: str
    times: int
    seconds: float


class GpuPlan(Record):
    """asked: the number that was asked for. enough: the fewest GPUs after which more stop helping.

    Everything but cells and sources is null or empty, with a reason, where a model's speed is
    unknown. chain: the stages that can only follow one another, of the model that has most.
    """

    cells: int
    asked: WallTime | None
    table: tuple[WallTime, ...]
    enough: int | None
    chain_model: str | None
    chain_seconds: float | None
    chain: tuple[Link, ...]
    sources: dict[str, str]
    reason: str | None


class _Path(NamedTuple):
    seconds: float
    jobs: tuple[Job, ...]


def gpu_plan(study: Study, gpus: int) -> GpuPlan:
    """The whole grid of params.yaml, run already or not."""
    summary = read_summary(study.layout) if study.layout.summary.exists() else None
    params = study.params
    cells = params.all_cells()
    models = list(
        dict.fromkeys([*(cell.model for cell in cells), *map(params.student_base, cells)])
    )
    speeds = {model: speed_of(study, summary, model) for model in models}
    known = {model: speed for model, speed in speeds.items() if speed is not None}
    unknown = [model for model in models if model not in known]
    if unknown:
        return GpuPlan(
            cells=len(cells),
            asked=None,
            table=(),
            enough=None,
            chain_model=None,
            chain_seconds=None,
            chain=(),
            sources={model: _source(speed) for model, speed in known.items()},
            reason=f"no measured speed for {', '.join(unknown)}, run one cell of each first",
        )
    groups = any(speed.device not in (None, "cpu") for speed in known.values())
    jobs, times = jobs_of(study, models, cells, groups=groups), _times(known)
    walls: dict[int, WallTime] = {}

    def wall(number: int) -> WallTime:
        if number not in walls:
            found = simulate(jobs, number, times)
            walls[number] = WallTime(
                gpus=number,
                seconds=round(found.wall, 1),
                speedup=round(wall(1).seconds / found.wall, 2) if number > 1 else 1.0,
                busy=round(sum(found.busy) / (number * found.wall), 3),
            )
        return walls[number]

    table = [wall(number) for number in SIZES]
    longest = _longest(jobs, times)
    end = longest.jobs[-1]
    return GpuPlan(
        cells=len(cells),
        asked=wall(gpus),
        table=tuple(table),
        enough=_enough(wall),
        chain_model=end.kind[3],
        chain_seconds=round(longest.seconds, 1),
        chain=_links(longest, times),
        sources={model: _source(speed) for model, speed in known.items()},
        reason=None,
    )


def describe_gpus(plan: GpuPlan) -> str:
    """The plan as plain text."""
    if plan.asked is None:
        return f"Wall time of {plan.cells} cells: unknown: {plan.reason}"
    asked = plan.asked
    which = "1 GPU" if asked.gpus == 1 else f"{asked.gpus} GPUs"
    lines = [
        f"{which}: about {_time(asked.seconds)} at most for the {plan.cells} cells of params.yaml, "
        f"{asked.speedup:.1f} times as fast as one, busy {asked.busy:.0%} of the time",
        f"More than {plan.enough} stop helping: the longest chain takes "
        f"{_time(plan.chain_seconds or 0)}, of {plan.chain_model}: "
        f"{', '.join(map(_link, plan.chain))}; who begins with a base starts anew",
        "",
        "  GPUs     wall time  speed-up  busy",
    ]
    lines += [
        f"  {one.gpus:>4,}  {_time(one.seconds):>12}  {one.speedup:>8.1f}  {one.busy:>4.0%}"
        for one in plan.table
    ]
    lines += ["", *(f"{model}: {source}" for model, source in plan.sources.items())]
    return "\n".join(lines)


def _times(speeds: Mapping[str, Speed]) -> Times:
    """Of the jobs of these bases; fetching takes nothing, since a process's start has it."""
    by_student: dict[tuple[str, str], Mapping[Stage, float]] = {}

    def job(job: Job) -> float:
        speed = speeds[job.base]
        if job.stage == "direction":
            return speed.direction_seconds
        if job.stage == "pass-on":
            return speed.passing_on
        if not isinstance(job.subject, Cell) or job.stage not in ("steer", "distill"):
            return 0.0
        key = job.base, job.subject.student
        if key not in by_student:
            by_student[key] = speed.seconds(job.subject.student)
        return by_student[key][job.stage]

    def setup(kind: Kind, first: bool) -> float:
        return speeds[kind[1]].start_seconds if first and kind[0] != "fetch" else 0.0

    return Times(job, setup, size=lambda kind: None)


def _longest(jobs: Sequence[Job], times: Times) -> _Path:
    """The chain of jobs that takes longest."""
    paths: dict[Job, _Path] = {}

    def path(job: Job) -> _Path:
        if job not in paths:
            before = max(map(path, job.after), key=lambda one: one.seconds, default=_Path(0.0, ()))
            paths[job] = _Path(before.seconds + _alone(job, times), (*before.jobs, job))
        return paths[job]

    return max(map(path, jobs), key=lambda one: one.seconds)


def _alone(job: Job, times: Times) -> float:
    """Seconds of a job in a chain, whose process starts with the direction."""
    return times.job(job) + (times.setup(job.kind, True) if job.stage == "direction" else 0.0)


def _links(path: _Path, times: Times) -> tuple[Link, ...]:
    seconds: dict[str, list[float]] = {}
    for job in path.jobs:
        name = "start and direction" if job.stage == "direction" else job.stage
        if own := _alone(job, times):
            seconds.setdefault(name, []).append(own)
    return tuple(
        Link(stage=name, times=len(each), seconds=round(sum(each), 1))
        for name, each in seconds.items()
    )


def _enough(wall: Callable[[int], WallTime]) -> int:
    """The fewest GPUs that are nearly as fast as the most."""
    limit = NO_BETTER * wall(SIZES[-1]).seconds
    high = next(number for number in SIZES if wall(number).seconds <= limit)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if wall(middle).seconds <= limit else (middle, high)
    return high


def _source(speed: Speed) -> str:
    return f"{speed.source}, on {speed.device}"


def _link(link: Link) -> str:
    often = f"{link.times} x " if link.times > 1 else ""
    return f"{often}{link.stage} {_time(link.seconds)}"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.{0 if seconds >= 600 else 1}f} min"
    return f"{seconds / 3600:.1f} h"
