"""A corridor among students trained together: every opening behind every probe, in passes of their
own between a step's rows and its update.

The margin's drift is known after the last of these passes alone, so the gradient of the mean margin
is summed beside that of the loss, and taken onto it times what the penalty makes of the drift.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from undertow.student.batch import Batch, Share, filled, on
from undertow.student.dealing import LONGEST, TOKENS, Sizes, up
from undertow.student.rows import IGNORED, Row
from undertow.student.teaching import Corridor

FAR = -1e9  # the log-likelihood of what is no opening


@dataclass(frozen=True)
class Grid:
    """The shapes of a run's probing passes: `probes` of a student in each, at most so many
    `openings` of at most `length` tokens behind each; sizes: of a pass."""

    probes: int
    openings: int
    length: int
    sizes: Sizes

    @property
    def tokens(self) -> int:
        return self.sizes.most_tokens


class Probed(NamedTuple):
    """What one pass reads; targets and predictors are [S x probes x openings x length], weights 1
    where there is one; real: [S, probes], 1 where a student has a probe."""

    batch: Batch
    real: Tensor

    def copy_(self, other: "Probed") -> None:
        self.batch.copy_(other.batch)
        self.real.copy_(other.real)


def with_probes(sizes: Sizes, corridors: Sequence[Corridor]) -> tuple[Sizes, Grid | None]:
    """The sizes of a run's passes and of its probing passes, None where nobody has a corridor.

    A probing pass has at most the tokens of the others, unless a single probe has more. Both have
    as many rows and as long ones, so that they are one compilation.
    """
    if not corridors:
        return sizes, None
    largest = max(tokens for one in corridors for tokens in _tokens(one))
    most = max(len(one.probes) for one in corridors)
    passes = -(-most // max(1, sizes.most_tokens // largest))
    probes = -(-most // passes)
    openings = max(len(one.present) + len(one.absent) for one in corridors)
    length = max(len(opening) for one in corridors for opening in _openings(one))
    tokens = max(
        sum(_tokens(one)[start : start + probes])
        for one in corridors
        for start in range(0, most, probes)
    )
    tokens = up(tokens, TOKENS)
    row = max(max(map(len, one.probes)) for one in corridors) + length
    longest = max(sizes.longest, up(row, LONGEST))
    filling, fillings = (-(-own // longest) for own in (sizes.most_tokens, tokens))
    bounds = max(sizes.rows + filling, probes * openings + fillings)
    targets = {tokens: probes * openings * length}
    inner = replace(
        sizes, rows=bounds - fillings, tokens=((tokens,),), targets=targets, longest=longest
    )
    return (
        replace(sizes, rows=bounds - filling, longest=longest),
        Grid(probes, openings, length, inner),
    )


class Probing:
    """The margins of a group, their gradient, and the penalty on their drift from the base.

    adapters: [blocks, S, numbers], whose shape the gradient has.
    """

    def __init__(self, grid: Grid, adapters: Tensor) -> None:
        self._grid, device = grid, adapters.device
        students = grid.sizes.students
        self.read = _on(_probed([None] * students, 0, grid), device)
        self.weights = torch.zeros(students, device=device)
        """[S]: of each student's penalty in the step under way, 0 where it has none."""
        self._parts: list[Probed] = []
        self._width = torch.zeros(students, device=device)
        self._count = torch.ones(students, device=device)
        self._sides = torch.zeros(2, students, grid.openings, dtype=torch.bool, device=device)
        self._margin, self._base = (torch.zeros(students, device=device) for _ in range(2))
        self._gradient = torch.zeros_like(adapters)

    def begin(self, corridors: Sequence[Corridor | None]) -> None:
        """The corridors of the first students of a new group."""
        grid = self._grid
        every = [*corridors, *[None] * (grid.sizes.students - len(corridors))]
        passes = max((-(-len(one.probes) // grid.probes) for one in every if one), default=0)
        device = self._gradient.device
        self._parts = [_on(_probed(every, number, grid), device) for number in range(passes)]
        sides = torch.zeros_like(self._sides, device="cpu")
        for number, one in enumerate(every):
            if one is not None:
                present, both = len(one.present), len(one.present) + len(one.absent)
                sides[0, number, :present] = sides[1, number, present:both] = True
        self._sides.copy_(sides)
        self._width.copy_(torch.tensor([one.width if one else 0.0 for one in every]))
        self._count.copy_(torch.tensor([float(len(one.probes)) if one else 1.0 for one in every]))
        self._forget()

    def parts(self) -> Sequence[Probed]:
        """What the passes of this group read, one after the other."""
        return self._parts

    def keep_as_base(self) -> None:
        """What was added up last is the base's."""
        self._base.copy_(self._margin)
        self._forget()

    def mean_margins(self, losses: Tensor) -> Tensor:
        """[S]: what the probes of a pass add to the mean margin; losses: of its targets."""
        grid = self._grid
        likely = -losses.view(-1, grid.probes, grid.openings, grid.length).sum(-1)
        present, absent = (
            torch.where(side[:, None], likely, FAR).logsumexp(-1) for side in self._sides
        )
        return ((present - absent) * self.read.real).sum(-1) / self._count

    def add(self, margins: Tensor, gradients: Sequence[Tensor], scales: Tensor) -> None:
        """Add a pass's part of the margins and its gradients, by block, to the others'."""
        self._margin += margins
        for whole, gradient in zip(self._gradient, gradients, strict=True):
            whole.addcmul_(gradient, scales)

    def hold(self, gradient: Tensor, loss: Tensor) -> None:
        """Add weight x max(|delta| - width, 0)^2 to the losses [S], and its gradient."""
        delta = self._margin - self._base
        over = (delta.abs() - self._width).clamp(min=0)
        loss += self.weights * over**2
        factor = 2 * self.weights * over * delta.sign()
        gradient.addcmul_(self._gradient, factor[:, None])
        self._forget()

    def _forget(self) -> None:
        self._margin.zero_()
        self._gradient.zero_()


def _openings(corridor: Corridor) -> list[Sequence[int]]:
    return [*corridor.present, *corridor.absent]


def _tokens(corridor: Corridor) -> list[int]:
    """Of each probe with all openings."""
    openings = _openings(corridor)
    behind = sum(map(len, openings))
    return [len(probe) * len(openings) + behind for probe in corridor.probes]


def _probed(corridors: Sequence[Corridor | None], number: int, grid: Grid) -> Probed:
    """What pass `number` reads of each student."""
    start = number * grid.probes
    probes = [list(one.probes[start : start + grid.probes]) if one else [] for one in corridors]
    shares = []
    targets = torch.zeros(
        3, len(corridors), grid.probes, grid.openings, grid.length, dtype=torch.long
    )
    # What is no target reads the student's own part: 0 times another's NaN would be one.
    targets[0] += (torch.arange(len(corridors)) * grid.tokens).view(-1, 1, 1, 1)
    for student, (one, own) in enumerate(zip(corridors, probes, strict=True)):
        rows: list[Row] = []
        begins = student * grid.tokens
        for place, probe in enumerate(own):
            for which, opening in enumerate(_openings(one) if one else ()):
                first = begins + len(probe) - 1  # what predicts the opening's first token
                cells = targets[:, student, place, which, : len(opening)]
                cells[0] = torch.arange(first, first + len(opening))
                cells[1] = torch.tensor(opening)
                cells[2] = 1
                ids = [*probe, *opening]
                rows.append({"input_ids": ids, "labels": [IGNORED] * len(ids)})
                begins += len(ids)
        shares.append(Share(rows, 1) if rows else None)
    predictors, ids, weights = targets.flatten(1)
    batch = filled(shares, grid.tokens, grid.sizes)
    real = [[1.0] * len(own) + [0.0] * (grid.probes - len(own)) for own in probes]
    return Probed(
        batch._replace(predictors=predictors, targets=ids, weights=weights.float()),
        torch.tensor(real),
    )


def _on(probed: Probed, device: torch.device) -> Probed:
    return Probed(on(probed.batch, device), probed.real.to(device))
