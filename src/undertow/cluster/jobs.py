"""The stages of a run as jobs that wait for one another, and the one that is next."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from undertow.cluster.worker import Stage
from undertow.config import PLAIN, Cell
from undertow.lineage.stages import Node, cell_node, model_node
from undertow.study.layout import Study

State = Literal["waiting", "running", "done", "failed"]
ORDER: tuple[Stage, ...] = ("fetch", "direction", "steer", "pass-on", "distill", "judge")
"""Of what is ready, this goes first: what others wait for."""


@dataclass(eq=False)
class Job:
    """A stage of a model or cell; base: the model that it computes with."""

    stage: Stage
    subject: str | Cell
    base: str
    node: Node
    round: int = 1
    after: list["Job"] = field(default_factory=list)  # it reads what they write
    behind: list["Job"] = field(default_factory=list)  # they have to have ended, well or not
    state: State = "waiting"
    anew: bool = False  # run in this run, or depends on what was
    busy: bool = False  # failed, because another process works on it
    tries: int = 0
    shunned: set[str] = field(default_factory=set)  # nodes of the cluster that lost it

    @property
    def kind(self) -> tuple[str, str, int]:
        """Jobs of one kind may be done together."""
        return self.stage, self.base, self.round

    @property
    def key(self) -> str:
        return self.subject if isinstance(self.subject, str) else self.subject.key

    @property
    def ready(self) -> bool:
        return (
            self.state == "waiting"
            and all(job.state == "done" for job in self.after)
            and all(job.state in ("done", "failed") for job in self.behind)
        )


def jobs_of(
    study: Study, models: Sequence[str], cells: Sequence[Cell], *, groups: bool
) -> list[Job]:
    """Every stage of these cells and models.

    groups: students are trained together, so the first of a base waits for all its teachers.
    """
    params = study.params
    jobs: list[Job] = []
    directions: dict[str, Job] = {}
    steers: dict[Cell, Job] = {}
    distills: dict[Cell, Job] = {}
    for model in models:
        fetch = Job("fetch", model, model, model_node(study, "fetch", model))
        node = model_node(study, "direction", model)
        directions[model] = Job("direction", model, model, node, after=[fetch])
        jobs += [fetch, directions[model]]
    for cell in cells:
        if cell.student == PLAIN:
            node = cell_node(study, "steer", cell)
            steers[cell] = Job("steer", cell, cell.model, node, after=[directions[cell.model]])
    writers = list(steers.values())
    for cell in cells:  # later rounds are the last
        base, number = params.student_base(cell), params.round_of(cell.student)
        own = [steers[cell.plain]] if cell.plain in steers else []
        distill = Job("distill", cell, base, cell_node(study, "distill", cell), number)
        before = params.writer_of(cell)
        if before is not None:
            node = cell_node(study, "pass-on", cell)
            trained = [distills[before]] if before in distills else []
            written = Job("pass-on", cell, base, node, number, [*trained, directions[base]])
            writers.append(written)
            own.append(written)
        distill.after = [*own, directions[base]]
        distills[cell] = distill
        judged = cell_node(study, "judge", cell)
        jobs += [distill, Job("judge", cell, base, judged, number, [*own, distill])]
    if groups:
        for distill in distills.values():
            distill.behind = [
                job for job in writers if (job.base, job.round) == (distill.base, distill.round)
            ]
    return jobs[: 2 * len(models)] + writers + jobs[2 * len(models) :]


class Rates:
    """Measured seconds of stages, from which the length of what is left is guessed."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], list[float]] = defaultdict(list)

    def add(self, job: Job, seconds: float) -> None:
        self._seconds[job.stage, job.base].append(seconds)

    def of(self, job: Job) -> float:
        """Seconds; what has never been measured counts as long."""
        known = self._seconds.get((job.stage, job.base))
        return sum(known) / len(known) if known else 1e9


def chosen(ready: Iterable[Job], node: str, held: str, rates: Rates) -> list[Job]:
    """The next work of a worker on this node that holds this base: all that is of one kind.

    What others wait for goes first, then the base that is held already, then the base with most
    work left, then the longest.
    """
    fit = [job for job in ready if node not in job.shunned]
    if not fit:
        return []
    left: dict[str, float] = defaultdict(float)
    for job in fit:
        left[job.base] += rates.of(job)
    fit.sort(
        key=lambda job: (
            ORDER.index(job.stage),
            job.base != held,
            -left[job.base],
            -rates.of(job),
        )
    )
    first = fit[0]
    return [job for job in fit if job.kind == first.kind]
