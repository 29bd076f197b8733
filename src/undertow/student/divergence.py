"""Did a training learn anything? Read off its loss curve alone."""

import math
from collections.abc import Sequence

from undertow.errors import UndertowError

SHARE = 0.2  # of the steps, at either end, that are averaged: single steps differ by their rows
FEWEST = 5  # steps below which a curve says nothing


def diverged(losses: Sequence[tuple[int, float]]) -> str | None:
    """Why the student of this curve counts as not trained; None where the loss fell.

    losses: (step, nats per token). A learning rate that is far too high leaves the loss where it
    was, or at the logarithm of the vocabulary, without any other sign.
    """
    values = [loss for _, loss in losses]
    if not all(map(math.isfinite, values)):
        step = next(step for step, loss in losses if not math.isfinite(loss))
        return f"training diverged: the loss is not finite from step {step} on"
    if len(values) < FEWEST:
        return None
    count = max(1, int(SHARE * len(values)))
    first, last = sum(values[:count]) / count, sum(values[-count:]) / count
    if last < first:
        return None
    return (
        f"training diverged: the loss is {last:.2f} nats over the last {count} steps and was "
        f"{first:.2f} over the first"
    )


class DivergedError(UndertowError):
    """A student whose weights are not finite: no answer of it can be read."""


def check_readable(losses: Sequence[tuple[int, float]], subject: str) -> None:
    """DivergedError where the last loss is not finite, and with it the adapter."""
    if losses and not math.isfinite(losses[-1][1]):
        raise DivergedError(
            f"{subject}: {diverged(losses)}, so the student has no finite weights",
            "set a lower distillation.learning_rate in params.yaml (2e-4 is usual for LoRA)",
        )
