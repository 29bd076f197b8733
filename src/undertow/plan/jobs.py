"""The stages of a run as jobs that wait for one another."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from undertow.config import PLAIN, Cell
from undertow.lineage.stages import Node, cell_node, model_node
from undertow.study.layout import Study

JobStage = Literal["fetch", "direction", "steer", "pass-on", "distill", "judge"]
State = Literal["waiting", "running", "done", "failed"]
Kind = tuple[JobStage, str, int, str]


@dataclass(eq=False)
class Job:
    """A stage of a model or cell; base: the model that it computes with."""

    stage: JobStage
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
    def kind(self) -> Kind:
        """Stage, base, round and teacher's model: jobs of one kind may be done together."""
        teacher = self.subject if isinstance(self.subject, str) else self.subject.model
        return self.stage, self.base, self.round, teacher

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

    groups: students are trained together, so the first of a kind waits for all its teachers.
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
            distill.behind = [job for job in writers if _writes_for(job, distill)]
    return jobs[: 2 * len(models)] + writers + jobs[2 * len(models) :]


def _writes_for(writer: Job, distill: Job) -> bool:
    """Whether it writes for students that may be trained together with this one."""
    teachers = writer.kind[3] == distill.kind[3] and writer.round == distill.round
    return teachers and (writer.stage == "steer" or writer.base == distill.base)
