"""`results` and `publish` read a study by whatever names it, and change nothing where it lies."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from compare.locked import LockedStudy, git
from factories import make_params
from repository import ROOT

pytestmark = pytest.mark.whole

ONE, TWO = ("trait_0", "trait_1"), ("trait_0", "trait_0.5")


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> LockedStudy:
    """Tag first, branch side and an experiment named tried have strength 1; the tree has 0.5."""
    study = LockedStudy(tmp_path_factory.mktemp("revisions") / "study")
    study.commit("first", make_params(models=("smollm2-135m",), arms=ONE))
    commit = git(study.root, "rev-parse", "HEAD").strip()
    git(study.root, "branch", "side")
    git(study.root, "update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/tried", commit)
    study.commit("second", make_params(models=("smollm2-135m",), arms=TWO))
    return study


def cli(study: LockedStudy, *arguments: str, expect: int = 0) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "cli.py"), *arguments]
    done = subprocess.run(command, cwd=study.root, capture_output=True, text=True)
    assert done.returncode == expect, done.stderr
    return done


def state(study: LockedStudy) -> tuple[str, str]:
    return git(study.root, "status", "--porcelain"), git(study.root, "worktree", "list")


@pytest.mark.parametrize("named", ["first", "side", "tried", "HEAD~1", "hash"])
def test_results_are_those_of_the_revision_that_is_named(locked: LockedStudy, named: str) -> None:
    hash = git(locked.root, "rev-parse", "first").strip()
    before = state(locked)
    name = hash[:10] if named == "hash" else named
    rows = json.loads(cli(locked, "results", name, "--format", "json").stdout)
    assert {row["arm"] for row in rows} == set(ONE)
    assert state(locked) == before


def test_a_published_revision_names_its_commit_and_no_temporary_folder(
    locked: LockedStudy, tmp_path: Path
) -> None:
    before = state(locked)
    cli(locked, "publish", str(tmp_path / "shown"), "first")
    metrics = json.loads((tmp_path / "shown" / "metrics.json").read_text())
    assert "trait_1" in metrics["smollm2-135m"] and "trait_0.5" not in metrics["smollm2-135m"]
    page = (tmp_path / "shown" / "report.html").read_text()
    assert git(locked.root, "rev-parse", "first").strip()[:10] in page
    assert "/tmp/undertow-" not in page
    assert state(locked) == before


def test_a_revision_never_replaces_the_study_s_own_files(locked: LockedStudy) -> None:
    refused = cli(locked, "publish", "results/shown", "first", expect=1)
    assert "study's own files" in refused.stderr


def test_an_unknown_name_and_results_that_are_gone_say_what_to_type(locked: LockedStudy) -> None:
    unknown = cli(locked, "results", "nowhere", expect=1).stderr
    assert "does not know the revision" in unknown and "dvc exp list" in unknown
    kept = locked.cache.rename(locked.cache.with_name("kept"))
    try:
        gone = cli(locked, "results", "first", expect=1).stderr
    finally:
        shutil.move(kept, locked.cache)
    assert "dvc fetch --all-commits" in gone
