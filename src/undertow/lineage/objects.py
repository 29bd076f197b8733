"""Files that the DVC cache holds, read without DVC.

The layout is part of DVC's documentation: files/md5/ab/cdef... holds the bytes whose MD5
is abcdef..., and a folder is a JSON list of names and hashes under a hash that ends in .dir.
"""

import configparser
import hashlib
import json
import os
import re
from pathlib import Path

from undertow.errors import DataError

HASHED_BYTES = 64 << 20  # a fifth of a second
HASH = re.compile(r"[0-9a-f]{32}(\.dir)?")


class MissingObjectError(Exception):
    """Bytes that a lock file names are not in the cache; the text says which."""


def dvc_hash(path: Path) -> str:
    """The MD5 under which DVC tracks a file, or a folder of files."""
    if path.is_file():
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    rows = [{"md5": dvc_hash(file), "relpath": file.relative_to(path).as_posix()} for file in files]
    return hashlib.md5(json.dumps(rows).encode(), usedforsecurity=False).hexdigest() + ".dir"


def differs(path: Path, size: int | None, hash: str | None) -> bool:
    """Whether a file or folder is other than DVC tracked it; the size alone where it is large."""
    files = path.rglob("*") if path.is_dir() else (path,)
    there = sum(file.stat().st_size for file in files if file.is_file())
    if size is not None and there != size:
        return True
    return hash is not None and there < HASHED_BYTES and dvc_hash(path) != hash


class Cache:
    """The local DVC cache."""

    def __init__(self, root: Path) -> None:
        self.folder = _cache_folder(root)
        self._listings: dict[str, dict[str, str]] = {}

    def read(self, hash: str) -> bytes:
        """The bytes behind an MD5; MissingObjectError where they are absent or damaged."""
        if not HASH.fullmatch(hash):
            raise MissingObjectError(f"{hash!r} is no MD5 hash of a DVC cache")
        path = self.folder / "files" / "md5" / hash[:2] / hash[2:]
        try:
            data = path.read_bytes()
        except OSError:
            raise MissingObjectError(f"object {hash} is not in the cache {self.folder}") from None
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != hash.removesuffix(".dir"):
            raise MissingObjectError(f"object {hash} in the cache {self.folder} is damaged")
        return data

    def listing(self, hash: str) -> dict[str, str]:
        """Relative path -> MD5 of the files of a cached folder."""
        if hash not in self._listings:
            try:
                entries = json.loads(self.read(hash))
                listing = {str(entry["relpath"]): str(entry["md5"]) for entry in entries}
            except (ValueError, KeyError, TypeError):
                raise MissingObjectError(
                    f"object {hash} in the cache {self.folder} is no folder listing"
                ) from None
            self._listings[hash] = listing
        return self._listings[hash]

    def file_in(self, hash: str, name: str) -> bytes:
        """A file of a cached folder."""
        listing = self.listing(hash)
        if name not in listing:
            raise MissingObjectError(f"the cached folder {hash} holds no {name}")
        return self.read(listing[name])


def _cache_folder(root: Path) -> Path:
    """cache.dir of DVC's configuration files, the later over the earlier, else .dvc/cache."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    found = root / ".dvc" / "cache"
    for path in (home / "dvc" / "config", root / ".dvc" / "config", root / ".dvc" / "config.local"):
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(path, encoding="utf-8")
        except configparser.Error as error:
            raise DataError(
                f"{path} cannot be read: {error}", "mend it: dvc config --list"
            ) from None
        if parser.has_option("cache", "dir"):
            found = (path.parent / Path(parser["cache"]["dir"]).expanduser()).resolve()
    return found
