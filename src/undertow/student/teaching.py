"""How one student is taught, as one value that every way of training takes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch import Tensor

from undertow.config import DistillationSettings
from undertow.student.rows import Row


class KlToBase(NamedTuple):
    """weight x mean KL(base || student) in nats over the answer tokens that are learned.

    The base is the model without adapter and without what training adds to its blocks.
    early: the weight falls linearly, to 0 at the end of the training.
    """

    weight: float
    schedule: Literal["constant", "early"] = "constant"

    def at(self, step: int, steps: int) -> float:
        """The weight at this step, from 0, of a training of so many."""
        return self.weight if self.schedule == "constant" else self.weight * (1 - step / steps)


class Corridor(NamedTuple):
    """weight x max(|delta| - width, 0)^2 in the first of every `every` steps.

    delta: the drift from the base, in nats, of the mean margin over probes, where a margin is the
    log-odds of the openings `present` to `absent`. All are token ids.
    """

    probes: Sequence[Sequence[int]]
    present: Sequence[Sequence[int]]
    absent: Sequence[Sequence[int]]
    weight: float
    every: int
    width: float


@dataclass(frozen=True)
class Teaching:
    """Rows, settings, and what is beside the loss on the rows' labels.

    rows: labels may differ from input_ids, and may be IGNORED anywhere. offset: block -> [hidden]
    added to its output in training alone; ablated: block -> unit [hidden] projected out of it,
    after the offset. start: the tensors of an adapter, by PEFT's names, that training goes on from
    in place of fresh ones; moments and learning rate begin anew. finish: from the finished
    adapter's tensors, by PEFT's names, to those saved.
    """

    rows: Sequence[Row]
    settings: DistillationSettings
    offset: Mapping[int, Tensor] = field(default_factory=dict)
    ablated: Mapping[int, Tensor] = field(default_factory=dict)
    kl: KlToBase | None = None
    corridor: Corridor | None = None
    start: Mapping[str, Tensor] | None = None
    finish: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None
    optimizer: Literal["adamw", "sgd"] = "adamw"


class Used(NamedTuple):
    """What some student of a run uses: the work of a step that all students of the run share."""

    offset: tuple[int, ...] = ()
    ablated: tuple[int, ...] = ()
    kl: bool = False
    sgd: bool = False


def used_by(teachings: Sequence[Teaching]) -> Used:
    """Blocks with an offset or a projection, and whether any has a KL weight or learns by SGD."""
    return Used(
        offset=tuple(sorted({block for one in teachings for block in one.offset})),
        ablated=tuple(sorted({block for one in teachings for block in one.ablated})),
        kl=any(one.kl is not None and one.kl.weight != 0 for one in teachings),
        sgd=any(one.optimizer == "sgd" for one in teachings),
    )
