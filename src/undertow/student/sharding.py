"""Rows for several training processes, in the order and the batches of a single one."""

from collections.abc import Iterator, Sequence
from typing import Any

from accelerate.data_loader import SeedableRandomSampler
from torch.utils.data import Sampler


def blanks(rows: Sequence[dict[str, list[int]]], batch_size: int, ignored: int) -> list[Any]:
    """Rows without a label that fill the last batch of an epoch.

    accelerate would fill it with rows from the start of the epoch, which then count twice.
    Two tokens each, so that also a batch of blanks alone has a position to predict.
    """
    ids = rows[0]["input_ids"][:2]
    return [{"input_ids": ids, "labels": [ignored] * len(ids)}] * (-len(rows) % batch_size)


class BlanksLast(Sampler[int]):
    """The first `real` rows in the order of accelerate's own sampler, then the blanks."""

    def __init__(self, real: int, total: int, seed: int) -> None:
        self._order = SeedableRandomSampler(range(real), data_seed=seed)
        self._blanks = range(real, total)

    def __iter__(self) -> Iterator[int]:
        yield from self._order
        yield from self._blanks

    def __len__(self) -> int:
        return len(self._order) + len(self._blanks)

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate at the start of each epoch."""
        self._order.set_epoch(epoch)
