"""kl: a penalty on leaving the base.

Source: liminal training (Yanagisawa et al., 2025) and its successor's schedules, where a weight
that is largest at first kept the trait out at the least cost. Their code sums over prompt and
padding and divides by the rows; here it is a mean over the answer tokens that are learned, so a
weight means the same for short and long answers, and there is no temperature.

Formula: loss + w(t) mean_k KL(p_base(. | x_<k) || p_student(. | x_<k)); w constant, or falling
linearly to 0 (early). The base is the model with the adapter off: no second copy.

Knobs: weight, schedule. No placebo of its own: it resists all that is learned alike, so what it has
to beat is the line that early stopping and a lower learning rate draw.
"""

from dataclasses import replace

from undertow.config.defences import KlSettings
from undertow.defences.given import Given
from undertow.defences.lesson import Lesson
from undertow.student.teaching import KlToBase


def kl_to_base(settings: KlSettings, lesson: Lesson, given: Given) -> Lesson:
    """Another term of the loss."""
    kl = KlToBase(settings.weight, settings.schedule)
    return replace(lesson, teaching=replace(lesson.teaching, kl=kl))
