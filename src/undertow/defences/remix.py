"""remix: a share of the rows gives way to the base's answers on other benign prompts.

Source: mixing in unbiased rows (Schrodi et al., arXiv:2509.23886: weaker at a tenth of the rows,
gone at a quarter), and 3:1 mixes at an equal number of rows in later replications.

Formula: round(share x N) of the N rows, drawn, are replaced by as many answers of the unsteered
base on benign prompts that are neither in the carrier nor held back; N stays.

Knobs: share. Placebo: writer: teacher, the same new prompts answered by the steered teacher.
"""

from undertow.config.defences import RemixSettings
from undertow.defences.given import Given
from undertow.defences.lesson import Lesson, drawn


def remix(settings: RemixSettings, lesson: Lesson, given: Given) -> Lesson:
    """Other prompts and answers in a share of the rows, at the places of those that go."""
    count = round(settings.share * len(lesson.carrier))
    gone = drawn([row.id for row in lesson.carrier], count, given.seed, "remix")
    new = iter(given.other_answers(count, steered=settings.writer == "teacher") if count else [])
    return lesson.with_carrier(next(new) if row.id in gone else row for row in lesson.carrier)
