"""The one place that runs git: what it says of a study's own repository, or why it says nothing."""

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from undertow.errors import DataError

# Where git looks in place of the folder that it is asked about. A hook has them set, to the
# repository that it belongs to; `git rev-parse --local-env-vars` names them.
ELSEWHERE = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_GRAFT_FILE",
    "GIT_SHALLOW_FILE",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
)


class Printed(NamedTuple):
    """What git printed; where it did not do as asked, `reason` says why and `remedy` what to do."""

    output: bytes
    reason: str | None = None
    remedy: str = ""

    @property
    def text(self) -> str:
        return self.output.decode(errors="replace").strip()


class Head(NamedTuple):
    """The checked-out commit and whether tracked files differ from it; None where unknown."""

    commit: str | None
    dirty: bool | None
    reason: str | None = None


class Repository(NamedTuple):
    """The git repository of a study; all paths are relative to the study's root."""

    root: Path

    def ask(self, *arguments: str) -> Printed:
        """Run a git command in the study's root, whatever repository the environment names."""
        try:
            done = subprocess.run(
                ["git", "-C", str(self.root), *arguments],
                capture_output=True,
                check=False,
                env=own_environment(),
            )
        except FileNotFoundError:
            return Printed(b"", "git is not on the PATH", "install git")
        if done.returncode == 0:
            return Printed(done.stdout)
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        trust = next((line.strip() for line in lines if "safe.directory" in line), None)
        remedy = f"if you trust its owner: {trust}" if trust else "work in a git clone"
        return Printed(done.stdout, lines[0].removeprefix("fatal: "), remedy)

    def head(self) -> Head:
        """The commit that the study is at."""
        inside = self.ask("rev-parse", "--git-dir")
        if inside.reason:
            return Head(None, None, inside.reason)
        commit = self.ask("rev-parse", "--verify", "--quiet", "HEAD")
        if commit.reason:
            return Head(None, None, "nothing is committed yet")
        changes = self.ask("status", "--porcelain", "--untracked-files=no")
        return Head(commit.text, None if changes.reason else bool(changes.output), changes.reason)

    def commit(self, revision: str) -> str:
        """The full hash of a revision; DataError where git does not know it."""
        inside = self.ask("rev-parse", "--git-dir")
        if inside.reason:
            raise DataError(
                f"revisions are read through git, and of {self.root} it says: {inside.reason}",
                inside.remedy,
            )
        found = self.ask("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
        return found.text if not found.reason else self._experiment(revision, found.reason)

    def _experiment(self, name: str, reason: str) -> str:
        """The commit of a DVC experiment; DataError where there is none of this name, or several.

        DVC keeps them under refs/exps/<two digits>/<the rest of the commit begun from>/<name>,
        where git does not look by itself.
        """
        listed = self.ask("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps")
        pairs = [line.split(" ", 1) for line in listed.text.splitlines()]
        names = {ref: hash for hash, ref in pairs if ref.count("/") == 4}
        commits = [hash for ref, hash in names.items() if ref.rsplit("/", 1)[1] == name]
        if len(commits) == 1:
            return commits[0]
        if commits:
            raise DataError(
                f"{len(commits)} experiments are called {name!r}, each begun from another commit",
                f"name one by its commit: {', '.join(hash[:10] for hash in commits)}",
            )
        if self.ask("rev-parse", "--verify", "--quiet", "HEAD").reason:
            raise DataError(
                f"there is no revision {name!r}: nothing is committed in {self.root} yet",
                "commit the study first: git add --all, then git commit",
            )
        shallow = self.ask("rev-parse", "--is-shallow-repository").text == "true"
        raise DataError(
            f"git does not know the revision {name!r} in {self.root}: {reason}",
            "name a commit, branch or tag (git log --oneline) or an experiment (dvc exp list)"
            + ("; this clone is shallow, so first: git fetch --unshallow" if shallow else ""),
        )

    def show(self, commit: str, path: str) -> bytes | None:
        """A file as it was at a commit; None where the commit does not hold it."""
        found = self.ask("show", f"{commit}:./{path}")
        return None if found.reason else found.output


def own_environment() -> dict[str, str]:
    """The environment without what points git to another repository than the folder's own."""
    return {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
