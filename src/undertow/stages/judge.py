"""judge: a verdict on every answer of teacher and student, and the cell's result."""

from collections import Counter
from typing import Literal

from tqdm import tqdm

from undertow.config import Cell
from undertow.errors import UndertowError
from undertow.judging import make_judge
from undertow.judging.base import Judge, JudgeRow
from undertow.records import Journal, digest, fingerprint, read_rows, write_json, write_rows
from undertow.results import CellResult, Readout, Response, VerdictRow, read_manifest
from undertow.study import Meter, Study, cell_command, manifest
from undertow.traits import TraitData

BLOCK = 16
Subject = Literal["teacher", "student"]


def run(study: Study, cell: Cell) -> None:
    """Write verdicts.jsonl and cell.json of one cell."""
    params, layout = study.params, study.layout
    steered, distilled = layout.stage(cell, "steer"), layout.stage(cell, "distill")
    folder = layout.stage(cell, "judge")
    meter = Meter("cpu")
    trait = TraitData(layout, params.trait).trait
    judge = make_judge(params.judging.judge, trait)
    answers: dict[Subject, list[Response]] = {
        "teacher": read_rows(steered / "teacher.jsonl", Response),
        "student": read_rows(distilled / "student.jsonl", Response),
    }
    verdicts, journal = _judged(study, cell, judge, answers)
    _stop_if_too_many_are_unscored(verdicts, params.judging.max_unscored, cell)

    result = CellResult(
        model=cell.model,
        direction=cell.arm.direction,
        strength=cell.arm.strength,
        seed=cell.seed,
        trait=trait.name,
        rate_name=trait.rate_name,
        judge=judge.name,
        judge_fingerprint=judge.fingerprint,
        teacher=_readout("teacher", answers, verdicts),
        student=_readout("student", answers, verdicts),
        unscored=Counter(row.reason for row in verdicts if row.reason is not None),
        carrier_rows=len(read_rows(steered / "carrier.jsonl", Response)),
        digests={
            "direction": digest(layout.direction(cell.model) / "direction.safetensors"),
            "carrier": digest(steered / "carrier.jsonl"),
            "teacher": digest(steered / "teacher.jsonl"),
            "adapter": digest(distilled / "adapter"),
            "student": digest(distilled / "student.jsonl"),
        },
        costs={
            "steer": read_manifest(steered).costs,
            "distill": read_manifest(distilled).costs,
            "judge": manifest("judge", cell.key, cell_command("judge", cell), meter).costs,
        },
    )
    write_rows(folder / "verdicts.jsonl", verdicts)
    write_json(folder / "cell.json", result)
    journal.close()


def _judged(
    study: Study, cell: Cell, judge: Judge, answers: dict[Subject, list[Response]]
) -> tuple[list[VerdictRow], Journal[VerdictRow]]:
    """All verdicts, teacher first; blocks that an earlier run has finished are not judged again."""
    queue = [(subject, row) for subject, rows in answers.items() for row in rows]
    key = fingerprint("judge", cell, judge.fingerprint, [(s, row) for s, row in queue])
    journal = Journal(study.layout.journal, key, VerdictRow)
    blocks = [queue[start : start + BLOCK] for start in range(0, len(queue), BLOCK)]
    with tqdm(total=len(queue), desc="judge", unit="row", disable=None) as bar:
        bar.update(sum(len(block) for block in journal.blocks))
        for block in blocks[len(journal.blocks) :]:
            rows = [JudgeRow(id=r.id, prompt=r.prompt, response=r.response) for _, r in block]
            journal.append(
                [
                    VerdictRow(
                        subject=subject,
                        id=row.id,
                        shows_trait=verdict.shows_trait,
                        reason=verdict.reason,
                        score=verdict.score,
                    )
                    for (subject, row), verdict in zip(block, judge.judge(rows), strict=True)
                ]
            )
            bar.update(len(block))
    return [row for block in journal.blocks for row in block], journal


def _readout(
    subject: Subject, answers: dict[Subject, list[Response]], verdicts: list[VerdictRow]
) -> Readout:
    return Readout(
        verdicts={row.id: row.shows_trait for row in verdicts if row.subject == subject},
        margins={row.id: row.margin for row in answers[subject] if row.margin is not None},
    )


def _stop_if_too_many_are_unscored(
    verdicts: list[VerdictRow], allowed: float, cell: Cell
) -> None:
    unscored = [row for row in verdicts if row.shows_trait is None]
    if len(unscored) <= allowed * len(verdicts):
        return
    listed = "\n".join(f"  {row.subject} {row.id}: {row.reason}" for row in unscored[:20])
    more = f"\n  ... and {len(unscored) - 20} more" if len(unscored) > 20 else ""
    raise UndertowError(
        f"{cell.key}: {len(unscored)} of {len(verdicts)} answers have no verdict, more than "
        f"judging.max_unscored = {allowed} allows:\n{listed}{more}",
        "look at these answers in teacher.jsonl and student.jsonl; a smaller strength keeps the "
        "teacher coherent, or raise judging.max_unscored in params.yaml",
    )
