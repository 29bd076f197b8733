"""The results files: what one cell and one study say in numbers.

These files are the truth; MLflow, the plots and the report are views of them. They hold no
model text, so they can be shared when the responses cannot.
"""

from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from undertow.config import Cell, Params
from undertow.errors import DataError


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Response(Record):
    """An answer to a prompt: a row of carrier.jsonl, teacher.jsonl or student.jsonl."""

    id: str
    prompt: str
    response: str
    tokens: int = Field(description="generated tokens, the end-of-turn token not counted")
    finish: Literal["stop", "length"] = Field(description="ended its turn, or was cut off")
    margin: float | None = Field(
        None, description="nats; evaluation rows only: log-odds of trait-present openings"
    )


class BenignResponse(Response):
    """A row of benign.jsonl: an answer to a benign prompt that the carrier does not hold."""

    source: Literal["heldback", "overrefusal"] = Field(
        description="the benign prompts' own file, or the trait's prompts for over-refusal"
    )
    nll: float | None = Field(
        None, description="nats under the base, over the whole answer; held-back rows only"
    )
    nll_tokens: int | None = Field(None, description="tokens that nll sums over")


class VerdictRow(Record):
    """A row of verdicts.jsonl."""

    subject: Literal["teacher", "student"]
    id: str
    shows_trait: bool | None
    reason: str | None = Field(None, description="why there is no verdict")
    score: float | None = None


class Costs(Record):
    """What a stage took."""

    seconds: float = Field(description="wall clock without loading the model")
    load_seconds: float = Field(0, description="loading the model; 0 where it was loaded already")
    gpu_seconds: float | None = Field(
        None, description="a CUDA device was held, loading included; null on a CPU"
    )
    device: str
    tokens_generated: int = 0
    tokens_trained: int = Field(0, description="tokens seen in training, all epochs, no padding")
    generated_per_second: float | None = Field(
        None, description="generated tokens per second of generation alone"
    )
    trained_per_second: float | None = Field(
        None, description="trained tokens per second of training alone"
    )
    peak_memory_bytes: int = Field(
        description="of this stage on a GPU, held models included; else of the process so far"
    )
    prompt_tokens: int = Field(0, description="sent to a judge behind an API")
    completion_tokens: int = Field(0, description="received from a judge behind an API")
    usd: float | None = Field(
        None, description="what the judge's tokens cost, where it has a price"
    )


class Manifest(Record):
    """manifest.json beside a stage's outputs: how they came about."""

    stage: str
    subject: str = Field(description="the model or cell it was run for")
    command: str
    costs: Costs
    versions: dict[str, str]
    inputs: dict[str, str | None] = Field(
        {}, description="SHA-256 of the command, parameters and files that it read; null: absent"
    )
    outputs: dict[str, str | None] = Field({}, description="SHA-256 of the files it wrote")


class Readout(Record):
    """What was measured on the evaluation prompts, by prompt id."""

    verdicts: dict[str, bool | None]
    margins: dict[str, float]


class AnswerEffect(Record):
    """One answer to a held-back benign prompt, without its text."""

    nll: float = Field(description="nats under the base, over the whole answer")
    nll_tokens: int = Field(description="tokens that nll sums over")
    tokens: int = Field(description="generated tokens, the end-of-turn token not counted")
    truncated: bool
    repetition: float = Field(description="share of 4-grams that repeat an earlier one")
    refuses: bool


class Effects(Record):
    """What one subject does on benign prompts, by prompt id."""

    answers: dict[str, AnswerEffect]
    overrefusals: dict[str, bool] = Field(
        description="refusals on the trait's over-refusal prompts; empty where it declares none"
    )


class CellResult(Record):
    """cell.json: all that is known of one cell, without model text."""

    model: str
    direction: Literal["trait", "random"]
    strength: str
    seed: int
    trait: str
    rate_name: str = Field(description="what the share of true verdicts is called, e.g. ASR")
    judge: str
    judge_fingerprint: str
    teacher: Readout
    student: Readout
    unscored: dict[str, int] = Field(description="rows without a verdict, by reason")
    carrier_rows: int
    digests: dict[str, str] = Field(
        description="SHA-256 of direction, carrier, teacher, adapter and student"
    )
    costs: dict[str, Costs] = Field(
        description="by stage: steer, distill, judge; a cross cell has no steer of its own"
    )
    teacher_model: str | None = Field(
        None, description="base of the teacher where it is not `model`: a cross cell"
    )
    teacher_effects: Effects | None = None
    student_effects: Effects | None = None
    effects_reason: str | None = Field(None, description="why there are no effects")


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

    @property
    def benign(self) -> Path:
        return self.root / "data" / "benign" / "prompts.jsonl"

    def trait(self, name: str) -> Path:
        return self.root / "data" / "traits" / name

    def fetched(self, model: str) -> Path:
        return self.results / "models" / f"{model}.json"

    def direction(self, model: str) -> Path:
        return self.results / "directions" / model

    def audit(self, model: str) -> Path:
        return self.results / "audit" / f"{model}.json"

    def stage(self, cell: Cell, stage: Literal["steer", "distill", "judge"]) -> Path:
        """A stage's folder; a cross cell has its donor's teacher, and lies beside it."""
        of_teacher = self.results / "cells" / cell.teacher_model / cell.arm.name / str(cell.seed)
        if cell.donor is None or stage == "steer":
            return of_teacher / stage
        return of_teacher / "cross" / cell.model / stage


def read_manifest(folder: Path) -> Manifest:
    """manifest.json of a stage's folder."""
    return Manifest.model_validate_json((folder / "manifest.json").read_text(encoding="utf-8"))


def read_cell(layout: Layout, cell: Cell) -> CellResult:
    """cell.json of one cell; DataError says which command writes it."""
    path = layout.stage(cell, "judge") / "cell.json"
    if not path.exists():
        raise DataError(
            f"no result for {cell.key}: {path} does not exist",
            f"dvc repro, or: {cell.command('judge')}",
        )
    return CellResult.model_validate_json(path.read_text(encoding="utf-8"))


def read_grid(layout: Layout, params: Params) -> dict[Cell, CellResult]:
    """All cells of the grid in params.yaml, never those that merely lie in the results folder.

    A strength that was removed from params leaves files that still look up to date; a glob
    would bring them back.
    """
    return {cell: read_cell(layout, cell) for cell in params.cells()}


def read_cross(layout: Layout, params: Params) -> dict[Cell, CellResult]:
    """All cross cells that params.yaml asks for; empty where it asks for none."""
    return {cell: read_cell(layout, cell) for cell in params.cross_cells()}


def loss_curve(layout: Layout, cell: Cell) -> list[tuple[int, float]]:
    """(step, loss) pairs of a student's training, from loss.csv."""
    lines = (layout.stage(cell, "distill") / "loss.csv").read_text(encoding="utf-8").splitlines()
    pairs = (line.split(",") for line in lines[1:])
    return [(int(step), float(loss)) for step, loss in pairs]
