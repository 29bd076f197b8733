"""Nothing that a study writes or prints holds a secret that was planted around it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from factories import make_params, make_study
from repository import ROOT
from undertow.study.layout import Layout

PLANTED = "planted-secret"
ENVIRONMENT = {
    "OPENAI_API_KEY": f"sk-{PLANTED}-0",
    "HF_TOKEN": f"hf_{PLANTED}_1",
    "OPENAI_BASE_URL": f"http://me:{PLANTED}-2@127.0.0.1:9/v1",
    "HTTPS_PROXY": f"http://me:{PLANTED}-3@127.0.0.1:9",
}
TRACKING = f"http://me:{PLANTED}-4@127.0.0.1:9/?token={PLANTED}-5"


def run(root: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return subprocess.run(
        [sys.executable, "cli.py", *arguments],
        cwd=root,
        env={**kept, **ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.whole
def test_no_planted_secret_is_written_or_printed(tmp_path: Path):
    settings = {"judge": {"kind": "openai", "model": "m"}}
    params = make_params(
        models=["tiny"],
        arms=["trait_0", "trait_1"],
        seeds=[0],
        judging=settings,
        prompting={"system": f"You know {ENVIRONMENT['OPENAI_API_KEY']}."},
    )
    root = tmp_path / "study"
    layout = make_study(root, params).layout
    trait = Layout(ROOT).trait("pessimism") / "trait.yaml"
    shutil.copy(trait, layout.trait("pessimism") / "trait.yaml")
    (root / "src").symlink_to(ROOT / "src")
    shutil.copy(ROOT / "cli.py", root)
    own = layout.params.read_bytes()
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for words in (["init", "-q"], ["add", "cli.py", "params.yaml"], ["commit", "-qm", "m"]):
        subprocess.run([*git, *words], cwd=root, check=True)

    said = [
        run(root, "report"),
        run(root, "track", "sync"),
        run(root, "publish", "shown"),
        run(root, "results"),
        run(root, "compare", "HEAD"),
        run(root, "compare", "HEAD", "--json"),
        run(root, "doctor"),
    ]
    assert [done.returncode for done in said[:6]] == [0] * 6, [done.stderr for done in said]
    said += [
        run(root, verb, *more, MLFLOW_TRACKING_URI=TRACKING)
        for verb, *more in (["report"], ["track", "sync"], ["ui", "--print"], ["doctor"])
    ]
    assert said[7].returncode == 0
    assert "127.0.0.1:9" in said[8].stderr  # what is not secret is shown
    for done in said:
        assert PLANTED not in done.stdout + done.stderr, done.args
    layout.params.write_bytes(b"")  # the one place where somebody has written it
    written = [
        path
        for path in root.rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and ".git" not in path.parts
        and (root / "src") not in path.parents
    ]
    assert len(written) > 30
    leaks = [path for path in written if PLANTED.encode() in path.read_bytes()]
    layout.params.write_bytes(own)
    assert leaks == []
