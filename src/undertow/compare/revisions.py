"""A study as one revision holds it: parameters, lock and the cells whose results can be had."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from undertow.config import PLAIN, Cell, Params, check, read_raw
from undertow.errors import ConfigError
from undertow.lineage.git import Repository
from undertow.lineage.lock import INSIDE, PARAMS_FILE, Lock, outdated, parse_lock
from undertow.lineage.objects import Cache, MissingObjectError
from undertow.study.records import CellResult
from undertow.texts.yaml import read_yaml

WORKING_TREE = "the working tree"


@dataclass(frozen=True)
class Missing:
    """A cell of a revision's grid whose result cannot be had."""

    reason: str
    remedy: str


@dataclass(frozen=True)
class Snapshot:
    """What is known of a study at one revision.

    Every plain cell is in `results` or in `missing`, every other one in `others` or `no_others`.
    """

    label: str
    commit: str | None  # None for the working tree
    params: Params
    lock: Lock
    results: Mapping[Cell, CellResult]
    missing: Mapping[Cell, Missing]
    others: Mapping[Cell, CellResult]  # of all other recipes and later rounds
    no_others: Mapping[Cell, Missing]
    trait_hash: str | None  # MD5 of the trait's folder, as its stages read it
    prompts: Mapping[str, str] | None  # evaluation prompt id -> text; None where not to be had
    has_cross: bool  # from before there were recipes
    method: int | None  # that its summary.json was computed by; None where there is none

    def result(self, cell: Cell) -> CellResult | None:
        return self.results.get(cell) or self.others.get(cell)


def open_revision(root: Path, revision: str | None) -> Snapshot:
    """The study at a commit, or in the working tree where revision is None.

    Reads git's objects and DVC's cache; writes nothing and runs no stage.
    Raises DataError for an unknown revision and ConfigError for a params.yaml that this version
    of Undertow cannot read.
    """
    source = _WorkingTree(root) if revision is None else _Commit(root, revision)
    text = source.read(PARAMS_FILE)
    if text is None:
        raise ConfigError(
            f"{source.label} has no {PARAMS_FILE} in {root}",
            "name a revision that has one: git log --oneline -- params.yaml",
        )
    raw = read_raw(text, source.label)
    params = _params(raw, source.label)
    lock = parse_lock(source.read("dvc.lock"), f"dvc.lock at {source.label}")
    cache = Cache(root)
    results: dict[Cell, CellResult] = {}
    missing: dict[Cell, Missing] = {}
    others: dict[Cell, CellResult] = {}
    no_others: dict[Cell, Missing] = {}
    for cell in params.all_cells():
        is_plain = cell.student == PLAIN
        found = _cell(source, cache, lock, raw, cell)
        if isinstance(found, Missing):
            (missing if is_plain else no_others)[cell] = found
        else:
            (results if is_plain else others)[cell] = found
    trait = INSIDE.trait(params.trait).as_posix()
    hashes = (stage.deps[trait] for stage in lock.stages if trait in stage.deps)
    return Snapshot(
        label=source.label,
        commit=source.commit,
        params=params,
        lock=lock,
        results=results,
        missing=missing,
        others=others,
        no_others=no_others,
        trait_hash=next(hashes, None),
        prompts=_prompts(source, cache, params.trait),
        has_cross=bool(raw.get("cross", {}).get("pairs")),
        method=_method(source),
    )


class _Commit:
    def __init__(self, root: Path, revision: str) -> None:
        self._repository = Repository(root)
        self.commit: str | None = self._repository.commit(revision)
        short = self.commit[:10] if self.commit else ""
        self.label = short if short.startswith(revision[:10]) else f"{revision} ({short})"
        self.fetch = "dvc fetch --all-commits"

    def read(self, path: str) -> bytes | None:
        return self._repository.show(self.commit or "", path)


class _WorkingTree:
    commit: str | None = None
    label = WORKING_TREE
    fetch = "dvc fetch"

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str) -> bytes | None:
        file = self._root / path
        return file.read_bytes() if file.is_file() else None


def _params(raw: Any, label: str) -> Params:
    """Its cross section, from before there were recipes, says nothing of the plain students."""
    if isinstance(raw, dict):
        raw = {key: value for key, value in raw.items() if key != "cross"}
    try:
        return check(raw, f"{PARAMS_FILE} at {label}")
    except ConfigError as error:
        problem = error.message
    raise ConfigError(
        problem,
        "this version of Undertow cannot read that revision's parameters; compare with a later "
        "revision, or run compare in a checkout of the version that wrote them",
    )


def _method(source: _Commit | _WorkingTree) -> int | None:
    """Files from before methods were numbered are of the first one."""
    data = source.read(INSIDE.summary.as_posix())
    try:
        found = json.loads(data or b"null")
        return int(found.get("method", 1)) if isinstance(found, dict) else None
    except (ValueError, TypeError):
        return None  # a damaged file says nothing; the cells do not need it


def _cell(
    source: _Commit | _WorkingTree, cache: Cache, lock: Lock, raw: Mapping[str, Any], cell: Cell
) -> CellResult | Missing:
    folder = lock.folder(cell, "judge")
    repro = "dvc repro" if source.commit is None else "check the revision out, then: dvc repro"
    reason = outdated(lock, cell, raw)
    if reason:
        return Missing(
            f"the result at {source.label} is out of date: {reason}",
            f"{repro}; or dvc commit, where the stages were run by hand",
        )
    data = source.read(f"{folder}/cell.json")
    hash = lock.hash_of(folder)
    if data is None:
        if hash is None:
            return Missing(f"dvc.lock at {source.label} names no result for this cell", repro)
        try:
            data = cache.file_in(hash, "cell.json")
        except MissingObjectError as error:
            return Missing(
                f"{folder} at {source.label}: {error}", f"{source.fetch} {folder}; or {repro}"
            )
    try:
        return CellResult.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        return Missing(
            f"cell.json at {source.label} was written by another version of Undertow "
            f"({key}: {first['msg']})",
            "compare in a checkout of that version",
        )


def _prompts(source: _Commit | _WorkingTree, cache: Cache, trait: str) -> dict[str, str] | None:
    """The evaluation prompts' texts, as a file in the tree or behind data/traits.dvc."""
    folder = INSIDE.trait(trait)
    data = source.read((folder / "evaluation.jsonl").as_posix())
    try:
        if data is None:
            text = source.read(f"{folder.parent.as_posix()}.dvc") or b""
            pointer = read_yaml(text.decode())
            data = cache.file_in(str(pointer["outs"][0]["md5"]), f"{trait}/evaluation.jsonl")
        rows = [json.loads(line) for line in data.split(b"\n") if line.strip()]
        return {str(row["id"]): str(row["prompt"]) for row in rows}
    except (MissingObjectError, ValueError, KeyError, IndexError, TypeError):
        # Without texts the prompts count as different, which only widens intervals.
        return None
