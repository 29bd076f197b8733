"""A synthetic study under git, with the dvc.lock and the cache that DVC would have written."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from factories import Study, make_study
from undertow.config import Cell, Params
from undertow.lineage.lock import INSIDE

SECTIONS = {
    "steer": ("trait", "prompting", "carrier", "evaluation"),
    "distill": ("trait", "prompting", "distillation", "evaluation"),
    "judge": ("trait", "judging"),
}


class LockedStudy:
    """Commits studies one after the other; results lie in the cache alone."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache = root / ".dvc" / "cache"
        root.mkdir(parents=True)
        git(root, "init", "--quiet")
        (root / ".gitignore").write_text("/results/\n/.dvc/cache/\n/elsewhere/\n")

    def commit(self, tag: str, params: Params, **changes: Any) -> Study:
        """Write params.yaml, data and dvc.lock, fill the cache, commit and tag."""
        study = make_study(self.root, params, **changes)
        self.lock(study)
        self.save(tag)
        return study

    def save(self, tag: str) -> None:
        git(self.root, "add", "--all")
        identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        git(self.root, *identity, "commit", "--quiet", "--allow-empty", "--message", tag)
        git(self.root, "tag", tag)

    def lock(self, study: Study) -> None:
        """Record what lies in results/ as made with the study's parameters, and cache it."""
        stages = {
            f"{stage}@{cell.key}": self._entry(study, cell, stage)
            for cell in study.params.all_cells()
            for stage in SECTIONS
        }
        text = yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False)
        (self.root / "dvc.lock").write_text(text)

    def forget(self) -> None:
        """Remove the results from the workspace, as in a fresh clone."""
        shutil.rmtree(self.root / "results")

    def _entry(self, study: Study, cell: Cell, stage: str) -> dict[str, Any]:
        raw = study.params.model_dump(mode="json")
        path = INSIDE.stage(cell, stage).as_posix()
        trait = f"data/traits/{study.params.trait}"
        return {
            "cmd": "python cli.py ...",
            "deps": [{"path": trait, "hash": "md5", "md5": self._put_folder(self.root / trait)}],
            "params": {"params.yaml": {name: raw[name] for name in SECTIONS[stage]}},
            "outs": [{"path": path, "hash": "md5", "md5": self._put_folder(self.root / path)}],
        }

    def _put_folder(self, folder: Path) -> str:
        entries = [
            {"md5": self._put(file.read_bytes()), "relpath": file.relative_to(folder).as_posix()}
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        ]
        return self._put(json.dumps(entries).encode(), ".dir")

    def _put(self, data: bytes, suffix: str = "") -> str:
        hash = hashlib.md5(data, usedforsecurity=False).hexdigest() + suffix
        path = self.cache / "files" / "md5" / hash[:2] / hash[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return hash


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout
