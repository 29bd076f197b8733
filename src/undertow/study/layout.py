"""What every stage starts from: the parameters, the layout and the tools that they choose."""

from pathlib import Path
from typing import Literal, NamedTuple

from undertow.config import Cell, Params, load

Stage = Literal["steer", "pass-on", "distill", "judge"]
STAGES: tuple[Stage, ...] = ("steer", "distill", "judge")
"""The stages of a cell of the first round, in the order in which they run."""


class Layout(NamedTuple):
    """Where everything lies below the repository root."""

    root: Path

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def journal(self) -> Path:
        return self.root / ".undertow" / "journal"

    @property
    def metrics(self) -> Path:
        return self.results / "metrics.json"

    @property
    def summary(self) -> Path:
        return self.results / "summary.json"

    @property
    def plots(self) -> Path:
        return self.results / "plots"

    @property
    def report(self) -> Path:
        return self.results / "report.html"

    def carrier(self, name: str) -> Path:
        return self.root / "data" / "carriers" / name

    def trait(self, name: str) -> Path:
        return self.root / "data" / "traits" / name

    def fetched(self, model: str) -> Path:
        return self.results / "models" / f"{model}.json"

    def base(self, cell: Cell) -> Path:
        """What was fetched of the student's base; DVC finds it by the teacher's model."""
        return self.results / "bases" / cell.model / f"{cell.student}.json"

    def direction(self, model: str) -> Path:
        return self.results / "directions" / model

    def audit(self, model: str) -> Path:
        return self.results / "audit" / f"{model}.json"

    @property
    def answers(self) -> Path:
        """Answers that other engines gave."""
        return self.root / "data" / "answers"

    def given(self, cell: Cell, stage: str) -> Path:
        """Where answers lie that a stage takes in the place of asking."""
        of_teacher = self.answers / cell.model / cell.arm.name / str(cell.seed)
        if stage == "steer":
            return of_teacher / "steer.jsonl"
        return of_teacher / cell.student / f"{stage}.jsonl"

    def unread(self, cell: Cell) -> Path:
        """Replies without a verdict that the judge of a cell gave in its last run."""
        return self.root / ".undertow" / "unread" / f"{cell.key.replace('/', '-')}.jsonl"

    def stage(self, cell: Cell, stage: Stage) -> Path:
        """A stage's folder: the teacher's, and a folder for each of its students beside it."""
        of_teacher = self.results / "cells" / cell.model / cell.arm.name / str(cell.seed)
        if stage == "steer":
            return of_teacher / stage
        return of_teacher / cell.student / ("carrier" if stage == "pass-on" else stage)


class Study(NamedTuple):
    """Parameters plus layout."""

    params: Params
    layout: Layout

    @classmethod
    def open(cls, root: Path | None = None) -> "Study":
        layout = Layout(find_root() if root is None else root)
        return cls(load(layout.params), layout)

    def written(self, cell: Cell) -> Path:
        """carrier.jsonl of the steered teacher or, in a later round, of the student before."""
        stage: Stage = "steer" if self.params.writer(cell.student) is None else "pass-on"
        return self.layout.stage(cell, stage) / "carrier.jsonl"

    def stages_of(self, cell: Cell) -> tuple[Stage, ...]:
        """What runs for this cell; all students of a teacher share its steer."""
        if self.params.writer(cell.student) is not None:
            return ("pass-on", "distill", "judge")
        return STAGES


def find_root() -> Path:
    """The nearest folder upwards that holds params.yaml, else the current one."""
    here = Path.cwd().resolve()
    return next((path for path in (here, *here.parents) if (path / "params.yaml").exists()), here)
