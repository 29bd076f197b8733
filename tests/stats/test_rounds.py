"""The course of chains of students: planted step ratios are found, and words are seldom wrong."""

import numpy as np
import pytest

from undertow.stats.draws import drawn
from undertow.stats.intervals import Estimate
from undertow.stats.rounds import Chain, course, followed
from undertow.stats.validate_rounds import course_table
from undertow.stats.worth import Rows, no_reference


def planted(shifts: list[float], teacher: float) -> Chain:
    """Lineages that differ by prompts' noise alone."""
    noise = np.random.default_rng(0).normal(0, 0.1, (2 * len(shifts), 3, 50))
    rounds = [Rows(s + noise[2 * n], noise[2 * n + 1]) for n, s in enumerate(shifts)]
    push = Rows(np.full((1, 50), teacher), no_reference(50))
    return Chain(rounds, push, [(1 + 2 * n, 2 + 2 * n) for n in range(len(shifts))])


def test_shifts_taus_and_steps_are_the_planted_ones():
    found = followed({"a": planted([4, 2, 1], 5)}, drawn(500, 0, 0.95))["a"]
    assert [each.value for each in found.shifts] == pytest.approx([4, 2, 1], abs=0.05)
    assert [each.value for each in found.taus] == pytest.approx([0.8, 0.4, 0.2], abs=0.02)
    assert found.steps[0].value is None
    assert [each.value for each in found.steps[1:]] == pytest.approx([0.5, 0.5], abs=0.02)
    assert found.mean_step.value == pytest.approx(0.5, abs=0.02)
    assert course(found.mean_step, 3) == "decays"


def test_nothing_is_said_of_a_chain_that_never_had_the_trait():
    found = followed({"a": planted([0, 0, 0], 5)}, drawn(500, 0, 0.95))["a"]
    assert found.mean_step.reason is not None
    assert course(found.mean_step, 3) == "undecided"


@pytest.mark.parametrize(
    ("low", "high", "lineages", "word"),
    [
        (1.1, 1.6, 3, "grows"),
        (0.4, 0.9, 3, "decays"),
        (0.9, 1.1, 3, "neither"),
        (0.85, 0.95, 3, "neither"),
        (0.7, 1.4, 3, "undecided"),
        (0.4, 0.9, 1, "undecided"),
    ],
)
def test_the_word_is_the_interval_s(low: float, high: float, lineages: int, word: str):
    assert course(Estimate((low + high) / 2, low, high), lineages) == word


def test_words_are_seldom_wrong():
    for row in course_table(lineages=(3,), spreads=(0.2,), steps=(0.5, 1.0, 2.0), studies=60):
        print(row)
        if row.step == 1.0:
            assert row.words.get("grows", 0) + row.words.get("decays", 0) <= 0.12
        else:
            wrong = "grows" if row.step < 1 else "decays"
            assert row.words.get(wrong, 0) == 0
