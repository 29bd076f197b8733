"""What git says of a study: always of the study's own repository, or why it says nothing."""

import subprocess
from pathlib import Path

import pytest

from undertow.doctor.checks import checks
from undertow.errors import DataError
from undertow.lineage.git import Repository
from undertow.tracking.content import git_tags

WHO = ["-c", "user.name=n", "-c", "user.email=e@example.org"]


def repository(root: Path, text: str) -> str:
    """A repository of one commit that holds one file; its commit."""
    root.mkdir()
    (root / "file.txt").write_text(text)
    for arguments in (["init", "-q"], ["add", "--all"], ["commit", "-qm", text]):
        subprocess.run(["git", *WHO, *arguments], cwd=root, check=True, capture_output=True)
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True)
    return found.stdout.strip()


@pytest.fixture
def hooked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study with a changed file, looked at from within another repository's git hook."""
    repository(tmp_path / "study", "mine")
    (tmp_path / "study" / "file.txt").write_text("changed")
    other = tmp_path / "other"
    repository(other, "theirs")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    return tmp_path / "study"


def own_commit(root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    with monkeypatch.context() as plain:
        for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
            plain.delenv(name)
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True
        )
    return done.stdout.strip()


def test_a_hook_of_another_repository_does_not_tag_runs_with_its_commit(hooked, monkeypatch):
    tags = git_tags(hooked)
    assert tags["mlflow.source.git.commit"] == own_commit(hooked, monkeypatch)
    assert tags["git.dirty"] == "true"


def test_revisions_and_their_files_are_the_studys_own_within_a_hook(hooked, monkeypatch):
    found = Repository(hooked)
    commit = found.commit("HEAD")
    assert commit == own_commit(hooked, monkeypatch)
    assert found.show(commit, "file.txt") == b"mine"
    assert found.show(commit, "absent.txt") is None


def test_doctor_looks_at_the_studys_own_repository_within_a_hook(hooked):
    [check] = [check for check in checks(hooked, None) if check.name == "git"]
    assert "1 uncommitted change" in check.found


def test_what_git_refuses_is_passed_on_with_its_reason(tmp_path, monkeypatch):
    """Another user's repository: git says so, and which command trusts it."""
    root = tmp_path / "study"
    repository(root, "mine")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    [check] = [check for check in checks(root, None) if check.name == "git"]
    assert check.state == "warn"
    assert "dubious ownership" in check.found
    assert check.remedy is not None
    assert f"git config --global --add safe.directory {root}" in check.remedy
    assert "dubious ownership" in git_tags(root)["git.unknown"]
    with pytest.raises(DataError, match=r"dubious ownership") as error:
        Repository(root).commit("HEAD")
    assert "safe.directory" in error.value.remedy


def test_no_repository_no_commit_and_no_git_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "not a git repository" in git_tags(empty)["git.unknown"]
    subprocess.run(["git", "init", "-q"], cwd=empty, check=True)
    assert git_tags(empty)["git.unknown"] == "nothing is committed yet"
    monkeypatch.setenv("PATH", "")
    assert "not on the PATH" in git_tags(empty)["git.unknown"]
