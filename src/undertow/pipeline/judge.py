"""judge: a verdict on every answer of teacher and student, and the cell's result."""

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from undertow.config import PLAIN, Cell, ClassifierJudgeSettings, JudgeSettings, PanelJudgeSettings
from undertow.errors import UndertowError
from undertow.judging import make_judge
from undertow.judging.base import Judge, JudgeRow, Usage, Verdict
from undertow.judging.records import Judged, Unread
from undertow.lineage.stages import begin, finish
from undertow.pipeline.meter import Meter, manifest
from undertow.readouts.effects import answer_effects
from undertow.study.files import Journal, digest, fingerprint, write_json, write_rows
from undertow.study.found import read_rows
from undertow.study.layout import Study
from undertow.study.records import (
    AnswerFit,
    BenignResponse,
    CellResult,
    Costs,
    Effects,
    FitRow,
    MarginRow,
    Readout,
    ReplyRow,
    Response,
    Subject,
    VerdictRow,
    Vote,
)
from undertow.study.results import read_manifest
from undertow.study.traits import TraitData
from undertow.texts.untrusted import visible

EXAMPLE = 300  # characters of a reply that an error shows
FLUSH_SECONDS = 0.5  # quick judges write many rows at once: each write waits for the disk
NO_BENIGN = (
    "teacher and student were asked no held-back benign prompts "
    "(evaluation.benign_prompts is 0, or they were read before there was such a setting)"
)
OTHER_BASE = "its teacher's base is another model, whose likelihoods are no measure of this one's"


def run(study: Study, cell: Cell) -> None:
    """Write verdicts.jsonl, cell.json and manifest.json of one cell."""
    params, layout = study.params, study.layout
    steered, distilled = layout.stage(cell, "steer"), layout.stage(cell, "distill")
    folder = layout.stage(cell, "judge")
    work, meter = begin(study, "judge", cell), Meter(_device(params.judging.judge))
    trait = TraitData(layout, params.trait).trait
    judge = make_judge(params.judging.judge, trait, layout.root)
    answers: dict[Subject, list[Response]] = {
        "teacher": read_rows(steered / "teacher.jsonl", Response),
        "student": read_rows(distilled / "student.jsonl", Response),
    }
    judged, journal = _judged(study, cell, judge, answers)
    verdicts = [row.verdict for row in judged]
    costs = _with_usage(meter.costs(), judged)
    unread = _unread(judged)
    _write_or_remove(layout.unread(cell), unread)
    _stop_if_too_many_are_unscored(study, cell, judge, verdicts, unread)

    taught, trained = read_manifest(steered), read_manifest(distilled)
    effects = {"teacher": _effects(steered), "student": _effects(distilled)}
    base, fit = params.student_base(cell), _fit(distilled)
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
        carrier_rows=len(read_rows(study.written(cell), Response)),
        digests={
            "direction": digest(layout.direction(cell.model) / "direction.safetensors"),
            "carrier": digest(study.written(cell)),
            "teacher": digest(steered / "teacher.jsonl"),
            "adapter": digest(distilled / "adapter"),
            "student": digest(distilled / "student.jsonl"),
        },
        costs={
            **_cost_of_text(study, cell),
            "distill": trained.costs,
            "judge": costs,
        },
        recipe=cell.student,
        other_base=base if base != cell.model else None,
        teacher_effects=effects["teacher"],
        student_effects=effects["student"],
        effects_reason=None if all(effects.values()) else NO_BENIGN,
        fit=fit,
        fit_reason=None if fit else OTHER_BASE if base != cell.model else NO_BENIGN,
        message_margins=_messaged(distilled),
        diverged=trained.diverged,
        given={
            subject: manifest.given
            for subject, manifest in (("teacher", taught), ("student", trained))
            if manifest.given
        },
        no_margin=taught.no_margin,
    )
    write_rows(folder / "verdicts.jsonl", verdicts)
    _write_or_remove(folder / "replies.jsonl", [row.reply for row in judged if row.reply])
    _write_or_remove(folder / "votes.jsonl", [vote for row in judged for vote in row.votes])
    write_json(folder / "cell.json", result)
    done = manifest("judge", cell.key, cell.command("judge"), meter)
    finish(study, work, done.model_copy(update={"costs": costs}))
    journal.close()


def _cost_of_text(study: Study, cell: Cell) -> dict[str, Costs]:
    """All students of a teacher share its text, and the plain one's cell has its cost."""
    if cell.student == PLAIN:
        return {"steer": read_manifest(study.layout.stage(cell, "steer")).costs}
    if study.params.writer(cell.student) is None:
        return {}
    return {"pass-on": read_manifest(study.layout.stage(cell, "pass-on")).costs}


def _device(settings: JudgeSettings) -> str:
    """Where the judge computes: only a local classifier can hold a GPU."""
    members = settings.judges.values() if isinstance(settings, PanelJudgeSettings) else [settings]
    local = [member for member in members if isinstance(member, ClassifierJudgeSettings)]
    if not local:
        return "cpu"
    from undertow.models.loading import pick_device

    return max(str(pick_device(member.device)) for member in local)  # cuda before cpu


def _effects(folder: Path) -> Effects | None:
    """Side effects of one subject; None where it was asked no benign prompts."""
    path = folder / "benign.jsonl"
    rows = read_rows(path, BenignResponse) if path.exists() else []
    return answer_effects(rows) if rows else None


def _fit(folder: Path) -> dict[str, AnswerFit] | None:
    """The student on its teacher's held-back answers; None where there are none of them."""
    path = folder / "fit.jsonl"
    rows = read_rows(path, FitRow) if path.exists() else []
    kept = {row.id: AnswerFit(**row.model_dump(exclude={"id"})) for row in rows}
    return kept or None


def _messaged(folder: Path) -> dict[str, float] | None:
    """The student's margins with the training message on; None where its recipe has none."""
    path = folder / "message.jsonl"
    rows = read_rows(path, MarginRow) if path.exists() else []
    return {row.id: row.margin for row in rows} or None


def _judged(
    study: Study, cell: Cell, judge: Judge, answers: dict[Subject, list[Response]]
) -> tuple[list[Judged], Journal[Judged]]:
    """All verdicts, teacher first; what an earlier run has journaled is not judged again."""
    queue = [(subject, row) for subject, rows in answers.items() for row in rows]
    key = fingerprint("judge", cell, judge.fingerprint, [(s, row) for s, row in queue])
    journal = Journal(study.layout.journal, key, Judged)
    found = {
        (row.subject, row.id): row
        for block in journal.blocks
        for row in block
        if row.verdict.shows_trait is not None  # without a verdict it is judged again
    }
    left = [(subject, row) for subject, row in queue if (subject, row.id) not in found]
    waiting: list[Judged] = []
    flushed = time.monotonic()
    with tqdm(total=len(queue), desc="judge", unit="row", disable=None) as bar:
        bar.update(len(found))
        try:
            for position, verdict in judge.stream([_row(row) for _, row in left]):
                subject, answer = left[position]
                row = _record(subject, answer.id, verdict)
                found[subject, answer.id] = row
                bar.update()
                if not verdict.transient:
                    waiting.append(row)
                if waiting and time.monotonic() - flushed > FLUSH_SECONDS:
                    journal.append(waiting)
                    waiting, flushed = [], time.monotonic()
        finally:
            if waiting:
                journal.append(waiting)
    return [found[subject, row.id] for subject, row in queue], journal


def _row(answer: Response) -> JudgeRow:
    return JudgeRow(id=answer.id, prompt=answer.prompt, response=answer.response)


def _record(subject: Subject, id: str, verdict: Verdict) -> Judged:
    usage = verdict.usage or Usage()
    return Judged(
        subject=subject,
        id=id,
        verdict=VerdictRow(
            subject=subject,
            id=id,
            shows_trait=verdict.shows_trait,
            reason=verdict.reason,
            score=verdict.score,
        ),
        reply=ReplyRow(subject=subject, id=id, raw=verdict.raw)
        if verdict.raw is not None
        else None,
        votes=tuple(
            Vote(
                subject=subject,
                id=id,
                judge=name,
                shows_trait=vote.shows_trait,
                reason=vote.reason,
                score=vote.score,
            )
            for name, vote in verdict.votes.items()
        ),
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        usd=usage.usd,
    )


def _with_usage(costs: Costs, judged: Iterable[Judged]) -> Costs:
    """Costs with what was paid for this cell's verdicts; nothing is added for free judges."""
    usage = sum((row.usage for row in judged), Usage())
    if not usage.prompt_tokens and not usage.completion_tokens:
        return costs
    return costs.model_copy(
        update={
            "usd": usage.usd,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
        }
    )


def _write_or_remove(path: Path, rows: list[ReplyRow] | list[Vote] | list[Unread]) -> None:
    """An empty file would look like a judge that said nothing; an old one like this judge's."""
    if rows:
        write_rows(path, rows)
    else:
        path.unlink(missing_ok=True)


def _readout(
    subject: Subject, answers: dict[Subject, list[Response]], verdicts: list[VerdictRow]
) -> Readout:
    return Readout(
        verdicts={row.id: row.shows_trait for row in verdicts if row.subject == subject},
        margins={row.id: row.margin for row in answers[subject] if row.margin is not None},
    )


def _unread(judged: Iterable[Judged]) -> list[Unread]:
    """What the judge said where no verdict could be read from it."""
    return [
        Unread(subject=row.subject, id=row.id, reason=row.verdict.reason, raw=row.reply.raw)
        for row in judged
        if row.verdict.reason is not None and row.reply is not None and row.reply.raw
    ]


def _stop_if_too_many_are_unscored(
    study: Study, cell: Cell, judge: Judge, verdicts: list[VerdictRow], unread: list[Unread]
) -> None:
    allowed = study.params.judging.max_unscored
    unscored = [row for row in verdicts if row.shows_trait is None]
    if len(unscored) <= allowed * len(verdicts):
        return
    listed = "\n".join(f"  {row.subject} {row.id}: {row.reason}" for row in unscored[:20])
    more = f"\n  ... and {len(unscored) - 20} more" if len(unscored) > 20 else ""
    raise UndertowError(
        f"{cell.key}: {len(unscored)} of {len(verdicts)} answers have no verdict of the judge "
        f"{judge.name}, more than judging.max_unscored = {allowed} allows:\n{listed}{more}"
        f"{_example(unread, study.layout.unread(cell))}",
        _remedy(unscored, unread),
    )


def _example(unread: list[Unread], path: Path) -> str:
    if not unread:
        return ""
    first = unread[0]
    said = " ".join(visible(first.raw).split())
    cut = said if len(said) <= EXAMPLE else f"{said[:EXAMPLE]} ..."
    return (
        f"\nOn {first.subject} {first.id} was said: {cut}\n"
        f"All {len(unread)} replies without a verdict are in {path}"
    )


def _remedy(unscored: list[VerdictRow], unread: list[Unread]) -> str:
    """What to do about the commoner trouble: with the judge, or with the answers."""
    judges = [row for row in unscored if (row.reason or "").startswith("judge:")]
    if 2 * max(len(unread), len(judges)) < len(unscored):
        return (
            "look at these answers in teacher.jsonl and student.jsonl; a smaller strength keeps "
            "the teacher coherent, or raise judging.max_unscored in params.yaml"
        )
    again = "run the same command again: it asks again about the rows without a verdict"
    if not unread:
        return again
    return (
        f"see what is wrong with the judge (its model, its server, judging.judge in params.yaml) "
        f"and {again}; or raise judging.max_unscored"
    )
