"""What the intervals allow to be said of a defence; docs/defences.md has the reasons."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, get_args

from undertow.analysis.summary import DefenceArm, StudentArm, Summary
from undertow.findings.numbers import READOUTS, readout_title
from undertow.stats.intervals import Estimate
from undertow.study.records import ReadoutName
from undertow.texts.numbers import PERCENT

Verdict = Literal[
    "removes transfer",
    "removes transfer at an unknown cost",
    "removes transfer, and so does its placebo",
    "removes transfer no better than training less",
    "amplifies",
    "no effect shown",
    "undecided",
    "draws the line",
]
LEAST = 0.5  # of plain's transfer: who cannot have removed as much is said to have no effect


class Judged(NamedTuple):
    verdict: Verdict
    why: str  # what it rests on, or what is missing


def judged(summary: Summary, arm: DefenceArm, readout: ReadoutName) -> Judged:
    """The verdict on one recipe, strength and readout, from intervals that hold at once."""
    worth = arm.by(readout)
    if arm.draws_line:
        return Judged("draws the line", "it learns less and does nothing else")
    removed = worth.removed[1]
    if removed.value is None:
        return Judged("undecided", "plain students show no transfer that could be removed")
    low, high = removed.ends
    if high < 0:
        return Judged("amplifies", "more comes across than with plain students")
    if low <= 0:
        return _nothing_shown(high)
    beyond = worth.beyond_line[1]
    verdict: Verdict = "removes transfer"
    if beyond.value is None:
        verdict = "removes transfer at an unknown cost"
        kept = f"; what it cost in learning is not known: {beyond.reason}"
    elif beyond.ends.low > 0:
        kept = ", more than learning as little would"
    elif beyond.ends.high < 0:
        return Judged(
            "removes transfer no better than training less",
            "training less removes more, and gains as much on held-back answers",
        )
    elif _learned_less(arm):
        return Judged(
            "removes transfer no better than training less",
            "it learns less than plain students, and is not shown to remove more than learning as "
            "little would",
        )
    else:
        return Judged("undecided", "it removes no more than learning as little might")
    return _beside_placebo(summary, arm, readout, verdict, kept)


def _learned_less(arm: DefenceArm) -> bool:
    if arm.gain_less_at_once is None:  # a file from before
        return arm.learned.ends.high < 1
    return arm.gain_less_at_once.ends.low > 0


def _nothing_shown(high: float) -> Judged:
    if high < LEAST:
        return Judged("no effect shown", f"and {100 * LEAST:.0f} % of the transfer is excluded")
    return Judged("undecided", "its interval holds nothing and half of the transfer alike")


def _beside_placebo(
    summary: Summary, arm: DefenceArm, readout: ReadoutName, verdict: Verdict, kept: str
) -> Judged:
    if arm.placebo is None:
        alone = "" if arm.placebo_of else "; it has no placebo here"
        return Judged(verdict, f"less than with plain students{kept}{alone}")
    placebo = defence(summary, arm.model, arm.placebo, arm.arm)
    worth = arm.by(readout)
    less, sign = worth.less_shift_than_placebo[1], _course(worth.less_shift[0])
    ends = sorted(sign * end for end in less.ends)
    if less.value is not None and ends[0] > 0:
        return Judged(verdict, f"less than with its placebo{kept}")
    if placebo is not None and placebo.by(readout).removed[1].ends.low > 0:
        return Judged(
            "removes transfer, and so does its placebo",
            f"less than with plain students, and not shown to be less than with its placebo{kept}",
        )
    return Judged("undecided", f"it cannot be told from its placebo, nor that from plain{kept}")


def _course(less: Estimate) -> int:
    """The side that plain students moved to, for a recipe that removes some of it."""
    return -1 if (less.value or 0) < 0 else 1


def defence(summary: Summary, model: str, student: str, arm: str) -> DefenceArm | None:
    wanted = (model, student, arm)
    return next((d for d in summary.defences if (d.model, d.student, d.arm) == wanted), None)


def student_of(summary: Summary, arm: DefenceArm) -> StudentArm:
    """The same students with their levels, shifts and tau."""
    wanted = (arm.model, arm.student, arm.arm)
    return next(s for s in summary.students if (s.model, s.student, s.arm) == wanted)


def told(summary: Summary, model: str, *, placebos: bool = False) -> list[DefenceArm]:
    """The recipes of a model at its largest strength whose teacher is coherent.

    Where no teacher is steered, those of the first arm in other clothes.
    """
    return next(iter(by_arm(summary, model, placebos=placebos)), [])


def by_arm(summary: Summary, model: str, *, placebos: bool = False) -> list[list[DefenceArm]]:
    """The same, and the recipes of every arm without a strength."""
    view = summary.views[model]
    steered = [arm for arm in view.trait if not arm.degenerate]
    arms = [max(steered, key=lambda arm: abs(arm.alpha))] if steered else []
    arms += [arm for arm in view.clothed if not arm.degenerate]
    found = [
        [
            each
            for each in summary.defences
            if (each.model, each.arm) == (model, arm.arm) and (placebos or not each.placebo_of)
        ]
        for arm in arms
    ]
    return [each for each in found if each]


def defence_sentences(summary: Summary, model: str) -> Iterator[str]:
    """One per arm, verdict and readout: which recipes have it."""
    for arms in by_arm(summary, model):
        yield from _of_arm(summary, model, arms)


def _of_arm(summary: Summary, model: str, arms: Sequence[DefenceArm]) -> Iterator[str]:
    for readout in READOUTS:
        by_verdict: dict[Verdict, list[str]] = {verdict: [] for verdict in get_args(Verdict)}
        for arm in arms:
            text = arm.student
            removed = arm.by(readout).removed[1]
            if removed.value is not None:
                text += f" {PERCENT.written(removed)}"
            by_verdict[judged(summary, arm, readout).verdict].append(text)
        for verdict, names in by_verdict.items():
            if not names:
                continue
            yield (
                f"{model}, {arms[0].arm}, by {readout_title(summary, readout)}: {verdict}: "
                f"{', '.join(names)}."
            )
