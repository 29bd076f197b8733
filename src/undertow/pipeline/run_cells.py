"""All cells of one model in one process: the base is loaded once, the stages are the same.

Those are the teachers of the model and the students that have it as their base: a student of
another base is trained in the run of that base, once its teacher has written. Later rounds come one
after another, each when the students that write for it are done. A long training stops now and then
to have the students that it has read and judged: their verdicts do not wait for its end.

What is due is decided when its turn comes, by the run's `Ledger`.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Literal, NamedTuple

from undertow.config import PLAIN, Cell
from undertow.lineage.stages import Node, cell_node, model_node
from undertow.pipeline import direction, distill, fetch, judge, pass_on, steer
from undertow.pipeline.groups import Trainers, train_due
from undertow.pipeline.ledger import CellsRun, Ledger, bases, cells_of, command, told
from undertow.pipeline.loading import Shelf
from undertow.pipeline.reading_together import read_due
from undertow.pipeline.spoken import one_of_many
from undertow.study.layout import Study
from undertow.study.sources import locked, say

READ_AFTER = 1800.0  # seconds of training: to go on afterwards takes up to a minute


class Step(NamedTuple):
    """A stage of one model or cell, and how it is run."""

    node: Node
    run: Callable[[], None]


def run_all(
    study: Study,
    models: Sequence[str] | None = None,
    seeds: Sequence[int] = (),
    *,
    commit: bool = True,
) -> Iterator[tuple[str, CellsRun]]:
    """The same for these bases, or every one, one after the other; a base whose students waited
    for another's teacher comes again."""
    waited, once = [], models is not None and len(models) == 1
    for base in dict.fromkeys(models or bases(study)):
        done = run_cells(study, base, seeds, commit=commit)
        if done.busy and not once:
            waited.append(base)
        yield base, done
    for base in waited:
        yield base, run_cells(study, base, seeds, commit=commit)


def run_cells(
    study: Study,
    model: str,
    seeds: Sequence[int] = (),
    *,
    commit: bool = True,
    ran: Callable[[Node], None] | None = None,
    read_after: float = READ_AFTER,
) -> CellsRun:
    """Run what is due of a model's cells and hand it to DVC, cell by cell.

    seeds: only the cells of these seeds; all where empty. ran: called after each stage that was
    run. read_after: seconds of training in groups after which the students that it has are read
    and judged before it goes on. A cell that fails does not end the others. Raises ConfigError
    where the grid has no such cells, UndertowError where DVC fails.
    """
    cells = cells_of(study, [model], seeds)
    with ThreadPoolExecutor(max_workers=1) as recorder:
        run = _Run(study, model, cells, recorder, commit=commit, ran=ran, read_after=read_after)
        return run.outcome()


class _Run:
    """One pass over the cells of one model."""

    def __init__(
        self,
        study: Study,
        model: str,
        cells: Sequence[Cell],
        recorder: ThreadPoolExecutor,
        *,
        commit: bool,
        ran: Callable[[Node], None] | None,
        read_after: float,
    ) -> None:
        self._study, self._root, self._model = study, study.layout.root, model
        self._ran, self._read_after = ran or (lambda _: None), read_after
        self._shelf = Shelf()
        self._base = [
            Step(model_node(study, "fetch", model), partial(fetch.run, study, model)),
            Step(
                model_node(study, "direction", model),
                partial(direction.run, study, model, self._shelf),
            ),
        ]
        self._cells = {cell: self._steps(cell) for cell in cells}
        nodes = [step.node for steps in (self._base, *self._cells.values()) for step in steps]
        self._ledger = Ledger(study, [model], nodes, recorder, commit=commit)
        self._failed = self._ledger.failed
        self._ended: set[str] = set()  # cells that were gone through, whatever came of it

    def _steps(self, cell: Cell) -> list[Step]:
        study, shelf = self._study, self._shelf
        taught = [
            Step(cell_node(study, "distill", cell), partial(distill.run, study, cell, shelf)),
            Step(cell_node(study, "judge", cell), partial(judge.run, study, cell)),
        ]
        if study.params.writer(cell.student) is not None:
            node = cell_node(study, "pass-on", cell)
            return [Step(node, partial(pass_on.run, study, cell, shelf)), *taught]
        if cell.student != PLAIN:
            return taught
        return [
            Step(cell_node(study, "steer", cell), partial(steer.run, study, cell, shelf)),
            *taught,
        ]

    def outcome(self) -> CellsRun:
        """Answer with all teachers, train the students that are due, then read and judge them;
        and the same for every later round, whose teachers are students.
        """
        with locked(self._ledger.locks / self._model, f"prepares {self._model}"):
            anew = self._work(self._model, self._base, anew=False)
        self._ledger.record(self._model)
        if self._failed:
            return self._ledger.outcome()
        fresh = dict.fromkeys(self._cells, anew)
        rounds: dict[int, list[Cell]] = {}
        for cell in self._cells:
            rounds.setdefault(self._study.params.round_of(cell.student), []).append(cell)
        for number in sorted(rounds):
            cells = rounds[number]
            self._write("steer" if number == 1 else "pass-on", cells, fresh)
            self._teach(cells, fresh)
        over = self._ended | self._failed.keys()  # a later look may have found it free
        self._ledger.busy = [key for key in dict.fromkeys(self._ledger.busy) if key not in over]
        return self._ledger.outcome()

    def _write(
        self, stage: Literal["steer", "pass-on"], cells: Sequence[Cell], fresh: dict[Cell, bool]
    ) -> None:
        """Have the carriers of a round written; a cell whose writer failed fails with it."""
        params = self._study.params
        for cell in cells:
            before = params.writer_of(cell)
            if before is not None:
                fresh[cell] = fresh.get(before, fresh[cell])
                if before.key in self._failed:
                    self._failed[cell.key] = f"its writer failed: {before.key}"
        writing = [cell for cell in cells if stage == "pass-on" or cell.student == PLAIN]
        self._read_together(stage, writing, fresh)
        for cell in writing:
            if cell.key in self._failed or not self._is_written_for(cell):
                continue
            with self._ledger.taken(cell) as mine:
                if mine:
                    fresh[cell] = self._work(cell.key, self._cells[cell][:1], fresh[cell])
        if stage == "steer":
            silent = {cell for cell in writing if cell.key in self._failed}
            for cell in cells:
                fresh[cell] = fresh.get(cell.plain, fresh[cell])
                if cell.plain in silent and cell.student != PLAIN:
                    self._failed[cell.key] = f"its teacher failed: {cell.plain.key}"

    def _is_written_for(self, cell: Cell) -> bool:
        """Whether the writer of a later round is there; another process may still train it."""
        before = self._study.params.writer_of(cell)
        return before is None or self._study.layout.stage(before, "distill").exists()

    def _finish(self, cell: Cell, fresh: dict[Cell, bool]) -> None:
        """Run what is left of a cell, and have it recorded."""
        key = cell.key
        if key in self._failed:
            return
        if cell.student != PLAIN and not self._study.layout.stage(cell, "steer").exists():
            say(
                f"{key}: waits for the teacher; give this command again after "
                f"{command([cell.model])}"
            )
            self._ledger.busy.append(key)
            return
        if not self._is_written_for(cell):
            say(f"{key}: waits for the student that writes for it; give this command again")
            self._ledger.busy.append(key)
            return
        with self._ledger.taken(cell) as mine:
            if mine:
                fresh[cell] = self._work(key, self._cells[cell], fresh[cell])
                self._ledger.record(key)
                self._ended.add(key)
            else:
                say(f"{key}: another process is working on it")
                self._ledger.busy.append(key)

    def _teach(self, cells: Sequence[Cell], fresh: dict[Cell, bool]) -> None:
        """Train, read and judge the students of a round."""
        trainers = Trainers()
        try:
            while trained := self._train(cells, fresh, trainers):
                trainers.let_go()
                self._read_and_judge(cells, fresh, only=trained)
        finally:
            trainers.clear()
        left = [cell for cell in cells if cell.key not in self._ended]
        self._read_and_judge(cells, fresh, only=left)

    def _train(
        self, cells: Sequence[Cell], fresh: Mapping[Cell, bool], trainers: Trainers
    ) -> list[Cell]:
        """Train what is due in groups, where that is possible; elsewhere the stages train.

        Returns those that were trained when it is time to read them and more is to be trained;
        nobody at the end.
        """
        trained: list[Cell] = []
        started = time.monotonic()
        groups = train_due(
            self._study,
            self._shelf,
            cells,
            lambda cell: self._is_due("distill", cell, fresh[cell]),
            self._ledger.lock,
            trainers,
        )
        try:
            with closing(groups):  # of a group that it has yielded it holds the locks
                for group, error in groups:
                    if error is not None:
                        self._failed |= dict.fromkeys((cell.key for cell in group), told(error))
                        self._shelf.clear()
                        continue
                    trained += group
                    if time.monotonic() - started >= self._read_after:
                        return trained
        except Exception as error:  # each cell's own stage will say what is wrong with it
            say(f"nothing was trained together: {told(error)}")
            self._shelf.clear()
        return []

    def _read_and_judge(
        self, cells: Sequence[Cell], fresh: dict[Cell, bool], only: Sequence[Cell]
    ) -> None:
        """Read these students of a round and finish their cells."""
        chosen = set(only)
        self._read_together("distill", cells, fresh, chosen)
        for cell in cells:
            if cell in chosen:
                self._finish(cell, fresh)

    def _read_together(
        self,
        stage: Literal["steer", "pass-on", "distill"],
        cells: Sequence[Cell],
        fresh: Mapping[Cell, bool],
        only: Collection[Cell] | None = None,
    ) -> None:
        """Ask the subjects that are due together, where that is possible; their stages write it.

        only: these cells of the run.
        """
        try:
            read_due(
                self._study,
                self._shelf,
                stage,
                cells,
                lambda cell: (
                    (only is None or cell in only) and self._is_due(stage, cell, fresh[cell])
                ),
                self._ledger.lock,
            )
        except Exception as error:  # each cell's own stage will say what is wrong with it
            say(f"nothing was read together: {told(error)}")
            self._shelf.clear()

    def _is_due(self, stage: str, cell: Cell, anew: bool) -> bool:
        """Whether a stage of a cell is to be run; what keeps it from that is told at the end."""
        if cell.key in self._failed:
            return False
        if not self._is_written_for(cell):
            return False
        node = cell_node(self._study, stage, cell)
        try:
            if self._ledger.state(node, anew) != "due":
                return False
            self._ledger.stop_if_changed(node)
        except Exception as error:  # the others are worth having
            self._ledger.fail(cell.key, error)
            return False
        return True

    def _work(self, subject: str, steps: Sequence[Step], anew: bool) -> bool:
        """Run what is due of these steps, and have it recorded; whether anything was run.

        anew: something that they depend on was run just now.
        """
        try:
            for step in steps:
                state = self._ledger.state(step.node, anew)
                if state == "due":
                    self._ledger.stop_if_changed(step.node)
                    with one_of_many(self._study, step.node.name, self._root / step.node.outs[0]):
                        step.run()
                    self._ledger.ran.append(step.node.name)
                    self._ran(step.node)
                    anew = True
                if state != "done":
                    self._ledger.finished(subject, step.node)
        except Exception as error:  # whatever it is, the other cells are worth having
            self._ledger.fail(subject, error)
            self._shelf.clear()  # an adapter may still be on
        return anew
