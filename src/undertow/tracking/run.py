"""What one MLflow run holds, before anything of MLflow."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from undertow.tracking.metrics import Metrics


class Point(NamedTuple):
    name: str
    value: float
    step: int


class DatasetInput(NamedTuple):
    """A data file that a run depends on; `digest` is the start of its SHA-256."""

    name: str
    digest: str
    source: str
    context: str


@dataclass(frozen=True)
class RunContent:
    """All that one run shows."""

    name: str
    key: str
    tags: dict[str, str]
    params: dict[str, str]
    points: list[Point]
    seconds: float
    loss: list[tuple[int, float]] = field(default_factory=list)
    datasets: list[DatasetInput] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


def points_of(metrics: Metrics, step: int) -> list[Point]:
    return [Point(name, value, step) for name, value in metrics.items()]
