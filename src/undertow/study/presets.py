"""The shipped parameter files and how params.yaml becomes one of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel

from undertow.config import Params
from undertow.errors import ConfigError
from undertow.study.files import write_text


class Preset(NamedTuple):
    """A complete parameter file; purpose is its first line."""

    name: str
    purpose: str
    path: Path


def presets(root: Path) -> list[Preset]:
    """All presets of the repository at `root`, by name."""
    return [
        Preset(path.stem, _first_comment(path), path)
        for path in sorted((root / "presets").glob("*.yaml"))
    ]


def listing(found: Sequence[Preset]) -> str:
    """A line each: name and purpose."""
    return "\n".join(f"{preset.name:<16}{preset.purpose}" for preset in found)


def use(root: Path, name: str, *, force: bool) -> Preset:
    """Make a preset the params.yaml at `root`.

    Raises ConfigError where the preset is unknown, or where params.yaml holds edits that no
    preset has and `force` is not given.
    """
    known = {preset.name: preset for preset in presets(root)}
    if name not in known:
        raise ConfigError(f"no preset {name!r}", f"use one of: {', '.join(known)}")
    current = root / "params.yaml"
    if current.exists() and not force:
        text = current.read_text(encoding="utf-8")
        if all(text != preset.path.read_text(encoding="utf-8") for preset in known.values()):
            raise ConfigError(
                "params.yaml has edits that no preset has, and they would be lost",
                f"commit or copy it, then: python cli.py preset use {name} --force",
            )
    write_text(current, known[name].path.read_text(encoding="utf-8"))
    return known[name]


def explain() -> str:
    """Every key of params.yaml with its type, default and meaning."""
    return "\n".join(_lines(Params, ""))


def _lines(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if name == "kind":
            continue  # named beside the section
        path = f"{prefix}{name}"
        sections = list(_sections(field.annotation))
        if not sections:
            default = "" if field.is_required() else f" (default {field.default!r})"
            yield f"{path}: {field.description or _choices(field.annotation)}{default}"
        for section in sections:
            choice = _kind(section)
            yield f"{path}{choice}: {(section.__doc__ or '').splitlines()[0]}"
            below = f"{path}.NAME." if get_origin(field.annotation) is dict else f"{path}."
            yield from _lines(section, below)


def _sections(kind: Any) -> Iterator[type[BaseModel]]:
    """The models that a field's type names: one, or one per choice of a union."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for argument in get_args(kind):
        yield from _sections(argument)


def _kind(section: type[BaseModel]) -> str:
    """Which choice of a union this is."""
    kind = section.model_fields.get("kind")
    return f" ({_choices(kind.annotation)})" if kind is not None else ""


def _choices(kind: Any) -> str:
    return " or ".join(str(choice) for choice in get_args(kind))


def _first_comment(path: Path) -> str:
    return path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")
