"""Sample responses for the report: the same few prompts for every arm, never picked by outcome."""

from collections.abc import Sequence
from pathlib import Path

from undertow.config import Cell
from undertow.report.page import Details, Exchange, Paragraph, Part, Section
from undertow.study.found import read_rows
from undertow.study.layout import Layout, Study
from undertow.study.records import Record, Response, VerdictRow

PER_ARM = 3


class Sample(Record):
    """What teacher and student of one cell answered to one evaluation prompt."""

    model: str
    arm: str
    seed: int
    prompt: str
    teacher: str
    student: str
    teacher_verdict: bool | None
    student_verdict: bool | None


def read_samples(study: Study, per_arm: int = PER_ARM) -> list[Sample]:
    """The first prompts of every model and arm, at the first seed."""
    params, layout = study
    seed = params.grid.seeds[0]
    return [
        sample
        for model in params.grid.models
        for arm in params.arms
        for sample in _of_cell(layout, Cell(model, arm, seed), per_arm)
    ]


def _of_cell(layout: Layout, cell: Cell, count: int) -> list[Sample]:
    judged = layout.stage(cell, "judge")
    teacher = _by_id(layout.stage(cell, "steer") / "teacher.jsonl")
    student = _by_id(layout.stage(cell, "distill") / "student.jsonl")
    verdicts = {
        (row.subject, row.id): row.shows_trait
        for row in read_rows(judged / "verdicts.jsonl", VerdictRow)
    }
    shared = [id for id in teacher if id in student]
    return [
        Sample(
            model=cell.model,
            arm=cell.arm.name,
            seed=cell.seed,
            prompt=teacher[id].prompt,
            teacher=teacher[id].response,
            student=student[id].response,
            teacher_verdict=verdicts.get(("teacher", id)),
            student_verdict=verdicts.get(("student", id)),
        )
        for id in sorted(shared)[:count]
    ]


def _by_id(path: Path) -> dict[str, Response]:
    return {row.id: row for row in read_rows(path, Response)}


def samples_section(
    samples: Sequence[Sample] | None, *, harmful: bool, reveal: bool, per_arm: int = PER_ARM
) -> Section:
    """Responses per arm, folded; none for a harmful trait unless `reveal`."""
    return Section("responses", "Sample responses", _parts(samples, harmful, reveal, per_arm))


def _parts(
    samples: Sequence[Sample] | None, harmful: bool, reveal: bool, per_arm: int
) -> tuple[Part, ...]:
    if harmful and not reveal:
        return (
            Paragraph(
                "Prompts and responses are left out because the trait is marked as harmful, so "
                "that this page can be passed on. They lie beside the results files."
            ),
        )
    if not samples:
        return (Paragraph("No responses were given to this report."),)
    arms: dict[tuple[str, str, int], list[Sample]] = {}
    for sample in samples:
        arms.setdefault((sample.model, sample.arm, sample.seed), []).append(sample)
    intro = Paragraph(
        f"The first prompts of the evaluation set, at most {per_arm} per arm: the same for every "
        "arm, not chosen by outcome. Text is shown exactly as it was generated; characters that "
        "cannot be seen are named in angle brackets."
    )
    folded = [
        Details(
            f"{model}, {arm}, seed {seed}",
            tuple(_exchange(sample) for sample in group[:per_arm]),
        )
        for (model, arm, seed), group in arms.items()
    ]
    return (intro, *folded)


def _exchange(sample: Sample) -> Exchange:
    return Exchange(
        sample.prompt,
        (
            ("Teacher", _VERDICTS[sample.teacher_verdict], sample.teacher),
            ("Student", _VERDICTS[sample.student_verdict], sample.student),
        ),
    )


_VERDICTS = {True: "shows the trait", False: "does not show the trait", None: "no verdict"}
