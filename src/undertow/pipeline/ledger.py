"""What is due of many cells, who works on it, what came of it, and handing it to DVC.

A stage whose manifest names the inputs and outputs that lie on disk is done; DVC, where it is
there, has the last word on any other.
"""

import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal, NamedTuple

from filelock import FileLock, Timeout

from undertow.config import Cell
from undertow.errors import ConfigError, UndertowError
from undertow.lineage.handover import Recorded, changed, record, why_not
from undertow.lineage.stages import (
    Node,
    differences,
    inputs_of,
    loaded_code,
    other_answers,
    outputs_of,
    recorded,
    remember_code,
)
from undertow.study.layout import Study


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


def cells_of(study: Study, models: Sequence[str], seeds: Sequence[int] = ()) -> list[Cell]:
    """The cells whose students have one of these bases, plain ones first.

    seeds: only the cells of these seeds; all where empty. Raises ConfigError where the grid has
    no such cells of one of the models.
    """
    found = [cell for cell in study.params.all_cells() if not seeds or cell.seed in seeds]
    bases = {cell: study.params.student_base(cell) for cell in found}
    for model in models:
        study.params.model_spec(model)
        if model not in bases.values():
            which = f" with seeds {list(seeds)}" if seeds else ""
            raise ConfigError(
                f"the grid has no cells of {model}{which}",
                "see grid.models and grid.seeds in params.yaml",
            )
    return [cell for cell in found if bases[cell] in models]


def bases(study: Study) -> list[str]:
    """Every model that teaches in the grid, and every one that a student is trained on."""
    cells = study.params.all_cells()
    teachers = [cell.model for cell in cells]
    return list(dict.fromkeys([*teachers, *map(study.params.student_base, cells)]))


def command(models: Iterable[str]) -> str:
    """What is typed to have all cells of these models run."""
    return " ".join(["python cli.py run-cells", *(f"--model {model}" for model in models)])


class Ledger:
    """The account of one run; use it in one thread.

    models: those that were asked for. nodes: every stage that the run may come to.
    """

    def __init__(
        self,
        study: Study,
        models: Sequence[str],
        nodes: Sequence[Node],
        recorder: ThreadPoolExecutor,
        *,
        commit: bool,
    ) -> None:
        self.study, self.root, self._again = study, study.layout.root, command(models)
        self._recorder = recorder
        self._unrecorded = why_not(self.root) if commit else "--no-commit was given"
        for node in nodes:
            remember_code(study, node)
        self._changed = set() if self._unrecorded else changed(self.root, nodes)
        self.locks = self.root / ".undertow" / "cells"
        self.locks.mkdir(parents=True, exist_ok=True)
        self.ran: list[str] = []
        self.busy: list[str] = []
        self.failed: dict[str, str] = {}
        self._finished: dict[str, list[Node]] = {}  # by subject, not yet handed to DVC
        self._recordings: list[tuple[str, Future[Recorded]]] = []

    def lock(self, cell: Cell) -> FileLock:
        return FileLock(self.locks / f"{cell.key.replace('/', '_')}.lock", timeout=0)

    @contextmanager
    def taken(self, cell: Cell) -> Iterator[bool]:
        """Hold the cell's lock; False where another process is working on it."""
        lock = self.lock(cell)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def state(self, node: Node, anew: bool) -> Literal["due", "made", "done"]:
        """due: to be run; made: run, but DVC does not know it; done: nothing is left to do.

        anew: something that it depends on was run just now.
        """
        manifest = recorded(self.root, node)
        if manifest is not None:
            now = inputs_of(self.study, node, code=loaded_code)
            if manifest.inputs == now and manifest.outputs == outputs_of(self.root, node):
                return "made" if node.name in self._changed else "done"
            if other_answers(manifest.inputs, now):  # which DVC does not look at
                return "due"
        known_to_dvc = self._unrecorded is None and node.name not in self._changed
        return "done" if known_to_dvc and not anew else "due"

    def stop_if_changed(self, node: Node) -> None:
        """A stage that reads what is no longer there would give a result that nobody asked for."""
        now = inputs_of(Study.open(self.root), node)
        other = differences(inputs_of(self.study, node, code=loaded_code), now)
        if other:
            raise ConfigError(
                f"{node.name} was not run: {', '.join(other)} changed since this command began",
                f"give it again: {self._again}",
            )

    def fail(self, subject: str, error: Exception) -> None:
        self.failed[subject] = told(error)

    def finished(self, subject: str, node: Node) -> None:
        """A stage of a cell, or of the model itself, that DVC has yet to hear of."""
        waiting = self._finished.setdefault(subject, [])
        if node not in waiting:
            waiting.append(node)

    def record(self, subject: str) -> None:
        """Hand to DVC what has been finished of a cell or of the model itself."""
        finished = self._finished.pop(subject, [])
        if finished and self._unrecorded is None:
            task = self._recorder.submit(record, self.root, finished)
            self._recordings.append((subject, task))

    def outcome(self) -> CellsRun:
        """Wait for what is being recorded, and say how all of it ended."""
        for subject in list(self._finished):
            self.record(subject)
        names = []
        for subject, task in self._recordings:
            try:
                done = task.result()
            except Exception as error:  # the other recordings still count
                self.fail(f"{subject}, recording", error)
                continue
            names += done.names
            for name, changes in done.stale.items():
                self.failed[name] = (
                    f"not recorded: {', '.join(changes)} changed since it began\n"
                    f"  -> {self._again} runs what that calls for"
                )
        return CellsRun(self.ran, names, self.busy, self.failed, self._unrecorded)


def told(error: Exception) -> str:
    """What the user reads of an error; of one that nobody foresaw, the traceback besides."""
    if isinstance(error, UndertowError):
        return str(error)
    traceback.print_exception(error, file=sys.stderr)
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}\n  -> the traceback is above"
