"""What may be said of a defence under another condition: its message on, or a longer training."""

from collections.abc import Iterator
from typing import Literal

from undertow.analysis.returns import Return
from undertow.analysis.summary import Summary
from undertow.findings.defences import told
from undertow.findings.numbers import readout_title
from undertow.texts.numbers import PERCENT

Course = Literal["comes back", "more is removed", "not shown to come back", "unknown"]


def course_of(each: Return) -> Course:
    """From the interval that holds for all of a model's at once."""
    back = each.back[1]
    if back.value is None:
        return "unknown"
    if back.ends.low > 0:
        return "comes back"
    return "more is removed" if back.ends.high < 0 else "not shown to come back"


def condition_of(each: Return) -> str:
    if each.condition == "message":
        return "with its training message on"
    if each.epochs == 2 * each.than_epochs:
        return "with twice the epochs"
    return f"with {each.epochs} epochs in place of {each.than_epochs}"


def return_sentences(summary: Summary, model: str) -> Iterator[str]:
    """One per recipe that was read or made under a condition, and readout."""
    for arm in told(summary, model, placebos=True):
        for each in arm.returns:
            yield (
                f"{model}, {arm.arm}, by {readout_title(summary, each.readout)}: {arm.student} "
                f"{condition_of(each)}: removed {_share(each, 'removed')} instead of "
                f"{_share(each, 'otherwise')}: {course_of(each)}."
            )


def _share(each: Return, which: Literal["removed", "otherwise"]) -> str:
    estimate = each.removed if which == "removed" else each.otherwise
    return "an unknown share" if estimate.value is None else PERCENT.written(estimate)
