"""Did a training learn anything? Read off its loss curve alone."""

import math
from collections.abc import Sequence

from undertow.errors import UndertowError

SHARE = 0.2  # of the steps, at either end, that are averaged: single steps differ by their rows
FEWEST = 5  # steps below which a curve says nothing
RISE = 1.0  # nats above the lowest of the first steps, which other rows do not make
SLOWER = "set a lower distillation.learning_rate in params.yaml (2e-4 is usual for LoRA)"
LONGER = (
    "in params.yaml raise distillation.epochs or carrier.prompts, or try another "
    "distillation.learning_rate"
)


def untrained(losses: Sequence[tuple[int, float]]) -> str | None:
    """What was seen where the loss did not fall, and what to change; None where it fell.

    losses: (step, nats per token). A learning rate that is far too high lifts the loss to the
    logarithm of the vocabulary, without any other sign; one that is far too low leaves it.
    """
    if (problem := _not_finite(losses)) is not None:
        return f"{problem}; {SLOWER}"
    values = [loss for _, loss in losses]
    if len(values) < FEWEST:
        return None
    count = max(1, int(SHARE * len(values)))
    lowest = min(values[:count])
    first, last = sum(values[:count]) / count, sum(values[-count:]) / count
    if last < first:
        return None
    steps = "step" if count == 1 else f"{count} steps"
    if last > lowest + RISE:
        return (
            f"training diverged: the loss rose from {lowest:.2f} nats in the first {steps} to "
            f"{last:.2f} over the last; {SLOWER}"
        )
    return (
        f"the loss did not fall: from {first:.2f} nats over the first {steps} to {last:.2f} over "
        f"the last; {LONGER}"
    )


def _not_finite(losses: Sequence[tuple[int, float]]) -> str | None:
    step = next((step for step, loss in losses if not math.isfinite(loss)), None)
    return (
        None if step is None else f"training diverged: the loss is not finite from step {step} on"
    )


class DivergedError(UndertowError):
    """A student whose weights are not finite: no answer of it can be read."""


def check_readable(losses: Sequence[tuple[int, float]], subject: str) -> None:
    """DivergedError where the last loss is not finite, and with it the adapter."""
    if losses and not math.isfinite(losses[-1][1]):
        raise DivergedError(
            f"{subject}: {_not_finite(losses)}, so the student has no finite weights", SLOWER
        )
