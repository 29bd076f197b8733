"""What a worker answers, in words that the driver reads without loading PyTorch."""

from typing import Any, NamedTuple

from undertow.cluster.parcels import Parcel
from undertow.config import Cell


class Here(NamedTuple):
    """Where a worker is: Ray's identity of its node, and the GPUs that it sees."""

    node: str
    gpus: str


class Spent(NamedTuple):
    """What was asked for, and how long it took; loading: of it, loading models."""

    answer: Any
    seconds: float
    loading: float


class Shared(NamedTuple):
    """What came of cells that were done together: why some failed.

    size: of their groups. kept: what training has captured serves the next of the run as well.
    """

    failed: dict[Cell, str]
    size: int
    kept: bool


class Outcome(NamedTuple):
    """What came of a stage: its outputs, or why there are none.

    short: the machine had too little memory or room, so that another one may do it.
    """

    outputs: Parcel | None
    error: str | None = None
    trace: str = ""
    short: bool = False
