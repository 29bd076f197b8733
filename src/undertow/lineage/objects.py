"""Files of a revision that git or the DVC cache holds, read without either program's workspace.

The cache's layout is part of DVC's documentation: files/md5/ab/cdef... holds the bytes whose MD5
is abcdef..., and a folder is a JSON list of names and hashes under a hash that ends in .dir.
"""

import configparser
import hashlib
import json
import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from undertow.errors import DataError

HASH = re.compile(r"[0-9a-f]{32}(\.dir)?")


class MissingObjectError(Exception):
    """Bytes that a lock file names are not in the cache; the text says which."""


class Repository(NamedTuple):
    """The git repository of a study; all paths are relative to the study's root."""

    root: Path

    def commit(self, revision: str) -> str:
        """The full hash of a revision; DataError where git does not know it."""
        done = self._git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
        if done.returncode:
            raise DataError(
                f"git does not know the revision {revision!r} in {self.root}: "
                f"{_last_line(done.stderr)}",
                "name a commit, branch or tag: git log --oneline; in a shallow clone first: "
                "git fetch --unshallow",
            )
        return done.stdout.decode().strip()

    def show(self, commit: str, path: str) -> bytes | None:
        """A file as it was at a commit; None where the commit does not hold it."""
        done = self._git("show", f"{commit}:./{path}")
        return done.stdout if done.returncode == 0 else None

    def _git(self, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        try:
            return subprocess.run(
                ["git", "-C", str(self.root), *arguments], capture_output=True, check=False
            )
        except FileNotFoundError:
            raise DataError(
                "git is not on the PATH, and revisions are read through it", "install git"
            ) from None


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no message"


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
