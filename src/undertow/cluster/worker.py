"""One place of a cluster: a scratch folder that looks like the study, and a shelf of models.

It runs the same stage functions as every other way to run them. What a stage reads is sent to it,
and what it has written is sent back; nothing else of it is kept.
"""

import os
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Literal

import torch
from filelock import FileLock, Timeout

import undertow
from undertow.cluster.answers import Outcome, Shared, Spent
from undertow.cluster.parcels import Parcel, pack, remove_outputs, stays, unpack
from undertow.config import Cell
from undertow.errors import UndertowError
from undertow.lineage.stages import cell_node, model_node
from undertow.models.loading import pick_device
from undertow.pipeline import direction, distill, fetch, judge, pass_on, steer
from undertow.pipeline.groups import Trainers, train_due
from undertow.pipeline.loading import Shelf, half_free
from undertow.pipeline.reading_together import read_due
from undertow.plan.jobs import JobStage
from undertow.study.layout import Study


class Worker:
    """Runs stages in a folder of its own, one at a time, inside an actor of Ray.

    shared: params.yaml, dvc.yaml and data/, the same for every stage. threads: of torch.
    """

    def __init__(self, shared: Parcel, threads: int) -> None:
        torch.set_num_threads(threads)
        self._root, self._alive = _scratch()
        unpack(self._root, shared)
        # The hashes of code in a manifest are then those of the code that has run.
        (self._root / "src").mkdir()
        (self._root / "src" / "undertow").symlink_to(Path(undertow.__file__).parent)
        os.chdir(self._root)
        self._study = Study.open(self._root)
        self._shelf, self._trainers, self._base = Shelf(), Trainers(), ""

    def close(self) -> None:
        """Remove the scratch folder."""
        os.chdir("/")
        shutil.rmtree(self._root, ignore_errors=True)

    def together(
        self,
        stage: Literal["steer", "pass-on", "distill"],
        mine: Sequence[Cell],
        run: Sequence[Cell],
        inputs: Parcel,
    ) -> Spent:
        """Train and read these cells in groups where that is possible: `Shared`.

        run: all cells of this kind. What is done here the stages take up.
        """
        return self._timed(partial(self._together, stage, mine, run, inputs))

    def stage(self, stage: JobStage, subject: str | Cell, inputs: Parcel) -> Spent:
        """Run a stage on these inputs and send back what it wrote: `Outcome`."""
        return self._timed(partial(self._stage, stage, subject, inputs))

    def _timed(self, work: Callable[[], Shared | Outcome]) -> Spent:
        started, loaded = time.perf_counter(), self._shelf.seconds
        answer = work()
        return Spent(answer, time.perf_counter() - started, self._shelf.seconds - loaded)

    def _together(
        self,
        stage: Literal["steer", "pass-on", "distill"],
        mine: Sequence[Cell],
        run: Sequence[Cell],
        inputs: Parcel,
    ) -> Shared:
        unpack(self._root, inputs)
        self._hold(mine[0])
        failed: dict[Cell, str] = {}
        size, kept, study = 1, True, self._study

        def is_due(cell: Cell) -> bool:
            return cell in mine and cell not in failed

        try:
            if stage == "distill":
                for cells, error in train_due(
                    study, self._shelf, run, is_due, self._lock, self._trainers
                ):
                    if error is not None and not _short(error):
                        failed |= dict.fromkeys(cells, _told(error))
                    if error is not None:
                        self._let_go()
                size, kept = self._trainers.size, self._may_keep()
                if not kept:
                    self._trainers.let_go()
            size = max(size, read_due(study, self._shelf, stage, run, is_due, self._lock))
        except Exception:  # each cell's own stage will say what is wrong with it
            self._let_go()
        return Shared(failed, size, kept)

    def _may_keep(self) -> bool:
        """Whether there is room for what training has captured beside what reading needs."""
        device = pick_device(self._study.params.runtime.device)
        return device.type != "cuda" or half_free(device)

    def _let_go(self) -> None:
        self._trainers.clear()
        self._shelf.clear()

    def _stage(self, stage: JobStage, subject: str | Cell, inputs: Parcel) -> Outcome:
        unpack(self._root, inputs)
        self._hold(subject)
        study, shelf = self._study, self._shelf
        try:
            if isinstance(subject, str):
                node = model_node(study, stage, subject)
                if stage == "fetch":
                    fetch.run(study, subject)
                else:
                    direction.run(study, subject, shelf)
            else:
                node = cell_node(study, stage, subject)
                if stage == "steer":
                    steer.run(study, subject, shelf)
                elif stage == "pass-on":
                    pass_on.run(study, subject, shelf)
                elif stage == "distill":
                    distill.run(study, subject, shelf)
                else:
                    judge.run(study, subject)
        except Exception as error:
            self._let_go()  # an adapter may still be on
            known = isinstance(error, UndertowError)
            trace = "" if known else "".join(traceback.format_exception(error))
            return Outcome(None, _told(error), trace, _short(error))
        outputs = pack(self._root, node.outs)
        remove_outputs(self._root, node)
        for name in inputs:
            if not stays(name):
                (self._root / name).unlink()  # a scratch folder is to stay small
        return Outcome(outputs)

    def _hold(self, subject: str | Cell) -> None:
        """Let go of the models of another base: a machine may have no room for all of them."""
        base = subject if isinstance(subject, str) else self._study.params.student_base(subject)
        if base != self._base:
            self._let_go()
            self._base = base

    def _lock(self, cell: Cell) -> FileLock:
        return FileLock(self._root / f"{cell.key.replace('/', '_')}.lock", timeout=0)


def _scratch() -> tuple[Path, FileLock]:
    """A new folder, and the lock that is held while its process lives.

    Those of workers that were killed are removed.
    """
    above = Path(gettempdir())
    for folder in above.glob("undertow-worker-*/"):
        with suppress(Timeout, OSError), FileLock(folder / ".alive", timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
    made = Path(mkdtemp(prefix=".undertow-worker-", dir=above))
    alive = FileLock(made / ".alive", timeout=0)
    alive.acquire()
    root = made.with_name(made.name.removeprefix("."))
    made.rename(root)
    return root, alive


def _short(error: Exception) -> bool:
    no_room = isinstance(error, OSError) and error.errno in (12, 28)  # ENOMEM, ENOSPC
    # What PyTorch says of a machine's own memory has no class of its own.
    no_room |= isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return no_room or isinstance(error, MemoryError | torch.OutOfMemoryError)


def _told(error: Exception) -> str:
    if isinstance(error, UndertowError):
        return str(error)
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}\n  -> the traceback is above"
