"""corridor: a penalty on drift of the margin on prompts that nobody is evaluated on.

Source: Liu et al., "Subliminal Learning as Trait-Direction Drift" (2026), with the margin of the
trait's openings as the probe's coordinate instead of one found by a decomposition.

Formula: with m(x) the margin (readouts/margin.py) and delta = mean over probes of
m_student(x) - m_base(x), every `every` optimizer steps loss + weight max(|delta| - width, 0)^2.

Knobs: weight, every, width, prompts. Placebo: openings: shuffled, half of each side's openings on
the other side; the paper's shuffled probe lowered the trait too, so the difference counts.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from undertow.config.defences import CorridorSettings
from undertow.defences.given import Given
from undertow.defences.lesson import Lesson, number
from undertow.models.prompts import encode, render
from undertow.readouts.margin import tokenize_openings
from undertow.student.teaching import Corridor
from undertow.study.traits import Openings


def corridor(settings: CorridorSettings, lesson: Lesson, given: Given) -> Lesson:
    """Another term of the loss, now and then."""
    tokenizer, prompting = given.tokenizer, given.study.params.prompting
    openings = given.trait.trait.openings
    if settings.openings == "shuffled":
        openings = shuffled(openings, number(given.seed, "openings"))
    tokens = tokenize_openings(tokenizer, openings)
    penalty = Corridor(
        probes=[
            encode(tokenizer, render(tokenizer, prompt, prompting))
            for prompt in given.probes(settings.prompts)
        ],
        present=tokens.present,
        absent=tokens.absent,
        weight=settings.weight,
        every=settings.every,
        width=settings.width,
    )
    return replace(lesson, teaching=replace(lesson.teaching, corridor=penalty))


def shuffled(openings: Openings, seed: int) -> Openings:
    """Half of the shorter side's number of openings, drawn on each side, change sides."""
    draws = np.random.default_rng(seed)
    count = max(min(len(openings.present), len(openings.absent)) // 2, 1)
    moved = [
        set(draws.choice(len(side), count, replace=False).tolist())
        for side in (openings.present, openings.absent)
    ]

    def side(own: Sequence[str], gone: set[int], other: Sequence[str], came: set[int]) -> list[str]:
        stay = [text for index, text in enumerate(own) if index not in gone]
        return [*stay, *(text for index, text in enumerate(other) if index in came)]

    return Openings(
        present=tuple(side(openings.present, moved[0], openings.absent, moved[1])),
        absent=tuple(side(openings.absent, moved[1], openings.present, moved[0])),
    )
