"""A simulation of chains of students: how often is the course of a chain called rightly?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from undertow.stats.draws import drawn
from undertow.stats.rounds import Chain, Course, course, followed
from undertow.stats.worth import Rows, no_reference

PROMPTS, ROUNDS, SHIFT, NOISE = 60, 3, 4.0, 1.5


class CourseRow(NamedTuple):
    """Shares of studies by word, and how many intervals held the true step ratio."""

    lineages: int
    spread: float  # standard deviation of a lineage's own factor at each step, in log units
    step: float
    words: dict[Course, float]
    coverage: float


def course_table(
    *,
    lineages: Sequence[int] = (3, 8),
    spreads: Sequence[float] = (0.05, 0.2),
    steps: Sequence[float] = (0.5, 0.8, 1.0, 1.25, 2.0),
    studies: int = 200,
    resamples: int = 400,
    seed: int = 0,
) -> Iterator[CourseRow]:
    """Margins in nats: prompts share an effect, every round of a lineage multiplies its shift."""
    for count in lineages:
        for spread in spreads:
            for step in steps:
                rng = np.random.default_rng([seed, count, round(100 * spread), round(100 * step)])
                words: Counter[Course] = Counter()
                held = 0
                for study in range(studies):
                    draws = drawn(resamples, seed + study, 0.95)
                    chain = _chain(rng, count, spread, step)
                    found = followed({"chain": chain}, draws)["chain"].mean_step
                    words[course(found, count)] += 1
                    held += found.ends.low <= step <= found.ends.high
                shares = {word: many / studies for word, many in words.items()}
                yield CourseRow(count, spread, step, shares, held / studies)


def _chain(rng: np.random.Generator, lineages: int, spread: float, step: float) -> Chain:
    by_prompt = SHIFT + rng.standard_normal(PROMPTS)
    size = np.exp(spread * rng.standard_normal((lineages, 1)))
    rounds = []
    for number in range(ROUNDS):
        if number:
            # Its mean over lineages is the true step itself.
            log = spread * rng.standard_normal((lineages, 1)) - spread**2 / 2
            size = size * step * np.exp(log)
        shape = (lineages, PROMPTS)
        control = NOISE * rng.standard_normal(shape) + 0.2 * rng.standard_normal((lineages, 1))
        moved = size * by_prompt + NOISE * rng.standard_normal(shape)
        rounds.append(Rows(moved, control))
    teacher = Rows(
        by_prompt[None] + NOISE * rng.standard_normal((1, PROMPTS)), no_reference(PROMPTS)
    )
    return Chain(rounds, teacher, [(1 + 2 * n, 2 + 2 * n) for n in range(ROUNDS)])
