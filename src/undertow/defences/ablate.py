"""ablate: the direction is projected out of activations while the student is trained.

Source: concept ablation fine-tuning (CAFT, arXiv:2507.16795), with one direction instead of
principal components. An independent replication found a single block without effect, so all
blocks from the steered one on are projected.

Formula: h_l <- h_l - (h_l . u) u at the output of every block l from the first steered one on, in
the forward and so in the backward pass, in training alone; u = d / |d| of the steered block.

Knobs: direction. Placebo: direction: random.
"""

from dataclasses import replace

from undertow.config.defences import AblateSettings
from undertow.defences.directions import units_from_steered
from undertow.defences.given import Given
from undertow.defences.lesson import Lesson


def ablate(settings: AblateSettings, lesson: Lesson, given: Given) -> Lesson:
    """A projection in training."""
    units = units_from_steered(settings.direction, given)
    return replace(lesson, teaching=replace(lesson.teaching, ablated=units))
