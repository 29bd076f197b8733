"""Installed package versions against a constraints file; imports none of the packages."""

import re
from importlib import metadata
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement


class Pinned(NamedTuple):
    absent: list[str]
    other: list[str]
    matching: int


def look_up_pins(constraints: str) -> Pinned:
    """Which pinned packages are absent, which have another version, and how many match."""
    pins = _pins(constraints)
    installed = {name: version for name in pins if (version := _version(name))}
    absent = [name for name in _needed(pins) if name in pins and name not in installed]
    other = [
        f"{name} {version} (pinned {pins[name]})"
        for name, version in installed.items()
        if version.split("+")[0] != pins[name]  # 2.13.0+cpu is a build of 2.13.0
    ]
    return Pinned(absent, other, len(installed) - len(other))


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


def _needed(pins: dict[str, str]) -> list[str]:
    """What Undertow itself requires; a constraint may also name what only others need."""
    try:
        lines = metadata.requires("undertow") or []
    except metadata.PackageNotFoundError:
        return list(pins)
    requirements = [Requirement(line) for line in lines]
    return [
        _normal(requirement.name)
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
