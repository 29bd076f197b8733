"""optimizer: plain SGD instead of AdamW.

Source: arXiv:2606.00995, where traits came across under AdamW and not under SGD of equal loss. A
student under SGD that has learned less shows nothing: set its learning rate so that the *control's*
loss is that of the plain control, and never by the trait.

Formula: theta <- theta - rate x gradient, no momentum; warm-up, schedule and clipping as ever.

Knobs: optimizer, and the recipe's learning_rate. No placebo of its own, as for kl.
"""

from dataclasses import replace

from undertow.defences.lesson import Lesson


def by_sgd(lesson: Lesson) -> Lesson:
    """Another optimizer."""
    return replace(lesson, teaching=replace(lesson.teaching, optimizer="sgd"))
