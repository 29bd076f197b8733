"""Options that several commands share, and the one way in which a command shows what it found."""

import json
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from undertow.study.layout import Study

Model = Annotated[str, typer.Option(help="A key of models in params.yaml.")]
ArmName = Annotated[
    str,
    typer.Option(
        help="<direction>_<strength>, for example trait_-0.15; or prompted, or adapter_NAME."
    ),
]
MOST_SEED = 2**32 - 1  # as in config.base, which --help does not wait for
Seed = Annotated[
    int,
    typer.Option(min=0, max=MOST_SEED, help="Covers adapter init, row order and sampling."),
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]

Found = TypeVar("Found")


def open_study() -> "Study":
    """The study of the current folder, without its libraries being loaded for --help."""
    from undertow.study.layout import Study

    return Study.open()


def show(value: Found, text: Callable[[Found], str], as_json: bool) -> None:
    """What a command found, on stdout: as JSON, or as the text that people read."""
    written = _json(value) if as_json else text(value)
    print(written, end="" if written.endswith("\n") else "\n")


def _json(value: Any) -> str:
    if hasattr(value, "model_dump_json"):
        return str(value.model_dump_json(indent=2))
    return json.dumps(_plain(value), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    """Records and named tuples as dictionaries, whatever they stand in; no number as null."""
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump(mode="json"))
    if hasattr(value, "_asdict"):
        return {name: _plain(inner) for name, inner in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, float) and not isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
