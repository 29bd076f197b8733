"""Where the MLflow store lies, how it is opened by many processes at once, and its UI."""

import logging
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from undertow.config import Params
from undertow.errors import ConfigError, UndertowError
from undertow.study.home import any_home
from undertow.study.layout import Layout, Study
from undertow.texts.addresses import public, without_credentials
from undertow.tracking.moved import adopt
from undertow.tracking.patience import Patience, TimedClient
from undertow.tracking.reach import impatient, missing_driver, unreachable
from undertow.tracking.refusals import refusal

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"
ASIDE = (
    "check MLFLOW_TRACKING_URI, or move mlruns/mlflow.db aside and run python cli.py track sync, "
    "which rebuilds it"
)
LATER = "python cli.py track sync, once it answers, writes what is missing"
SUPPORTED = re.compile(r"(sqlite:///|https?://|(postgresql|mysql|mssql)[+a-z0-9]*://|databricks)")
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A client of a server prints addresses of each run on stdout, which is ours.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
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

    @property
    def shown(self) -> str:
        """The URI without user name and password."""
        return without_credentials(self.uri)

    @property
    def remedy(self) -> str:
        return LATER if self.folder is None else ASIDE

    @property
    def artifacts(self) -> str | None:
        """Where artifacts of a local store lie, as a URI; a server has its own place."""
        return None if self.folder is None else (self.folder / "artifacts").as_uri()


class Store(NamedTuple):
    location: Location
    client: "MlflowClient"
    experiment_id: str


def usable(params: Params) -> bool:
    """Whether runs can be written; says so on stderr where they were asked for and cannot."""
    if not params.tracking.enabled:
        return False
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        with any_home():
            import mlflow  # noqa: F401
    except ImportError:
        warn(
            "mlflow is not installed, so no runs are written; pip install mlflow, "
            "or set tracking.enabled to false in params.yaml"
        )
        return False
    return True


@cache
def warn(text: str) -> None:
    """One line on stderr, once a command however many cells it runs."""
    print(f"tracking: {public(text)}", file=sys.stderr)


def location(layout: Layout) -> Location:
    """MLFLOW_TRACKING_URI, else mlruns/mlflow.db below DVC_ROOT, else below the repository root."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        root = Path(os.environ.get("DVC_ROOT") or layout.root)
        uri = f"{SQLITE}{root.resolve() / 'mlruns' / 'mlflow.db'}"
    if not SUPPORTED.match(uri):
        raise ConfigError(
            f"MLFLOW_TRACKING_URI is {without_credentials(uri)!r}, which is not a database or a "
            "server",
            "unset it to use mlruns/mlflow.db, or set it to sqlite:////absolute/path/mlflow.db "
            "or https://server",
        )
    if not uri.startswith(SQLITE):
        return Location(uri, None)
    database = Path(uri.removeprefix(SQLITE)).resolve()
    return Location(f"{SQLITE}{database}", database.parent)


def open_store(study: Study, *, patient: bool = False) -> Store:
    """Open the store and the experiment, creating both where they are missing.

    Raises TrackingError, within seconds, where the store cannot be used. A store that could not
    be opened once is not tried again by this process. Calls of the store's client share the
    patience that a process has for a server, unless `patient`: then it may take its time.
    """
    params, layout = study
    where = location(layout)
    if where in _REFUSED:
        raise _REFUSED[where]
    try:
        _check(where)
        with explained(where), store_locked(where, "open"), impatient():
            if where.folder is not None:
                adopt(Path(where.uri.removeprefix(SQLITE)))
            client = _client(where)
            if where.folder is None and not patient:
                client = cast("MlflowClient", TimedClient(client, _patience(where)))
            return Store(where, client, _experiment(client, where, params.tracking.experiment))
    except TrackingError as error:
        if where.folder is None:
            _REFUSED[where] = error
        raise


@cache
def _patience(where: Location) -> Patience:
    return Patience()


_REFUSED: dict[Location, TrackingError] = {}
"""Servers that did not answer: each cell of a long command would wait for them again."""


def _check(where: Location) -> None:
    if (install := missing_driver(where.uri)) is not None:
        raise TrackingError(
            f"the MLflow store {where.shown} needs a driver that is not installed", install
        )
    if (reason := unreachable(where.uri)) is not None:
        raise TrackingError(f"the MLflow store {where.shown} does not answer: {reason}", LATER)


@contextmanager
def explained(where: Location) -> Iterator[None]:
    """Turn whatever MLflow, its database or the disk raises into a TrackingError."""
    try:
        yield
    except _expected() as error:
        if where.folder is None and (known := refusal(str(error))) is not None:
            raise TrackingError(
                f"the MLflow store {where.shown} refuses: {known.reason}", known.remedy
            ) from error
        reason = without_credentials(str(error).split("\n", 1)[0])
        if where.folder is None and "timed out" in reason:
            reason = "it takes connections and does not answer in time"
        raise TrackingError(
            f"the MLflow store {where.shown} cannot be used: {reason}", where.remedy
        ) from error


def _expected() -> tuple[type[Exception], ...]:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    usual = (MlflowException, SQLAlchemyError, sqlite3.Error, OSError)
    if "botocore" not in sys.modules:
        return usual
    # What a client raises whose server leaves artifacts to it.
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    return (*usual, Boto3Error, BotoCoreError, ClientError)


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
        try:
            return str(client.create_experiment(name, artifact_location=where.artifacts))
        except MlflowException:
            # On a server somebody else may have created it since.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def own_ui(layout: Layout) -> str | None:
    """The address of a server's own UI, without user and password; None for a local store."""
    where = location(layout)
    return where.shown if where.uri.startswith("http") else None


def ui_command(layout: Layout, port: int) -> tuple[list[str], dict[str, str]]:
    """The command that serves the store on 127.0.0.1, and the whole environment to run it in.

    Raises ConfigError where MLFLOW_TRACKING_URI names a server, which serves its own UI.
    """
    where = location(layout)
    if where.folder is None:
        raise ConfigError(
            f"the runs are on {where.shown}, which has its own UI",
            "ask for the address of the MLflow server on it, or unset MLFLOW_TRACKING_URI",
        )
    command = [sys.executable, "-m", "mlflow", "ui"]
    command += ["--backend-store-uri", where.uri]
    command += ["--default-artifact-root", str(where.artifacts)]
    command += ["--no-serve-artifacts", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    return command, os.environ | LEAN
