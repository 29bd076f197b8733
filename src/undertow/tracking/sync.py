"""Bring the MLflow store in line with the results files.

A run's key is a fingerprint of all that it shows. A key that the store has is left alone, so
that runs of several commits stand side by side; a key that it lacks becomes a run. The tag
`current` marks the runs of the results as they are now, and the seeded views show only these.
"""

import json
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from undertow.analysis.summary import Summary
from undertow.config import Cell
from undertow.study.layout import Study
from undertow.study.records import CellResult
from undertow.tracking.content import contents
from undertow.tracking.run import DatasetInput, RunContent
from undertow.tracking.store import Store, explained, open_store, store_locked, usable
from undertow.tracking.views import seed_experiment

if TYPE_CHECKING:
    from mlflow.entities import Run

BATCH = 1000
WRITING = "undertow.writing"
"""The key of a run that is being written: where that was cut off, the next sync goes on."""
COLLISION = re.compile("'active' state|UniqueViolation|IntegrityError|Duplicate entry")
IDENTITY = ("kind", "model", "student", "arm", "seed")


class SyncReport(NamedTuple):
    """How many runs were new, completed or refreshed, and left alone."""

    created: int
    updated: int
    unchanged: int

    def describe(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in self._asdict().items())


def sync(
    study: Study, summary: Summary, grid: Mapping[Cell, CellResult], *, patient: bool = False
) -> SyncReport:
    """Write the runs that the store lacks; does nothing where tracking is off or not installed.

    A server that is slow is given up unless `patient`; the next sync goes on where this one
    stopped. Raises TrackingError where the store cannot be used.
    """
    params = study.params
    if not usable(params):
        return SyncReport(0, 0, 0)
    store = open_store(study, patient=patient)
    with explained(store.location), store_locked(store.location, "sync"):
        runs = list(_runs(store))
        complete = {key: run for run in runs if (key := run.data.tags.get("undertow.key"))}
        open_runs = [run for run in runs if "undertow.key" not in run.data.tags]
        wanted = contents(study, summary, grid)
        counts = {"created": 0, "updated": 0, "unchanged": 0}
        for content in wanted:
            known = complete.get(content.key)
            if known is None:
                adopted = _adoptable(store, open_runs, content)
                with _left_to_others():
                    _complete(store, content, adopted)
                counts["updated" if adopted else "created"] += 1
            else:
                counts["updated" if _refresh(store, content, known) else "unchanged"] += 1
        _mark_current(store, complete, {content.key for content in wanted})
        if counts["created"] or counts["updated"]:
            _drop_doubles(store)
        seed_experiment(store)
    return SyncReport(**counts)


def _runs(store: Store) -> "Iterable[Run]":
    token = None
    while True:
        page = store.client.search_runs([store.experiment_id], max_results=BATCH, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _adoptable(store: Store, open_runs: "list[Run]", content: RunContent) -> "Run | None":
    """The run that was opened for this very training: the same cell and the same losses."""
    for run in open_runs:
        if run.data.tags.get(WRITING) == content.key:
            return run
        same_cell = all(run.data.tags.get(tag) == content.tags.get(tag) for tag in IDENTITY)
        if same_cell and content.loss and _same_losses(store, run, content.loss):
            return run
    return None


def _same_losses(store: Store, run: "Run", loss: list[tuple[int, float]]) -> bool:
    history = store.client.get_metric_history(run.info.run_id, "loss")
    logged = {point.step: point.value for point in history}
    # loss.csv holds rounded numbers.
    return logged.keys() == {step for step, _ in loss} and all(
        math.isclose(logged[step], value, rel_tol=1e-3, abs_tol=1e-4) for step, value in loss
    )


def _complete(store: Store, content: RunContent, adopted: "Run | None") -> None:
    """Fill a run, a new one or one that its training opened, and close it."""
    from mlflow.entities import Param, RunTag

    client = store.client
    end = int(time.time() * 1000)
    run = adopted or client.create_run(
        store.experiment_id,
        start_time=end - int(content.seconds * 1000),
        tags={name: content.tags[name] for name in IDENTITY if name in content.tags}
        | {WRITING: content.key},
        run_name=content.name,
    )
    run_id = run.info.run_id
    # A training has written its own losses; a point that is there already is no second one.
    if WRITING in run.data.tags:
        _log_points(store, run, [("loss", loss, step) for step, loss in content.loss])
    _log_points(store, run, content.points)
    client.log_batch(
        run_id,
        params=[Param(name, value) for name, value in content.params.items()],
        tags=[RunTag(name, value) for name, value in content.tags.items()],
    )
    if content.datasets:
        client.log_inputs(run_id, datasets=[_dataset(item) for item in content.datasets])
    _log_files(store, content, run_id)
    # Last: a run without its key was cut off while being written, and is not taken for whole.
    client.log_batch(run_id, tags=[RunTag("undertow.key", content.key), RunTag("current", "yes")])
    client.set_terminated(run_id, status="FINISHED", end_time=end)


def _log_points(store: Store, run: "Run", points: Iterable[tuple[str, float, int]]) -> None:
    from mlflow.entities import Metric

    when = run.info.start_time
    metrics = [Metric(name, value, when, step) for name, value, step in points]
    for start in range(0, len(metrics), BATCH):
        store.client.log_batch(run.info.run_id, metrics=metrics[start : start + BATCH])


def _dataset(item: DatasetInput) -> Any:
    from mlflow.entities import Dataset, InputTag
    from mlflow.entities import DatasetInput as Input

    described = Dataset(
        name=item.name,
        digest=item.digest,
        source_type="local",
        source=json.dumps({"uri": item.source}),
    )
    return Input(described, [InputTag("mlflow.data.context", item.context)])


def _refresh(store: Store, content: RunContent, run: "Run") -> bool:
    """Replace a study's report where it was written anew over the same numbers."""
    written = content.tags.get("sha256.report")
    if written is None or run.data.tags.get("sha256.report") == written:
        return False
    with _left_to_others():
        _log_files(store, content, run.info.run_id)
        store.client.set_tag(run.info.run_id, "sha256.report", written)
    return True


def _log_files(store: Store, content: RunContent, run_id: str) -> None:
    for path in content.files:
        if path.is_dir():
            store.client.log_artifacts(run_id, str(path), artifact_path=path.name)
        else:
            store.client.log_artifact(run_id, str(path))


def _mark_current(store: Store, complete: "Mapping[str, Run]", wanted: set[str]) -> None:
    for key, run in complete.items():
        mark = "yes" if key in wanted else "no"
        if run.data.tags.get("current") != mark:
            with _left_to_others():
                store.client.set_tag(run.info.run_id, "current", mark)


def _drop_doubles(store: Store) -> None:
    """Leave one run of each key where several people wrote it at once; a server has no lock.

    Each writer does so after its last run and keeps the whole run with the smallest id, so
    whoever ends last leaves exactly one, and nobody deletes the one that another has kept.
    """
    if store.location.folder is not None:
        return
    runs = sorted(_runs(store), key=lambda run: str(run.info.run_id))
    kept: dict[str, str] = {}
    for run in runs:
        if (key := run.data.tags.get("undertow.key")) is not None:
            kept.setdefault(key, run.info.run_id)
    for run in runs:
        key = run.data.tags.get("undertow.key") or run.data.tags.get(WRITING)
        # Not a smaller one that is unfinished: once it is whole, another writer keeps it.
        if key in kept and run.info.run_id > kept[key]:
            with _left_to_others():
                store.client.delete_run(run.info.run_id)


@contextmanager
def _left_to_others() -> Iterator[None]:
    """Pass over a run that another writer has deleted since it was listed, or writes just now.

    Of two that write the same row one is told so, and the other goes on.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if not COLLISION.search(str(error)):
            raise
