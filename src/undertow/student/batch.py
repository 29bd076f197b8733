"""What one pass of a group reads: the students' rows end to end, in tensors that never change
their place, so that a captured step finds the next pass where it found the last.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from undertow.student.dealing import Sizes
from undertow.student.rows import IGNORED, Row


class Batch(NamedTuple):
    """S students of T tokens each, N of them targets; N goes with T.

    ids, positions, row: [S, T], `row` counts a student's rows; bounds: [S x R + 1] int32, where
    each row begins in S x T; predictors: [S x N], the places in S x T whose outputs predict the
    targets [S x N]; weights: [S x N], what each target's loss counts, 0 where there is none.
    """

    ids: Tensor
    positions: Tensor
    row: Tensor
    bounds: Tensor
    predictors: Tensor
    targets: Tensor
    weights: Tensor

    def copy_(self, other: "Batch") -> None:
        """Take on the other's values, without waiting for the device."""
        for mine, theirs in zip(self, other, strict=True):
            mine.copy_(theirs, non_blocking=True)


def on(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device."""
    return Batch(*(tensor.to(device) for tensor in batch))


class Share(NamedTuple):
    """A student's rows in one pass; learned: the targets of its whole step, at least 1."""

    rows: Sequence[Row]
    learned: int

    @property
    def tokens(self) -> int:
        return sum(len(row["input_ids"]) for row in self.rows)


def filled(shares: Sequence[Share | None], tokens: int, sizes: Sizes) -> Batch:
    """The batch of one pass on the host, pinned where there is a GPU; None is no row at all.

    Blanks fill each student's part: rows of token 0 that nothing is learned from.
    """
    parts = [_part(share, tokens, sizes) for share in shares]
    stacked = Batch(*(torch.stack(column) for column in zip(*parts, strict=True)))
    offsets = torch.arange(len(shares))[:, None] * tokens
    whole = torch.tensor([len(shares) * tokens])
    batch = stacked._replace(
        bounds=torch.cat([(stacked.bounds + offsets).flatten(), whole]).int(),
        predictors=(stacked.predictors + offsets).flatten(),
        targets=stacked.targets.flatten(),
        weights=stacked.weights.flatten(),
    )
    if torch.cuda.is_available():
        return Batch(*(tensor.pin_memory() for tensor in batch))
    return batch


def _part(share: Share | None, tokens: int, sizes: Sizes) -> Batch:
    """One student's part; bounds are where its rows begin, predictors places in its own T."""
    ids: list[int] = []
    positions: list[int] = []
    row: list[int] = []
    bounds: list[int] = []
    predictors: list[int] = []
    targets: list[int] = []
    for number, one in enumerate(share.rows if share else ()):
        start = len(ids)
        bounds.append(start)
        ids += one["input_ids"]
        positions += range(len(one["input_ids"]))
        row += [number] * len(one["input_ids"])
        # Nothing comes before a row's first token, so it is never a target.
        for place, label in enumerate(one["labels"][1:], start):
            if label != IGNORED:
                predictors.append(place)
                targets.append(label)
    while len(ids) < tokens:
        length = min(sizes.longest, tokens - len(ids))
        row += [len(bounds)] * length
        bounds.append(len(ids))
        ids += [0] * length
        positions += range(length)
    bounds += [tokens] * (sizes.bounds - len(bounds))
    missing = sizes.targets[tokens] - len(targets)
    weight = 1 / share.learned if share else 0.0
    return Batch(
        ids=torch.tensor(ids),
        positions=torch.tensor(positions),
        row=torch.tensor(row),
        bounds=torch.tensor(bounds),
        predictors=torch.tensor(predictors + [0] * missing),
        targets=torch.tensor(targets + [0] * missing),
        weights=torch.tensor([weight] * len(targets) + [0.0] * missing),
    )
