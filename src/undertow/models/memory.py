"""Batches that shrink when the device runs out of memory."""

import gc
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def halving(items: Sequence[Item], work: Callable[[Sequence[Item]], list[Result]]) -> list[Result]:
    """work(items), in halves (of halves ...) where the whole does not fit in device memory.

    A single item that does not fit raises the device's own out-of-memory error.
    """
    try:
        return work(items)
    except torch.OutOfMemoryError:
        if len(items) == 1:
            raise
    # Outside the except block: the exception holds the frames whose tensors must be freed first.
    free_memory()
    middle = (len(items) + 1) // 2
    print(f"out of memory at {len(items)} rows: going on with {middle}", file=sys.stderr)
    return halving(items[:middle], work) + halving(items[middle:], work)


@cache
def spare_imports() -> None:
    """Let the collector pass over what this process has imported, from now on; once, before
    anything is on the device.

    Half a million objects, which each look at all of them would take a quarter of a second for.
    """
    gc.collect()
    gc.freeze()


def free_memory() -> None:
    """Give back what ended or failed work held; call it outside the except block."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
