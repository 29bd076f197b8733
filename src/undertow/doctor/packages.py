"""Installed package versions against a constraints file; imports none of the packages."""

import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement


class Pinned(NamedTuple):
    absent: list[str]  # of what the stages need
    extras: list[str]  # absent too, and no stage needs them
    other: list[str]
    matching: int


def look_up_pins(constraints: str, root: Path) -> Pinned:
    """Which pinned packages are absent, which have another version, and how many match."""
    pins = _pins(constraints)
    installed = {name: version for name in pins if (version := _version(name))}
    needed, extras = (
        [name for name in names if name in pins and name not in installed]
        for names in _required(root)
    )
    other = [
        f"{name} {version} (pinned {pins[name]})"
        for name, version in installed.items()
        if version.split("+")[0] != pins[name]  # 2.13.0+cpu is a build of 2.13.0
    ]
    return Pinned(needed, extras, other, len(installed) - len(other))


def _pins(text: str) -> dict[str, str]:
    """name -> version of the name==version lines that apply to this machine."""
    pins = {}
    for line in text.splitlines():
        try:
            requirement = Requirement(line.split("#")[0].strip())
        except InvalidRequirement:
            continue  # an option, a comment or an empty line
        exact = [part.version for part in requirement.specifier if part.operator == "=="]
        if exact and (requirement.marker is None or requirement.marker.evaluate()):
            pins[_normal(requirement.name)] = exact[0].split("+")[0]
    return pins


def _required(root: Path) -> tuple[list[str], list[str]]:
    """What the stages need, and what tracking needs besides, as pyproject.toml declares it.

    A constraints file also names what only these need in their turn.
    """
    path = root / "pyproject.toml"
    if not path.exists():
        return [], []
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    groups = (project["dependencies"], project["optional-dependencies"]["track"])
    stages, track = ([_normal(Requirement(line).name) for line in group] for group in groups)
    return stages, track


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
