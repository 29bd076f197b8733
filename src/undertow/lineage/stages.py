"""What a stage reads and writes, by hash, exactly as dvc.yaml declares it.

dvc.yaml is the one list of a stage's parameters, dependencies and outputs; its templates are
resolved here, so what a manifest records cannot drift from what DVC tracks. Works without DVC.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from undertow.config import PLAIN, Cell, Params
from undertow.errors import ConfigError
from undertow.study.files import digest, fingerprint, write_json
from undertow.study.layout import Stage, Study
from undertow.study.records import Manifest
from undertow.texts.yaml import read_yaml

Digests = dict[str, str | None]
"""Path or parameter -> SHA-256 (hex), null where there is no such file."""

CODE = "src/"
GIVEN = "data/answers/"
TEMPLATE = re.compile(r"\$\{([^}]+)\}")
MANIFEST = "manifest.json"


def code_digest(path: Path) -> str:
    """The hash of a file of code, or of a folder's: what Python compiles beside it is no code."""
    if path.is_file():
        return digest(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    names = {file: file.relative_to(path) for file in files}
    return fingerprint(
        [(name.as_posix(), digest(file)) for file, name in names.items() if not _made(name)]
    )


@cache
def loaded_code(path: Path) -> str:
    """The hash of code at its first use: an edit during a long run is not what has run."""
    return code_digest(path)


def _made(name: Path) -> bool:
    return "__pycache__" in name.parts


class Node(NamedTuple):
    """One stage of one model or cell; `name` is what DVC calls it."""

    name: str
    command: str
    params: tuple[str, ...]
    deps: tuple[str, ...]
    outs: tuple[str, ...]

    @property
    def manifest(self) -> str:
        """Path of its manifest: one of the outputs, or a file in the folder that is its output."""
        listed = (out for out in self.outs if out.endswith(MANIFEST))
        return next(listed, f"{self.outs[0]}/{MANIFEST}")


class Work(NamedTuple):
    """A stage that has begun, and what it reads."""

    node: Node
    inputs: Digests


def model_node(study: Study, stage: str, model: str) -> Node:
    """fetch or direction of one model."""
    return _node(study, stage, {"model": model})


def cell_node(study: Study, stage: str, cell: Cell) -> Node:
    """steer, pass-on, distill or judge of one cell; all students of a teacher have one steer.

    Answers of another engine, where it takes such, are among what it reads.
    """
    item = {
        "model": cell.model,
        "arm": cell.arm.name,
        "student": cell.student,
        "seed": str(cell.seed),
    }
    grid = study.params.grid
    for index, entry in enumerate(grid.rounds):
        if entry.student == cell.student and stage != "steer":
            # DVC calls what is no plain value by its place.
            item |= {
                "round": f"round{index}",
                "round.student": entry.student,
                "round.after": entry.after,
            }
    node = _node(study, stage + _variant(study.params, stage, cell), item)
    if stage not in ("steer", "distill") or not study.layout.given(cell, stage).exists():
        return node
    # DVC has no dependency that may be absent: it hears of them when they are taken.
    given = study.layout.given(cell, stage).relative_to(study.layout.root).as_posix()
    return node._replace(deps=(*node.deps, given))


def other_answers(before: Digests, now: Digests) -> bool:
    """Whether a stage has been given other answers, or none any more."""
    return any(name.startswith(GIVEN) for name in differences(before, now))


def _variant(params: Params, stage: str, cell: Cell) -> str:
    """What dvc.yaml adds to a stage's name for a later round, an adapter's arm, or a seed beyond
    grid.seeds."""
    grid, adapter = params.grid, "" if cell.arm.adapter is None else "-adapter"
    if stage in ("distill", "judge") and params.writer(cell.student) is not None:
        return f"-round{adapter}"
    if adapter or cell.seed in grid.seeds:
        return adapter
    if cell.arm.is_control and cell.seed in grid.control_seeds:
        return "-control"
    drawn = cell.arm.name in grid.random_arms and cell.seed in grid.random_seeds
    return "-random" if drawn and cell.student == PLAIN else ""


def dvc_name(study: Study, stage: Stage, cell: Cell) -> str | None:
    """What DVC calls a stage of a cell; None in a folder without dvc.yaml, like a published one."""
    return cell_node(study, stage, cell).name if declaration(study).exists() else None


def declaration(study: Study) -> Path:
    return study.layout.root / "dvc.yaml"


def begin(study: Study, stage: str, subject: str | Cell) -> Work:
    """Take the inputs of a stage at its beginning; subject is a model's name or a cell."""
    if isinstance(subject, Cell):
        node = cell_node(study, stage, subject)
    else:
        node = model_node(study, stage, subject)
    return Work(node, inputs_of(study, node, code=loaded_code))


def finish(study: Study, work: Work, manifest: Manifest) -> None:
    """Write the manifest, after all other outputs, with the hashes of what was read and written."""
    root = study.layout.root
    hashes = {"inputs": work.inputs, "outputs": outputs_of(root, work.node)}
    write_json(root / work.node.manifest, manifest.model_copy(update=hashes))


def inputs_of(study: Study, node: Node, *, code: Callable[[Path], str] = code_digest) -> Digests:
    """Hashes of the command, of the study's parameters and of the files that a stage reads.

    code: the hash of source code, a file or a folder. Parameters are hashed with their defaults
    written out, so spelling out a default changes nothing.
    """
    found: Digests = {"cmd": fingerprint(node.command)}
    values = study.params.model_dump(mode="json")
    for key in node.params:
        found[f"params.yaml:{key}"] = fingerprint(_look_up(values, key))
    for dep in node.deps:
        path = study.layout.root / dep
        read = code if dep.startswith(CODE) else digest
        found[dep] = read(path) if path.exists() else None
    return found


def outputs_of(root: Path, node: Node) -> Digests:
    """Hashes of what a stage has written, file by file, its manifest left out."""
    files: Digests = {}
    for out in node.outs:
        path = root / out
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        for file in inside:
            name = file.relative_to(root).as_posix()
            if name != node.manifest and not file.name.startswith("."):
                files[name] = digest(file) if file.exists() else None
    return files


def recorded(root: Path, node: Node) -> Manifest | None:
    """The manifest of a stage, if it has one that can be read."""
    path = root / node.manifest
    try:
        return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # absent, or of another version: to be made again
        return None


def differences(before: Mapping[str, str | None], now: Mapping[str, str | None]) -> list[str]:
    """Names of the inputs or outputs that are not the same in both."""
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def remember_code(study: Study, node: Node) -> None:
    """Take the hashes of a stage's code now, long before the stage itself begins."""
    for dep in node.deps:
        if dep.startswith(CODE):
            loaded_code(study.layout.root / dep)


def _node(study: Study, stage: str, item: Mapping[str, str]) -> Node:
    path = declaration(study)
    if not path.exists():
        raise ConfigError(
            f"{path} does not exist, and it says what each stage reads and writes",
            "run in a checkout of the repository, where dvc.yaml lies beside params.yaml",
        )
    declared = _stages(path.read_text(encoding="utf-8"))[stage]
    values = study.params.model_dump(mode="json")

    def resolve(text: str) -> str:
        return TEMPLATE.sub(
            lambda match: (
                item[match[1].removeprefix("item.")]
                if match[1].startswith("item.")
                else str(_look_up(values, match[1]))
            ),
            text,
        )

    return Node(
        name=f"{stage}@{'-'.join(item[key] for key in declared['matrix'])}",
        command=resolve(declared["cmd"]),
        params=tuple(resolve(key) for key in declared.get("params", [])),
        deps=tuple(resolve(dep) for dep in declared.get("deps", [])),
        outs=tuple(resolve(out) for out in declared["outs"]),
    )


@cache
def _stages(text: str) -> dict[str, Any]:
    stages: dict[str, Any] = read_yaml(text)["stages"]
    return stages


def _look_up(values: Mapping[str, Any], key: str) -> Any:
    found: Any = values
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise ConfigError(f"dvc.yaml names {key}, no key of params.yaml", "correct dvc.yaml")
        found = found[part]
    return found
