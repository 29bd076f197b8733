"""Whether a tracking store can be reached, found out in seconds.

MLflow tries for minutes to reach a server that is gone, and a stage would wait as long; here the
host is asked once, and MLflow is told how long to wait.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from undertow.texts.addresses import without_credentials

SECONDS = 3.0
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
DRIVERS = {
    "psycopg2": "psycopg2-binary",
    "psycopg": "'psycopg[binary]'",
    "MySQLdb": "mysqlclient",
    "pymysql": "pymysql",
    "pyodbc": "pyodbc",
}
# What the user has set stays. A request that hangs costs twice the first; the first request of a
# process, which finds a server that is gone, is more impatient still.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "PGCONNECT_TIMEOUT": "5",
}
OURS = [name for name in PATIENCE if name not in os.environ]
FIRST = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "4", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}


@contextmanager
def impatient() -> Iterator[None]:
    """Give up soon in the block, and not much later afterwards; what the user has set stays."""
    os.environ.update({name: PATIENCE[name] for name in OURS})
    os.environ.update({name: value for name, value in FIRST.items() if name in OURS})
    try:
        yield
    finally:
        os.environ.update({name: PATIENCE[name] for name in OURS})


def missing_driver(uri: str) -> str | None:
    """What to install for a database whose driver is absent; None where nothing is missing."""
    if uri.startswith(("http", "databricks", "sqlite")):
        return None
    from sqlalchemy.engine import make_url

    try:
        make_url(uri).get_dialect().import_dbapi()
    except ModuleNotFoundError as error:
        name = error.name or "its driver"
        return f"python -m pip install {DRIVERS.get(name, name)}"
    return None


@cache
def unreachable(uri: str) -> str | None:
    """Why no connection to the host of a store can be made, asked once; None where it can."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    if uri.startswith(("databricks", "sqlite")):
        return None
    try:
        url = make_url(uri)
    except (ArgumentError, ValueError):
        return "it is no address"
    port = url.port or PORTS.get(url.get_backend_name())
    if not url.host or port is None:
        return None
    try:
        socket.create_connection((url.host, port), SECONDS).close()
    except OSError as error:
        reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        return f"{url.host}:{port}: {without_credentials(reason)}"
    return None
