"""A trait arm against the distribution of random draws of its strength, not against one of them."""

import math
from collections.abc import Sequence

from undertow.analysis.contrasts import ContrastRecord, standing
from undertow.analysis.lines import LineRecord
from undertow.stats.intervals import Estimate
from undertow.stats.random_draws import Null, null_of
from undertow.study.records import ReadoutName


def against_draws(
    contrasts: Sequence[ContrastRecord], lines: Sequence[LineRecord], confidence: float
) -> tuple[ContrastRecord, ...]:
    """The contrasts to random arms of several directions, over all seeds, taken anew."""
    by_readout = {(line.model, line.readout): line for line in lines}
    return tuple(_judged(each, by_readout, confidence) for each in contrasts)


def _judged(
    contrast: ContrastRecord,
    lines: dict[tuple[str, ReadoutName], LineRecord],
    confidence: float,
) -> ContrastRecord:
    line = lines.get((contrast.model, contrast.readout))
    if contrast.against != "random" or contrast.seed is not None or line is None:
        return contrast
    points = [point for point in line.points if point.arm == contrast.reference]
    draws = [
        (teacher, student)
        for point in points
        if point.seed is not None
        and (teacher := point.teacher_shift.value) is not None
        and (student := point.student_shift.value) is not None
    ]
    own = next((p for p in line.points if p.arm == contrast.arm and p.seed is None), None)
    students = null_of([student for _, student in draws], confidence)
    teachers = null_of([teacher for teacher, _ in draws], confidence)
    if own is None or students is None or own.student_shift.value is None:
        return contrast
    estimate = _difference(own.student_shift, students)
    return contrast.model_copy(
        update={
            "estimate": estimate,
            "verdict": standing(own.student_shift, estimate),
            "draws": students.draws,
            "teacher": teachers and _difference(own.teacher_shift, teachers),
        }
    )


def _difference(own: Estimate, null: Null) -> Estimate:
    """The arm minus one more random draw: square and add of both errors."""
    if own.value is None:
        return own
    (low, high), value = own.ends, own.value - null.mean
    reach = null.high - null.mean
    return Estimate(
        value,
        value - math.hypot(own.value - low, reach),
        value + math.hypot(high - own.value, reach),
    )
