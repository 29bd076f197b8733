"""The live loss curve of a student's training.

Training must not fail because a view of it does: where MLflow cannot be written, one line on
stderr says so and the points are dropped. loss.csv has them all.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from undertow.config import Cell, Params
from undertow.study.layout import Study
from undertow.tracking.content import cell_identity, cell_name
from undertow.tracking.store import Store, TrackingError, explained, open_store, usable, warn

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

CHUNK = 50
SECONDS = 5.0


class TrainingLog(Protocol):
    """Takes the points of one training."""

    def loss(self, step: int, loss: float, learning_rate: float | None = None) -> None: ...


class NullTracker:
    """Takes points and forgets them."""

    def loss(
        self,
        step: int,
        loss: float,
        learning_rate: float | None = None,
    ) -> None:
        return


class RunTracker:
    """Writes points to one run, many at a time: a write per point is a hundred times slower."""

    def __init__(self, store: Store, run_id: str, last_step: int) -> None:
        self._store = store
        self._run_id = run_id
        self._last_step = last_step
        self._pending: list[Metric] = []
        self._flushed = time.monotonic()
        self._broken = False

    def loss(self, step: int, loss: float, learning_rate: float | None = None) -> None:
        from mlflow.entities import Metric

        # A training that was killed starts over, and its run already holds these points.
        if step <= self._last_step or self._broken:
            return
        self._last_step = step
        now = int(time.time() * 1000)
        for name, value in (("loss", loss), ("learning_rate", learning_rate)):
            if value is not None and math.isfinite(value):
                self._pending.append(Metric(name, float(value), now, step))
        if len(self._pending) >= CHUNK or time.monotonic() - self._flushed > SECONDS:
            self.flush()

    def flush(self) -> None:
        points, self._pending = self._pending, []
        self._flushed = time.monotonic()
        if points:
            self._write(lambda client: client.log_batch(self._run_id, metrics=points))

    def fail(self) -> None:
        self.flush()
        self._write(lambda client: client.set_terminated(self._run_id, status="FAILED"))

    def _write(self, action: "Callable[[MlflowClient], object]") -> None:
        if self._broken:
            return
        try:
            with explained(self._store.location):
                action(self._store.client)
        except TrackingError as error:
            self._broken = True
            warn(f"the live loss curve stops here, loss.csv goes on; {error.message}")


@contextmanager
def log_training(study: Study, cell: Cell, key: str) -> Iterator[TrainingLog]:
    """Yield where the points of a cell's training go.

    `key` is the fingerprint of the training; a run that was opened for the same key and never
    completed is opened again. The run is left RUNNING for `sync` to complete, or marked FAILED
    when the block raises.
    """
    params = study.params
    tracker = _open(study, cell, key) if usable(params) else None
    if tracker is None:
        yield NullTracker()
        return
    try:
        yield tracker
    except BaseException:
        tracker.fail()
        raise
    tracker.flush()


def _open(study: Study, cell: Cell, key: str) -> RunTracker | None:
    params = study.params
    try:
        store = open_store(study)
        with explained(store.location):
            return _reopened(store, key) or _opened(store, params, cell, key)
    except TrackingError as error:
        warn(f"no live loss curve; {error.message}")
        return None


def _reopened(store: Store, key: str) -> RunTracker | None:
    query = f"tags.`undertow.training` = '{key}'"
    for run in store.client.search_runs([store.experiment_id], query):
        if "undertow.key" not in run.data.tags:
            run_id = run.info.run_id
            store.client.update_run(run_id, status="RUNNING")
            history = store.client.get_metric_history(run_id, "loss")
            return RunTracker(store, run_id, max((point.step for point in history), default=-1))
    return None


def _opened(store: Store, params: Params, cell: Cell, key: str) -> RunTracker:
    tags = cell_identity(cell) | {"trait": params.trait, "undertow.training": key}
    run = store.client.create_run(store.experiment_id, tags=tags, run_name=cell_name(cell))
    return RunTracker(store, run.info.run_id, -1)
