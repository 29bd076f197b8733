"""Nested values by dotted keys, as dvc.yaml, dvc.lock and MLflow write them."""

from collections.abc import Iterator, Mapping
from typing import Any


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key -> value for every leaf; a list is a leaf, and so is an empty mapping."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
