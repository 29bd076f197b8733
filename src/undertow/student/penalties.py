"""What TRL's trainer adds to the loss of the labels: KL to the base, and a corridor for the margin.

The base is the student with its adapter off and nothing done to its blocks' outputs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from undertow.student.rows import IGNORED
from undertow.student.shift import Switch
from undertow.student.teaching import Corridor


class Predicted(NamedTuple):
    """outputs.logits: [rows, columns, vocabulary]; targets: [rows x columns]."""

    outputs: Any
    targets: Tensor


Predict = Callable[[Any, Tensor, Tensor, Tensor], Predicted]
"""From model, ids, mask and labels, each [rows, width]."""


@contextmanager
def as_base(student: Any, switch: Switch) -> Iterator[None]:
    """Within it, the student answers as the base, without gradient."""
    with torch.no_grad(), student.disable_adapter(), switch.off():
        yield


def kl_sum(base: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """Sum over learned targets of KL(base || student), in nats; logits [.., vocabulary]."""
    learned = targets != IGNORED
    other, own = (
        torch.log_softmax(given.flatten(0, 1)[learned].float(), dim=-1) for given in (base, logits)
    )
    return (other.exp() * (other - own)).sum()


class CorridorPenalty:
    """The penalty on drift of the mean margin over a corridor's probes."""

    def __init__(self, corridor: Corridor, device: torch.device) -> None:
        self._corridor = corridor
        self._openings = [*corridor.present, *corridor.absent]
        rows = [[*probe, *opening] for probe in corridor.probes for opening in self._openings]
        width = max(map(len, rows))
        ids = [pad(torch.tensor(row), (0, width - len(row))) for row in rows]
        self._ids = torch.stack(ids).to(device)
        lengths = torch.tensor([len(row) for row in rows], device=device)[:, None]
        places = torch.arange(width, device=device)
        self._mask = (places < lengths).long()
        starts = torch.tensor(
            [len(probe) for probe in corridor.probes for _ in self._openings], device=device
        )
        answered = (places >= starts[:, None]) & self._mask.bool()
        self._labels = self._ids.masked_fill(~answered, IGNORED)
        counts = torch.tensor([len(opening) for opening in self._openings])
        owner = torch.arange(len(rows)).repeat_interleave(counts.repeat(len(corridor.probes)))
        self._owner = owner.to(device)
        self._base: Tensor | None = None

    def due(self, step: int) -> bool:
        """Whether this step, from 0, has the penalty."""
        return step % self._corridor.every == 0

    def __call__(self, model: Any, student: Any, switch: Switch, predict: Predict) -> Tensor:
        """weight x max(|delta| - width, 0)^2; the student is asked without what training adds."""
        if self._base is None:
            with as_base(student, switch):
                self._base = self._margin(student, predict)
        with switch.off():
            delta = self._margin(model, predict) - self._base
        return self._corridor.weight * (delta.abs() - self._corridor.width).clamp(min=0) ** 2

    def _margin(self, model: Any, predict: Predict) -> Tensor:
        """The mean over probes of log p(present) - log p(absent), as readouts/margin has it."""
        outputs, targets = predict(model, self._ids, self._mask, self._labels)
        lost = cross_entropy(
            outputs.logits.flatten(0, 1).float(), targets, ignore_index=IGNORED, reduction="none"
        )
        likely = torch.zeros(len(self._ids), device=lost.device)
        likely = likely.index_add(0, self._owner, -lost[targets != IGNORED])
        openings = likely.view(-1, len(self._openings))
        present = openings[:, : len(self._corridor.present)].logsumexp(1)
        absent = openings[:, len(self._corridor.present) :].logsumexp(1)
        return (present - absent).mean()
