"""What a dvc.lock says: which command made each output, from which inputs and parameters."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from undertow.config import PLAIN, Cell
from undertow.config.dotted import flat
from undertow.errors import DataError
from undertow.study.layout import STAGES, Layout, Stage
from undertow.texts.yaml import read_yaml

INSIDE = Layout(Path())  # a study's places as git and dvc.lock write them
PARAMS_FILE = INSIDE.params.as_posix()


@dataclass(frozen=True)
class LockedStage:
    """One stage as it was last run."""

    name: str
    params: Mapping[str, Any]  # dotted key -> value
    deps: Mapping[str, str]  # path -> MD5
    outs: Mapping[str, str]

    @property
    def kind(self) -> str:
        return self.name.split("@")[0]


@dataclass(frozen=True)
class Lock:
    """All stages of a dvc.lock, found by what they write."""

    stages: tuple[LockedStage, ...] = ()
    _by_out: dict[str, LockedStage] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._by_out.update({out: stage for stage in self.stages for out in stage.outs})

    def writer_of(self, path: str) -> LockedStage | None:
        return self._by_out.get(path)

    def hash_of(self, path: str) -> str | None:
        stage = self.writer_of(path)
        return None if stage is None else stage.outs[path]

    def folder(self, cell: Cell, stage: Stage) -> str:
        """The folder of one stage of a cell, as this dvc.lock writes it."""
        folder = INSIDE.stage(cell, stage)
        if stage != "steer" and cell.student == PLAIN:
            # Before there were recipes, a student lay beside its teacher's text.
            before = (folder.parent.parent / stage).as_posix()
            if before in self._by_out and folder.as_posix() not in self._by_out:
                return before
        return folder.as_posix()

    def chain(self, cell: Cell) -> list[LockedStage]:
        """The recorded stages that a cell's result depends on, the first to run first."""
        places = [
            INSIDE.fetched(cell.model).as_posix(),
            (INSIDE.direction(cell.model) / "direction.safetensors").as_posix(),
            *(self.folder(cell, stage) for stage in STAGES),
        ]
        return [stage for path in places if (stage := self.writer_of(path)) is not None]


def parse_lock(text: bytes | None, where: str) -> Lock:
    """Read a dvc.lock; no file is a lock without stages."""
    if text is None:
        return Lock()
    try:
        raw = read_yaml(text.decode())
        entries = (raw or {}).get("stages", {}).items()
        return Lock(tuple(_stage(name, entry) for name, entry in entries))
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise DataError(
            f"{where} is not a lock file of DVC 3: {type(error).__name__}: {error}",
            "check the file out again, or write it anew: dvc repro",
        ) from None


def _stage(name: str, entry: Mapping[str, Any]) -> LockedStage:
    return LockedStage(
        name,
        dict(entry.get("params", {}).get(PARAMS_FILE, {})),
        {dep["path"]: str(dep.get("md5")) for dep in entry.get("deps", [])},
        {out["path"]: str(out.get("md5")) for out in entry.get("outs", [])},
    )


def outdated(lock: Lock, cell: Cell, raw: Mapping[str, Any]) -> str | None:
    """Why the recorded result of a cell does not belong to these parameters; None where it does.

    raw is the content of params.yaml.
    """
    chain = lock.chain(cell)
    for stage in chain:
        for key, value in stage.params.items():
            recorded, wanted = dict(flat(value, key)), dict(flat(_at(raw, key), key))
            for leaf in sorted(recorded.keys() | wanted.keys()):
                if recorded.get(leaf) != wanted.get(leaf):
                    return (
                        f"it was made with {leaf} = {recorded.get(leaf)}, "
                        f"params.yaml has {wanted.get(leaf)}"
                    )
    made = {path: hash for stage in chain for path, hash in stage.outs.items()}
    for stage in chain:
        for path, hash in stage.deps.items():
            if made.get(path, hash) != hash:
                return f"{path} was made anew after the stage {stage.name} had read it"
    return None


def _at(raw: Mapping[str, Any], key: str) -> Any:
    value: Any = raw
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def causes(before: Lock, after: Lock, cell: Cell) -> list[str]:
    """What a cell's stages read differently: parameters and files that no stage of it writes."""
    found: dict[str, None] = {}
    firsts, seconds = before.chain(cell), after.chain(cell)
    made = {out for stage in (*firsts, *seconds) for out in stage.outs}
    pairs = {stage.kind: stage for stage in firsts}
    for stage in seconds:
        old = pairs.get(stage.kind)
        if old is None:
            continue
        first, second = dict(flat(old.params)), dict(flat(stage.params))
        for key in sorted(first.keys() | second.keys()):
            if first.get(key) != second.get(key):
                found[key] = None
        for path in sorted(old.deps.keys() | stage.deps.keys()):
            inside = any(path == out or path.startswith(f"{out}/") for out in made)
            if not inside and old.deps.get(path) != stage.deps.get(path):
                found[path] = None
    return list(found)
