"""The transfer line in words: the pooled tau, what it leaves, and what random draws say.

Two things are told apart: how far a direction moves the teacher, and how much of that comes
across. Writes ASCII.
"""

import math
from typing import Literal

from undertow.analysis.lines import LineRecord, NullRecord
from undertow.analysis.summary import ModelView, Summary
from undertow.findings.numbers import RATIO, SCALES, readout_title, shift_text
from undertow.study.records import ReadoutName

UNLIKELY = 0.05


def line_sentences(summary: Summary, model: str) -> list[str]:
    """One per readout that has a line, the margin first; none in files from before."""
    view = summary.views[model]
    readouts: tuple[ReadoutName, ...] = ("margin", "rate")
    return [
        _sentence(view, view.lines[readout], readout_title(summary, readout))
        for readout in readouts
        if readout in view.lines
    ]


def difference_sentences(summary: Summary) -> list[str]:
    """How the pooled tau of every two models compare."""
    return [
        f"Pooled tau of {each.first} minus that of {each.second} by "
        f"{readout_title(summary, each.readout)}: {RATIO.written(each.estimate, signed=True)}, "
        + ("which excludes 0." if each.estimate.excludes_zero else "which covers 0.")
        for each in summary.model_differences
        if each.estimate.value is not None
    ]


def _sentence(view: ModelView, line: LineRecord, title: str) -> str:
    if line.tau.value is None:
        return f"Pooled tau by {title}: undefined, because {line.tau.reason}."
    count = len(line.arms)
    text = (
        f"Pooled tau by {title} over {count} strength{'' if count == 1 else 's'}: "
        f"{RATIO.written(line.tau)}"
    )
    if line.freedom is not None:
        text += f", on {line.freedom:.0f} degrees of freedom between students"
    parts = [f"{text}."]
    if line.fit_p is not None:
        fits = "does not fit" if line.fit_p < UNLIKELY else "fits"
        parts.append(f"One tau {fits} all strengths (p = {line.fit_p:.2g}).")
    if line.intercept.value is not None and line.intercept.excludes_zero:
        parts.append(
            f"Where the teacher does not move, the student does: "
            f"{shift_text(line.intercept, line.readout)}."
        )
    return " ".join([*parts, *_random(view, line)])


def _random(view: ModelView, line: LineRecord) -> list[str]:
    """Of the random draws: how far they move teachers, and whether as much comes across."""
    null, parts = line.random_teacher, []
    if null.low is not None and null.high is not None:
        parts.append(_moved(view, line, null))
    if line.against_random.value is not None:
        differs = (
            "another share than of the trait's"
            if line.against_random.excludes_zero
            else "no other share than of the trait's"
        )
        parts.append(
            f"Of the shifts of random draws {RATIO.written(line.random_slope)} came across, "
            f"{differs} (difference {RATIO.written(line.against_random, signed=True)})."
        )
    return parts


Push = Literal["another share", "any push", "undecided"]


def push(line: LineRecord) -> Push | None:
    """Whether a push in a random direction comes across as the trait does; None without draws or
    without a pooled tau.

    any push: the draws' slope excludes 0 and lies in the interval of the trait's pooled tau,
    which has both ends. another share: the two slopes differ.
    """
    if line.random_slope.value is None or line.tau.value is None:
        return None
    if line.against_random.excludes_zero:
        return "another share"
    low, high = line.tau.ends
    inside = low <= line.random_slope.value <= high and math.isfinite(high - low)
    return "any push" if line.random_slope.excludes_zero and inside else "undecided"


def _moved(view: ModelView, line: LineRecord, null: NullRecord) -> str:
    scale = SCALES[line.readout]
    ends = f"{scale.number(null.low, signed=True)} to {scale.number(null.high, signed=True)}"
    outside = [
        str(arm.strength)
        for arm in view.trait
        if (shift := arm.by(line.readout).teacher_shift.value) is not None
        and null.low is not None
        and null.high is not None
        and not null.low <= shift <= null.high
    ]
    stands = (
        f"the trait moved it further at {', '.join(outside)}"
        if outside
        else "no strength of the trait moved it further"
    )
    return f"{null.draws} random directions move the teacher by {ends} {scale.unit}; {stands}."
