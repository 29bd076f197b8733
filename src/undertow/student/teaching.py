"""How one student is taught, as one value."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch import Tensor

from undertow.config import DistillationSettings
from undertow.student.rows import Row


class KlToBase(NamedTuple):
    """mean KL(base || student) per answer token, times weight."""

    weight: float
    schedule: Literal["constant", "early"] = "constant"


class Corridor(NamedTuple):
    """A penalty on drift of the margin on probes."""

    probes: Sequence[Sequence[int]]
    present: Sequence[Sequence[int]]
    absent: Sequence[Sequence[int]]
    weight: float
    every: int
    width: float


@dataclass(frozen=True)
class Teaching:
    rows: Sequence[Row]
    settings: DistillationSettings
    offset: Mapping[int, Tensor] = field(default_factory=dict)
    ablated: Mapping[int, Tensor] = field(default_factory=dict)
    kl: KlToBase | None = None
    corridor: Corridor | None = None
    finish: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None
    optimizer: Literal["adamw", "sgd"] = "adamw"
