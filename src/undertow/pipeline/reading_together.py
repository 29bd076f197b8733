"""The teachers or students of a model that are due, asked in groups before their stages write.

Each group's readings are kept one by one (`readings`), and a stage takes up its own. The size of
groups is fixed for a run, done or due: places that nobody takes stay empty, so that what a subject
answers does not depend on what is still due.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NamedTuple

from filelock import FileLock, Timeout
from transformers import PreTrainedModel

from undertow.carrier.filter import training_carrier
from undertow.config import Cell
from undertow.lineage.stages import begin
from undertow.models.sharing import dealt
from undertow.models.stacked import worth_sharing
from undertow.pipeline import distill, pass_on, readings, steer, training
from undertow.pipeline.loading import Loaded, Shelf
from undertow.pipeline.pupils import Pupil
from undertow.student.group_size import ON_CPU
from undertow.study.files import digest
from undertow.study.layout import Study
from undertow.study.sources import say
from undertow.teacher.clothes import asked_alone, kind_of


class _Subject(NamedTuple):
    """A cell whose teacher, student or writer is asked; adapter: of the latter two."""

    cell: Cell
    place: Path
    adapter: Path | None


def read_due(
    study: Study,
    shelf: Shelf,
    stage: Literal["steer", "pass-on", "distill"],
    run: Sequence[Cell],
    is_due: Callable[[Cell], bool],
    lock_of: Callable[[Cell], FileLock],
) -> int:
    """Read and keep the subjects of those cells of a run that are due; the size of groups.

    run: all cells whose subjects have this one base, due or not: those of one teacher's model are
    read in groups of one size, which is theirs. A cell that another process holds is left to it,
    and so is one whose student is not trained yet.
    """
    if not training.may_be_together(study):
        return 1
    largest = 1
    for part in (alike for own in by_teacher(run) for alike in _alike(stage, own)):
        if any(is_due(cell) for cell in part):
            largest = max(largest, _read_part(study, shelf, stage, part, is_due, lock_of))
    return largest


def by_teacher(run: Iterable[Cell]) -> list[list[Cell]]:
    """The cells of each teacher's model: whether another model's have been written yet, when a
    base's students are trained, must change nothing for them."""
    found: dict[str, list[Cell]] = {}
    for cell in run:
        found.setdefault(cell.model, []).append(cell)
    return list(found.values())


def _alike(stage: str, run: Sequence[Cell]) -> list[list[Cell]]:
    """The run in parts that can share a batch: teachers of one kind, and all students."""
    parts: dict[str, list[Cell]] = {}
    for cell in run:
        if stage == "steer" and asked_alone(cell.arm):
            continue
        parts.setdefault(kind_of(cell.arm) if stage == "steer" else "", []).append(cell)
    return list(parts.values())


def _read_part(
    study: Study,
    shelf: Shelf,
    stage: Literal["steer", "pass-on", "distill"],
    part: Sequence[Cell],
    is_due: Callable[[Cell], bool],
    lock_of: Callable[[Cell], FileLock],
) -> int:
    model = study.params.student_base(part[0])
    loaded = shelf.load(study, model)
    size = group_size(loaded.model, study.params.runtime.batch_size, len(part))
    if size == 1:
        return size
    waiting = list(part)
    while waiting:
        with ExitStack() as locks:
            group: list[_Subject] = []
            while waiting and len(group) < size:
                cell = waiting.pop(0)
                if is_due(cell) and _taken(locks, lock_of(cell)) and is_due(cell):
                    group += _subject(study, loaded, stage, cell)
            if group:
                _read(study, shelf.load(study, model), stage, group, size)
    return size


def group_size(model: PreTrainedModel, batch_size: int, subjects: int) -> int:
    """How many subjects share a batch: as many as make it faster, in groups to be dealt out."""
    on_gpu = model.device.type == "cuda"
    return dealt(subjects, worth_sharing(model, batch_size) if on_gpu else ON_CPU)


def _subject(study: Study, loaded: Loaded, stage: str, cell: Cell) -> Iterator[_Subject]:
    """The subject of a cell, where there is one that has neither been read yet nor elsewhere."""
    if study.layout.given(cell, stage).exists():
        return
    adapter = None
    if stage == "pass-on":
        adapter = pass_on.writer(study, cell)
    work = begin(study, stage, cell)
    if stage == "steer":
        identity = steer.identity(study, cell, loaded)
    elif adapter is not None:
        identity = digest(adapter)
    else:
        checkpoint = training.checkpoint_of(study, cell, training_carrier(study, cell).rows)
        if not training.finished(checkpoint):
            return
        adapter = checkpoint / "adapter"
        identity = digest(adapter)
    place = readings.place_of(study, work, identity)
    if not place.exists():
        yield _Subject(cell, place, adapter)


def _read(study: Study, loaded: Loaded, stage: str, group: Sequence[_Subject], size: int) -> None:
    who = {"steer": "teachers", "pass-on": "what writers pass on", "distill": "students"}[stage]
    say(f"reading {who} together: {', '.join(subject.cell.key for subject in group)}")
    nobody = [None] * (size - len(group))
    if stage == "steer":
        cells = [subject.cell for subject in group]
        read = steer.read(study, loaded, [*cells, *nobody])
    else:
        pupils = [
            distill.pupil_of(study, subject.cell, subject.adapter)
            if stage == "distill"
            else Pupil(subject.adapter, subject.cell.seed)
            for subject in group
            if subject.adapter is not None
        ]
        ask = pass_on.read if stage == "pass-on" else distill.read
        read = ask(study, loaded, [*pupils, *nobody])
    costs = loaded.meter.costs()
    for subject, reading, tokens in zip(group, read.readings, read.reader.tokens, strict=False):
        if reading is not None:
            own = readings.share(costs, len(group), tokens)
            readings.keep(subject.place, reading, own)
    read.reader.forget()


def _taken(locks: ExitStack, lock: FileLock) -> bool:
    try:
        locks.enter_context(lock)
    except Timeout:
        return False
    return True
