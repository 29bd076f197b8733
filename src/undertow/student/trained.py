"""What every way of training takes and gives."""

from collections.abc import Callable
from typing import NamedTuple

LossHook = Callable[[int, float, float], None]
"""(step, loss, learning rate) after every optimizer step."""


class Trained(NamedTuple):
    """What training left behind: the adapter is on disk, the losses are nats per token."""

    losses: list[tuple[int, float]]
    tokens: int
    seconds: float
