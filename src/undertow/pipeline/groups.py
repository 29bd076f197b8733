"""The students of a model that are due, trained in groups before any of them is read.

What is trained together is a matter of speed: a student's bytes are the same in every group of a
run. Where students cannot be trained together, nothing is done here, and each cell's own stage
trains its student.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from undertow.carrier.filter import training_carrier
from undertow.config import Cell
from undertow.errors import UndertowError
from undertow.pipeline import training
from undertow.pipeline.lessons import Prepared, prepared
from undertow.pipeline.loading import Loaded, Shelf
from undertow.pipeline.reading_together import by_teacher
from undertow.student.together import Fit, Together
from undertow.study.layout import Study
from undertow.study.sources import say


class _Pupil(NamedTuple):
    due: training.Due
    ready: Prepared


class Trainers:
    """The last trainer, for as long as the students of its run come, and the lessons of a base.

    What a trainer has captured serves all groups of its run.
    """

    def __init__(self) -> None:
        self._trainer: Together | None = None
        self._run: list[Path] = []
        # Of each run so far, whatever memory is free when it comes again.
        self._fits: dict[tuple[Path, ...], Fit] = {}
        self._pupils: dict[Path, _Pupil] = {}

    @property
    def size(self) -> int:
        """Of the groups that were trained last."""
        return self._trainer.size if self._trainer else 1

    def of(self, pupils: Mapping[Cell, _Pupil], loaded: Loaded) -> Together:
        """The trainer of these students, all those of their run."""
        run = [pupil.due.checkpoint for pupil in pupils.values()]
        if run != self._run:
            self.let_go()
            self._run = run
        if self._trainer is None:
            taught = [(pupil.ready.lesson.teaching, cell.seed) for cell, pupil in pupils.items()]
            self._trainer = Together(
                loaded.model, loaded.tokenizer, taught, fit=self._fits.get(tuple(run))
            )
        return self._trainer

    def pupil(self, study: Study, cell: Cell, shelf: Shelf) -> _Pupil:
        """UndertowError where there is nothing that it could be trained on."""
        carrier = training_carrier(study, cell).rows
        due = training.Due(cell, carrier, training.checkpoint_of(study, cell, carrier))
        if due.checkpoint not in self._pupils:
            ready = prepared(study, cell, carrier, shelf)
            self._pupils[due.checkpoint] = _Pupil(due, ready)
        return self._pupils[due.checkpoint]

    def let_go(self) -> None:
        """Of the memory that training holds; lessons stay."""
        if self._trainer is not None:
            self._fits[tuple(self._run)] = self._trainer.fit
            self._trainer.close()
        self._trainer = None

    def clear(self) -> None:
        """Let go of everything: with its base."""
        self.let_go()
        self._run = []
        self._fits.clear()
        self._pupils.clear()


def train_due(
    study: Study,
    shelf: Shelf,
    run: Sequence[Cell],
    is_due: Callable[[Cell], bool],
    lock_of: Callable[[Cell], FileLock],
    trainers: Trainers,
) -> Generator[tuple[list[Cell], Exception | None], None, None]:
    """Train those cells of the run that are due; yields each group as it ends, with its error.

    run: all cells whose students have this one base that this run could train, due or not: the
    shapes of a step are theirs, those of one teacher's model apart. A cell that another process
    holds is left to it. After an error nothing more is trained.
    """
    if not training.may_be_together(study) or not any(is_due(cell) for cell in run):
        return
    model = study.params.student_base(run[0])
    loaded = training.load(study, model, shelf)
    if training.trainer_of(study, loaded) != "together":
        return
    for cells in by_teacher(run):
        if not any(is_due(cell) for cell in cells):
            continue
        pupils = _pupils(study, cells, shelf, trainers)
        for part in _by_work(pupils):
            for done, error in _train(study, shelf, model, part, is_due, lock_of, trainers):
                yield done, error
                if error is not None:
                    return


def _train(
    study: Study,
    shelf: Shelf,
    model: str,
    pupils: Mapping[Cell, _Pupil],
    is_due: Callable[[Cell], bool],
    lock_of: Callable[[Cell], FileLock],
    trainers: Trainers,
) -> Iterator[tuple[list[Cell], Exception | None]]:
    """Train the cells that are due with one trainer, group by group."""
    waiting = [cell for cell in pupils if is_due(cell)]
    if not waiting:
        return
    trainer = trainers.of(pupils, training.load(study, model, shelf))
    while waiting:
        with ExitStack() as stack:
            group: list[_Pupil] = []
            while waiting and len(group) < trainer.size:
                cell = waiting.pop(0)
                if not _taken(stack, lock_of(cell)) or not is_due(cell):
                    continue
                if not training.finished(pupils[cell].due.checkpoint):
                    group.append(pupils[cell])
            if not group:
                continue
            cells = [pupil.due.cell for pupil in group]
            say(f"training together: {', '.join(cell.key for cell in cells)}")
            loaded = training.load(study, model, shelf)  # with a meter of this group's own
            try:
                training.train_group(
                    study,
                    [pupil.due for pupil in group],
                    [pupil.ready for pupil in group],
                    loaded,
                    trainer,
                )
            except Exception as error:  # the other cells are worth having
                yield cells, error
                return
            yield cells, None


def _pupils(
    study: Study, run: Sequence[Cell], shelf: Shelf, trainers: Trainers
) -> dict[Cell, _Pupil]:
    """Every cell of the run that has a carrier to train on; its own stage says why one has not."""
    found = {}
    for cell in run:
        try:
            found[cell] = trainers.pupil(study, cell, shelf)
        except UndertowError:
            continue
    return found


def _by_work(pupils: Mapping[Cell, _Pupil]) -> list[dict[Cell, _Pupil]]:
    """Apart, who is taught with more passes: KL to the base is a second one forward, a corridor
    asks its probes now and then, and what one student of a trainer needs all of them go through.
    """
    parts: dict[tuple[bool, bool], dict[Cell, _Pupil]] = {}
    for cell, pupil in pupils.items():
        teaching = pupil.ready.lesson.teaching
        also = (teaching.kl is not None, teaching.corridor is not None)
        parts.setdefault(also, {})[cell] = pupil
    return [parts[also] for also in sorted(parts)]


def _taken(stack: ExitStack, lock: FileLock) -> bool:
    try:
        stack.enter_context(lock)
    except Timeout:
        return False
    return True
