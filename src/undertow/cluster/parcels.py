"""Files by path and bytes, as they travel between driver and workers."""

import shutil
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

from undertow.lineage.stages import Node
from undertow.study.files import atomic_file, atomic_folder

Parcel = dict[str, bytes]
"""Path below the root of a study -> its bytes."""


def pack(root: Path, paths: Iterable[str], without: Container[str] = ()) -> Parcel:
    """The files that lie at these paths and below them; what is absent is left out.

    without: names of files that the receiver has.
    """
    found = {}
    for path in map(root.joinpath, dict.fromkeys(paths)):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            name = file.relative_to(root).as_posix()
            if name not in without and file.is_file() and not file.name.startswith("."):
                found[name] = file.read_bytes()
    return found


def unpack(root: Path, parcel: Mapping[str, bytes]) -> None:
    """Write each file, whole or not at all."""
    for name, content in parcel.items():
        with atomic_file(root / name) as part:
            part.write_bytes(content)


def put_outputs(root: Path, node: Node, parcel: Mapping[str, bytes]) -> None:
    """Write what a stage has written elsewhere: a folder whole, and the manifest last."""
    for out in sorted(node.outs, key=lambda out: out == node.manifest):
        below = f"{out}/"
        inside = {
            name.removeprefix(below): content
            for name, content in parcel.items()
            if name.startswith(below)
        }
        if inside:
            with atomic_folder(root / out) as folder:
                unpack(folder, inside)
        elif out in parcel:
            unpack(root, {out: parcel[out]})


def stays(name: str) -> bool:
    """Whether a worker keeps a file that was sent to it: all but what is large."""
    return not (name.endswith(".safetensors") and "/adapter/" in name)


def remove_outputs(root: Path, node: Node) -> None:
    """Make room where a stage has run for somebody else."""
    for out in node.outs:
        path = root / out
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
