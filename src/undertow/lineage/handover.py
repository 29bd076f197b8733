"""Handing finished stages to DVC, so that `dvc repro` finds them up to date.

A stage is recorded only while its manifest's inputs are those on disk; both before and after
DVC has looked at them, because DVC records what it finds then, not what the stage has read.
"""

import json
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from undertow.errors import UndertowError
from undertow.lineage.git import own_environment
from undertow.lineage.stages import Node, differences, inputs_of, outputs_of, recorded
from undertow.study.files import write_text
from undertow.study.layout import Study
from undertow.study.sources import locked
from undertow.texts.yaml import read_yaml, write_yaml


class Recorded(NamedTuple):
    """Names of the stages that DVC now knows, and of those it may not: what changed under each."""

    names: list[str]
    stale: dict[str, list[str]]


def why_not(root: Path) -> str | None:
    """Why nothing can be handed to DVC here, or None."""
    if shutil.which("dvc") is None:
        return "there is no dvc on the PATH"
    if not any((folder / ".dvc").is_dir() for folder in (root, *root.parents)):
        return f"{root} is not in a DVC repository"
    return None


def changed(root: Path, nodes: Sequence[Node]) -> set[str]:
    """Names of those stages that DVC would run or whose record it misses."""
    text = _dvc(root, "status", "--json", *(node.name for node in nodes))
    return set(json.loads(text)) & {node.name for node in nodes}


def is_kept(path: Path) -> bool:
    """Whether DVC keeps this file or folder by itself, as no stage's output."""
    return path.with_name(f"{path.name}.dvc").exists()


def keep(root: Path, path: Path) -> None:
    """Have DVC keep this file or folder as it is now."""
    with locked(root / ".undertow" / "record", "records its cells"):
        _dvc(root, "add", "--quiet", path.relative_to(root).as_posix())


def record(root: Path, nodes: Sequence[Node]) -> Recorded:
    """Commit to DVC those of the stages whose inputs and outputs are still what they were.

    Raises UndertowError where dvc fails or params.yaml cannot be read.
    """
    with locked(root / ".undertow" / "record", "records its cells"):
        stale = _stale(root, nodes)
        fresh = [node for node in nodes if node.name not in stale]
        if fresh:
            names = [node.name for node in fresh]
            # Another thread may be reading a file that DVC would put back from its cache.
            _dvc(root, "commit", "--force", "--quiet", "--no-relink", *names)
            late = _stale(root, fresh)
            if late:
                _withdraw(root / "dvc.lock", late)
            stale |= late
        return Recorded([node.name for node in fresh if node.name not in stale], stale)


def _stale(root: Path, nodes: Sequence[Node]) -> dict[str, list[str]]:
    """What has changed under each stage since it began, by name of the stage."""
    study = Study.open(root)  # params.yaml as it is now
    found = {}
    for node in nodes:
        manifest = recorded(root, node)
        changes = (
            [node.manifest]
            if manifest is None
            else differences(manifest.inputs, inputs_of(study, node))
            + differences(manifest.outputs, outputs_of(root, node))
        )
        if changes:
            found[node.name] = changes
    return found


def _withdraw(lock: Path, names: Iterable[str]) -> None:
    """Take stages out of dvc.lock, so that DVC regards them as never run."""
    content = read_yaml(lock.read_text(encoding="utf-8"))
    for name in names:
        content["stages"].pop(name, None)
    write_text(lock, write_yaml(content))


def _dvc(root: Path, *arguments: str) -> str:
    command = ["dvc", "--wait-for-lock", *arguments]
    done = subprocess.run(
        command, cwd=root, env=own_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise UndertowError(
            f"dvc {arguments[0]} failed: {lines[0]}",
            f"solve that, then give the same command again; to see it: dvc {' '.join(arguments)}",
        )
    return done.stdout
