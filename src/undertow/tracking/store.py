"""Where the MLflow store lies, how it is opened by many processes at once, and its UI."""

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from undertow.config import Params
from undertow.errors import ConfigError, UndertowError
from undertow.study.layout import Layout, Study

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"
SUPPORTED = re.compile(r"(sqlite:///|https?://|(postgresql|mysql|mssql)[+a-z0-9]*://|databricks)")
LEAN = {
    # Without the job runner the UI is 2 processes instead of 10.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class TrackingError(UndertowError):
    """The store cannot be opened or written."""


class Location(NamedTuple):
    """A tracking URI, and the folder of its database where that is a local file."""

    uri: str
    folder: Path | None


class Store(NamedTuple):
    location: Location
    client: "MlflowClient"
    experiment_id: str


def usable(params: Params) -> bool:
    """Whether runs can be written; says so on stderr where they were asked for and cannot."""
    if not params.tracking.enabled:
        return False
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", LEAN["MLFLOW_DISABLE_TELEMETRY"])
    try:
        import mlflow  # noqa: F401
    except ImportError:
        warn(
            "mlflow is not installed, so no runs are written; pip install mlflow, "
            "or set tracking.enabled to false in params.yaml"
        )
        return False
    return True


def warn(text: str) -> None:
    print(f"tracking: {text}", file=sys.stderr)


def location(layout: Layout) -> Location:
    """MLFLOW_TRACKING_URI, else mlruns/mlflow.db below DVC_ROOT, else below the repository root."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        root = Path(os.environ.get("DVC_ROOT") or layout.root)
        uri = f"{SQLITE}{root.resolve() / 'mlruns' / 'mlflow.db'}"
    if not SUPPORTED.match(uri):
        raise ConfigError(
            f"MLFLOW_TRACKING_URI is {uri!r}, which is not a database or a server",
            "unset it to use mlruns/mlflow.db, or set it to sqlite:////absolute/path/mlflow.db "
            "or https://server",
        )
    if not uri.startswith(SQLITE):
        return Location(uri, None)
    database = Path(uri.removeprefix(SQLITE)).resolve()
    return Location(f"{SQLITE}{database}", database.parent)


def open_store(study: Study) -> Store:
    """Open the store and the experiment, creating both where they are missing."""
    params, layout = study
    where = location(layout)
    with explained(where), store_locked(where, "open"):
        client = _client(where)
        return Store(where, client, _experiment(client, where, params.tracking.experiment))


@contextmanager
def explained(where: Location) -> Iterator[None]:
    """Turn whatever MLflow, its database or the disk raises into a TrackingError."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = str(error).split("\n", 1)[0]
        raise TrackingError(
            f"the MLflow store {where.uri} cannot be used: {reason}",
            "check MLFLOW_TRACKING_URI, or move mlruns/mlflow.db aside and run "
            "python cli.py track sync, which rebuilds it",
        ) from error


@contextmanager
def store_locked(where: Location, purpose: str) -> Iterator[None]:
    """Hold a local store's lock for one purpose; a server does its own locking."""
    if where.folder is None:
        yield
        return
    from filelock import FileLock

    where.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(where.folder / f".{purpose}.lock"):
        yield


def _client(where: Location) -> "MlflowClient":
    from mlflow import MlflowClient

    for noisy in ("mlflow.store.db.utils", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Creates or upgrades the tables of a database: the step that races without the lock.
    return MlflowClient(tracking_uri=where.uri)


def _experiment(client: "MlflowClient", where: Location, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        artifacts = None if where.folder is None else (where.folder / "artifacts").as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:
            # On a server somebody else may have created it since.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def ui_command(layout: Layout, port: int) -> tuple[list[str], dict[str, str]]:
    """The command that serves the store on 127.0.0.1, and the whole environment to run it in.

    Raises ConfigError where MLFLOW_TRACKING_URI names a server, which serves its own UI.
    """
    where = location(layout)
    if where.folder is None:
        raise ConfigError(
            f"the runs are on {where.uri}, which has its own UI",
            "open that address, or unset MLFLOW_TRACKING_URI",
        )
    command = [sys.executable, "-m", "mlflow", "ui"]
    command += ["--backend-store-uri", where.uri]
    command += ["--default-artifact-root", (where.folder / "artifacts").as_uri()]
    command += ["--no-serve-artifacts", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    return command, os.environ | LEAN
