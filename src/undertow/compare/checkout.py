"""A study as a revision left it, in a folder of its own, with what the DVC cache has of it.

For commands that read a study's files: they need not know that it is not the one that lies here.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from undertow.compare.revisions import open_revision
from undertow.errors import DataError, UndertowError
from undertow.lineage.git import Repository
from undertow.lineage.lock import Lock
from undertow.lineage.objects import HASH, Cache, MissingObjectError
from undertow.study.layout import Study

NO_HOOKS = ("-c", "core.hooksPath=/dev/null")  # DVC's would check out every file it tracks


@contextmanager
def study_at(root: Path, revision: str | None) -> Iterator[Study]:
    """The study at a commit, branch, tag or DVC experiment; the working tree where it is None.

    Runs no stage and changes nothing in the study's folder. Raises DataError for an unknown
    revision, and where a result of its grid can be had neither from git nor from DVC's cache.
    """
    if revision is None:
        yield Study.open(root)
        return
    snapshot = open_revision(root, revision)
    for missing in snapshot.missing.values():
        raise DataError(missing.reason, missing.remedy)
    repository, commit = Repository(root), snapshot.commit or ""
    with tempfile.TemporaryDirectory(prefix="undertow-") as folder:
        tree = Path(folder) / "tree"
        added = repository.ask(
            *NO_HOOKS, "worktree", "add", "--quiet", "--detach", str(tree), commit
        )
        if added.reason:
            raise DataError(f"{snapshot.label} cannot be laid out: {added.reason}", added.remedy)
        try:
            inner = tree / repository.ask("rev-parse", "--show-prefix").text
            _lay_out(Cache(root), snapshot.lock, inner)
            yield Study.open(inner)
        except UndertowError as error:
            # Of the folder nothing is left by the time that the message is read.
            shown = error.message.replace(f"{tree}/", "")
            raise DataError(
                f"{snapshot.label}: {shown}",
                "dvc fetch --all-commits; or check the revision out, then: dvc repro",
            ) from None
        finally:
            repository.ask("worktree", "remove", "--force", str(tree))


def _lay_out(cache: Cache, lock: Lock, tree: Path) -> None:
    """Links to the cached outputs that git does not hold; what the cache lacks stays absent."""
    for stage in lock.stages:
        for out, hash in stage.outs.items():
            try:
                names = cache.listing(hash) if hash.endswith(".dir") else {"": hash}
            except MissingObjectError:
                continue
            for name, inner in names.items():
                source, target = _cached(cache, inner), tree / out / name
                if not target.exists() and source is not None and source.is_file():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.symlink_to(source)


def _cached(cache: Cache, hash: str) -> Path | None:
    if not HASH.fullmatch(hash):
        return None
    return cache.folder / "files" / "md5" / hash[:2] / hash[2:]
