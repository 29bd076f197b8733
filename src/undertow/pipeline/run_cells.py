"""All cells of one model in one process: the base is loaded once, the stages are the same.

Those are the teachers of the model and the students that have it as their base: a student of
another base is trained in the run of that base, once its teacher has written. Later rounds come one
after another, each when the students that write for it are done.

What is due is decided when its turn comes. A stage whose manifest names the inputs and outputs
that lie on disk is done; DVC, where it is there, has the last word on any other.
"""

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Literal, NamedTuple

from filelock import FileLock, Timeout

from undertow.config import PLAIN, Cell
from undertow.errors import ConfigError, UndertowError
from undertow.lineage.handover import Recorded, changed, record, why_not
from undertow.lineage.stages import (
    Node,
    cell_node,
    differences,
    inputs_of,
    loaded_code,
    model_node,
    outputs_of,
    recorded,
    remember_code,
)
from undertow.pipeline import direction, distill, fetch, judge, pass_on, steer
from undertow.pipeline.groups import train_due
from undertow.pipeline.loading import Shelf
from undertow.pipeline.reading_together import read_due
from undertow.pipeline.spoken import one_of_many
from undertow.study.layout import Study
from undertow.study.sources import locked, say


class Step(NamedTuple):
    """A stage of one model or cell, and how it is run."""

    node: Node
    run: Callable[[], None]


class CellsRun(NamedTuple):
    """What a run of many cells came to.

    ran, recorded: names of stages. busy: cells that another process is working on, or whose
    teacher has yet to write.
    failed: what went wrong, by model, cell or stage. unrecorded: why DVC was told nothing.
    """

    ran: list[str]
    recorded: list[str]
    busy: list[str]
    failed: dict[str, str]
    unrecorded: str | None

    def undone(self) -> Iterator[str]:
        """A line for each thing that was not done, and why."""
        if self.unrecorded:
            yield f"nothing was committed to DVC: {self.unrecorded}"
        if self.busy:
            yield f"left to another process: {', '.join(self.busy)}"
        for subject, text in self.failed.items():
            yield f"error: {subject}: {text}"


def run_all(
    study: Study, seeds: Sequence[int] = (), *, commit: bool = True
) -> Iterator[tuple[str, CellsRun]]:
    """The same for every base, one after the other; a base whose students waited for another's
    teacher comes again."""
    cells = study.params.all_cells()
    teachers = [cell.model for cell in cells]
    waited = []
    for base in dict.fromkeys([*teachers, *map(study.params.student_base, cells)]):
        done = run_cells(study, base, seeds, commit=commit)
        if done.busy:
            waited.append(base)
        yield base, done
    for base in waited:
        yield base, run_cells(study, base, seeds, commit=commit)


def run_cells(
    study: Study, model: str, seeds: Sequence[int] = (), *, commit: bool = True
) -> CellsRun:
    """Run what is due of a model's cells and hand it to DVC, cell by cell.

    seeds: only the cells of these seeds; all where empty. A cell that fails does not end the
    others. Raises ConfigError where the grid has no such cells, UndertowError where DVC fails.
    """
    study.params.model_spec(model)
    cells = [
        cell
        for cell in study.params.all_cells()
        if study.params.student_base(cell) == model and (not seeds or cell.seed in seeds)
    ]
    if not cells:
        raise ConfigError(
            f"the grid has no cells of {model}" + (f" with seeds {list(seeds)}" if seeds else ""),
            "see grid.models and grid.seeds in params.yaml",
        )
    unrecorded = why_not(study.layout.root) if commit else "--no-commit was given"
    with ThreadPoolExecutor(max_workers=1) as recorder:
        return _Run(study, model, cells, unrecorded, recorder).outcome()


class _Run:
    """One pass over the cells of one model."""

    def __init__(
        self,
        study: Study,
        model: str,
        cells: Sequence[Cell],
        unrecorded: str | None,
        recorder: ThreadPoolExecutor,
    ) -> None:
        self._study, self._root, self._model = study, study.layout.root, model
        self._unrecorded, self._recorder = unrecorded, recorder
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
        for node in nodes:
            remember_code(study, node)
        self._changed = set() if unrecorded else changed(self._root, nodes)
        self._locks = self._root / ".undertow" / "cells"
        self._ran: list[str] = []
        self._finished: dict[str, list[Node]] = {}  # by subject, not yet handed to DVC
        self._recordings: list[tuple[str, Future[Recorded]]] = []
        self._busy: list[str] = []
        self._failed: dict[str, str] = {}

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
        self._locks.mkdir(parents=True, exist_ok=True)
        with locked(self._locks / self._model, f"prepares {self._model}"):
            anew = self._work(self._model, self._base, anew=False)
        self._record(self._model)
        if self._failed:
            return self._told()
        fresh = dict.fromkeys(self._cells, anew)
        rounds: dict[int, list[Cell]] = {}
        for cell in self._cells:
            rounds.setdefault(self._study.params.round_of(cell.student), []).append(cell)
        for number in sorted(rounds):
            cells = rounds[number]
            self._write("steer" if number == 1 else "pass-on", cells, fresh)
            self._train(cells, fresh)
            self._read_together("distill", cells, fresh)
            for cell in cells:
                self._finish(cell, fresh)
        return self._told()

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
            with self._taken(cell) as mine:
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
                f"python cli.py run-cells --model {cell.model}"
            )
            self._busy.append(key)
            return
        if not self._is_written_for(cell):
            say(f"{key}: waits for the student that writes for it; give this command again")
            self._busy.append(key)
            return
        with self._taken(cell) as mine:
            if mine:
                fresh[cell] = self._work(key, self._cells[cell], fresh[cell])
                self._record(key)
            else:
                say(f"{key}: another process is working on it")
                self._busy.append(key)

    def _train(self, cells: Sequence[Cell], fresh: Mapping[Cell, bool]) -> None:
        """Train what is due in groups, where that is possible; elsewhere the stages train."""

        try:
            for group, error in train_due(
                self._study,
                self._shelf,
                cells,
                lambda cell: self._is_due("distill", cell, fresh[cell]),
                self._lock,
            ):
                if error is not None:
                    self._failed |= dict.fromkeys((cell.key for cell in group), _told(error))
                    self._shelf.clear()
        except Exception as error:  # each cell's own stage will say what is wrong with it
            say(f"nothing was trained together: {_told(error)}")
            self._shelf.clear()

    def _read_together(
        self,
        stage: Literal["steer", "pass-on", "distill"],
        cells: Sequence[Cell],
        fresh: Mapping[Cell, bool],
    ) -> None:
        """Ask the subjects that are due together, where that is possible; their stages write it."""
        try:
            read_due(
                self._study,
                self._shelf,
                stage,
                cells,
                lambda cell: self._is_due(stage, cell, fresh[cell]),
                self._lock,
            )
        except Exception as error:  # each cell's own stage will say what is wrong with it
            say(f"nothing was read together: {_told(error)}")
            self._shelf.clear()

    def _is_due(self, stage: str, cell: Cell, anew: bool) -> bool:
        """Whether a stage of a cell is to be run; what keeps it from that is told at the end."""
        if cell.key in self._failed:
            return False
        if not self._is_written_for(cell):
            return False
        node = cell_node(self._study, stage, cell)
        try:
            if self._state(node, anew) != "due":
                return False
            self._stop_if_changed(node)
        except Exception as error:  # the others are worth having
            self._failed[cell.key] = _told(error)
            return False
        return True

    def _lock(self, cell: Cell) -> FileLock:
        return FileLock(self._locks / f"{cell.key.replace('/', '_')}.lock", timeout=0)

    @contextmanager
    def _taken(self, cell: Cell) -> Iterator[bool]:
        """Hold the cell's lock; False where another process is working on it."""
        lock = self._lock(cell)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _work(self, subject: str, steps: Sequence[Step], anew: bool) -> bool:
        """Run what is due of these steps, and have it recorded; whether anything was run.

        anew: something that they depend on was run just now.
        """
        finished = self._finished.setdefault(subject, [])
        try:
            for step in steps:
                state = self._state(step.node, anew)
                if state == "due":
                    self._stop_if_changed(step.node)
                    with one_of_many(self._study, step.node.name, self._root / step.node.outs[0]):
                        step.run()
                    self._ran.append(step.node.name)
                    anew = True
                if state != "done" and step.node not in finished:
                    finished.append(step.node)
        except Exception as error:  # whatever it is, the other cells are worth having
            self._failed[subject] = _told(error)
            self._shelf.clear()  # an adapter may still be on
        return anew

    def _record(self, subject: str) -> None:
        """Hand to DVC what has been finished of a cell or of the model itself."""
        finished = self._finished.pop(subject, [])
        if finished and self._unrecorded is None:
            task = self._recorder.submit(record, self._root, finished)
            self._recordings.append((subject, task))

    def _state(self, node: Node, anew: bool) -> Literal["due", "made", "done"]:
        """due: to be run; made: run, but DVC does not know it; done: nothing is left to do."""
        manifest = recorded(self._root, node)
        if (
            manifest is not None
            and manifest.inputs == inputs_of(self._study, node, code=loaded_code)
            and manifest.outputs == outputs_of(self._root, node)
        ):
            return "made" if node.name in self._changed else "done"
        known_to_dvc = self._unrecorded is None and node.name not in self._changed
        return "done" if known_to_dvc and not anew else "due"

    def _stop_if_changed(self, node: Node) -> None:
        """A stage that reads what is no longer there would give a result that nobody asked for."""
        now = inputs_of(Study.open(self._root), node)
        other = differences(inputs_of(self._study, node, code=loaded_code), now)
        if other:
            raise ConfigError(
                f"{node.name} was not run: {', '.join(other)} changed since this command began",
                f"give it again: python cli.py run-cells --model {self._model}",
            )

    def _told(self) -> CellsRun:
        """Wait for what is being recorded, and say how all of it ended."""
        for subject in list(self._finished):
            self._record(subject)
        names = []
        for subject, task in self._recordings:
            try:
                done = task.result()
            except Exception as error:  # the other recordings still count
                self._failed[f"{subject}, recording"] = _told(error)
                continue
            names += done.names
            for name, changes in done.stale.items():
                self._failed[name] = (
                    f"not recorded: {', '.join(changes)} changed since it began\n"
                    f"  -> python cli.py run-cells --model {self._model} runs what that calls for"
                )
        return CellsRun(self._ran, names, self._busy, self._failed, self._unrecorded)


def _told(error: Exception) -> str:
    if isinstance(error, UndertowError):
        return str(error)
    traceback.print_exception(error, file=sys.stderr)
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}\n  -> the traceback is above"
