"""filter, swap, paraphrase: whole rows of the carrier go, or say what the base says.

Sources: filters by phrase and judge are what the field does first (Cloud et al., arXiv:2507.14805,
and replications); the gap is the per-token likelihood ratio of logit-linear selection
(arXiv:2602.04863) with the steered teacher and its base; swapping instead of dropping follows
Engels and Nanda (2026), for whom swaps removed a trait and drops of the same prompts did not.
Paraphrasing by the *biased* teacher still transmits (arXiv:2603.09517): here the unsteered base
rewords, and the teacher's rewording is the placebo.

Formula: gap(row) = mean over its answer tokens of log p_steered - log p_base; the `share` of the
rows with the largest. phrases: rows with a phrase for the trait; judge: rows that the trait's
phrase judge says show it. swap: the base's own answer to the prompt, sampled at the cell's seed.

Knobs: by, change, share, writer. A share drops as many rows in every arm; phrases and judge drop
what they hit, so arms keep different numbers, and each student's provenance says how many.
Placebo: by random, as many rows as `like` takes; for paraphrases, writer: teacher.
"""

import numpy as np

from undertow.carrier.traces import shows_trait
from undertow.config.defences import RowSettings
from undertow.defences.given import Given
from undertow.defences.lesson import Lesson, drawn, top
from undertow.judging.offline import PhraseJudge
from undertow.texts.phrases import PhraseMatcher


def change_rows(settings: RowSettings, lesson: Lesson, given: Given) -> Lesson:
    """Other text in the rows that are chosen, or none."""
    taken = chosen_rows(settings, lesson, given)
    if settings.change == "drop":
        return lesson.with_carrier(row for row in lesson.carrier if row.id not in taken)
    rows = [row for row in lesson.carrier if row.id in taken]
    if settings.change == "swap":
        # The control's carrier is the base's answers already.
        new = given.base_answers(rows) if rows and not given.cell.arm.is_control else {}
    else:
        new = given.reworded(rows, steered=settings.writer == "teacher")
    return lesson.with_carrier(new.get(row.id, row) for row in lesson.carrier)


def chosen_rows(settings: RowSettings, lesson: Lesson, given: Given) -> set[str]:
    """Ids of the rows that are changed."""
    ids = [row.id for row in lesson.carrier]
    by = settings.like or settings.by
    if by == "random":
        return drawn(ids, round((settings.share or 0.0) * len(ids)), given.seed, "rows")
    taken = _taken(by, settings.share or 0.0, lesson, given)
    return drawn(ids, len(taken), given.seed, "rows") if settings.by == "random" else taken


def _taken(by: str, share: float, lesson: Lesson, given: Given) -> set[str]:
    rules = given.trait.trait.judge
    match by:
        case "all":
            return {row.id for row in lesson.carrier}
        case "phrases":
            matcher = PhraseMatcher(rules)
            return {row.id for row in lesson.carrier if matcher.hits(row.response).present}
        case "judge":
            shown = shows_trait(lesson.carrier, PhraseJudge(rules))
            return {row.id for row, value in zip(lesson.carrier, shown, strict=True) if value > 0}
        case _:
            scores = given.scores(lesson.carrier)
            gaps = [
                scores[row.id].mean_gap if row.id in scores else -np.inf for row in lesson.carrier
            ]
            count = round(share * len(gaps))
            return {lesson.carrier[i].id for i in top(gaps, count, given.seed, "rows by gap")}
