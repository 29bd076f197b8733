"""steer: the student is steered while it is trained, and not afterwards.

Source: preventative steering, Chen et al., "Persona Vectors" (arXiv:2507.21509). A steered teacher
is the base plus alpha v, so a student that starts with that offset on has no systematic gap left
to learn.

Formula: h_l + c d_l at the output of each steered block in training, at every position; c is
`times` the arm's strength, or `strength` itself. At times 1 the control has no offset.

Knobs: times, strength, direction. Placebo: direction: random, a draw of the same length.
"""

from dataclasses import replace

from undertow.config.defences import SteerSettings
from undertow.defences.directions import vectors
from undertow.defences.given import Given
from undertow.defences.lesson import Lesson
from undertow.errors import ConfigError
from undertow.teacher.steering import offsets


def steer_in_training(settings: SteerSettings, lesson: Lesson, given: Given) -> Lesson:
    """An offset in training."""
    alpha = settings.strength
    if alpha is None:
        if given.cell.arm.strength is None:
            raise ConfigError(
                f"times is a multiple of the teacher's strength, and {given.cell.arm.name} has "
                "none",
                "give a strength in its place in the recipe's section steer",
            )
        alpha = settings.times * given.cell.arm.alpha
    added = offsets(vectors(settings.direction, given), given.direction.layers, alpha)
    return replace(lesson, teaching=replace(lesson.teaching, offset=dict(added)))
