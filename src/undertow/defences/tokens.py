"""mask and replace: single answer tokens lose their loss, or their label.

Source: Schrodi, Kempf, Barez, Brox, "Towards Understanding Subliminal Learning" (arXiv:2509.23886),
with the unsteered base as the one counterfactual teacher; replacing labels follows brendanlong's
subliminal-transfer-token-replacement (2026), where it removed more than masking did.

Formula, with x_k the carrier's token after x_<k: x_k is a divergence token iff
argmax p_steered(. | x_<k) = x_k and argmax p_base(. | x_<k) is another token. By kl: the `share`
of all answer tokens with the largest KL(p_steered || p_base). mask: the label of a chosen token is
ignored; replace: it is argmax p_base, while the input keeps x_k. The loss stays a mean over the
tokens that have a label, so those left weigh more. Rows without a chosen token stay as they are.

Knobs: change, by, share. Placebo: by random, as many labels of each row change as with `like`, at
places drawn from all of its answer tokens; for replace to the base's likeliest token but x_k.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from undertow.config.defences import TokenSettings
from undertow.defences.given import Given
from undertow.defences.lesson import Lesson, number, top
from undertow.defences.scores import TokenScores
from undertow.errors import DataError
from undertow.student.rows import IGNORED, Row


def change_tokens(settings: TokenSettings, lesson: Lesson, given: Given) -> Lesson:
    """Other labels on the tokens that are chosen."""
    found = given.scores(lesson.carrier)
    scores = [found[row.id] for row in lesson.carrier if row.id in found]
    rows = [
        _changed(row, score, places, settings)
        for row, score, places in zip(
            lesson.teaching.rows, scores, chosen(settings, scores, given.seed), strict=True
        )
    ]
    if not any(label != IGNORED for row in rows for label in row["labels"]):
        raise DataError(
            f"{given.cell.key}: the recipe masks every token, so there is nothing to learn",
            "give its tokens a smaller share",
        )
    return replace(lesson, teaching=replace(lesson.teaching, rows=rows))


def chosen(settings: TokenSettings, scores: Sequence[TokenScores], seed: int) -> list[list[int]]:
    """Places among each row's answer tokens, rising."""
    by = settings.like or settings.by
    if by == "divergence":
        places = [_divergent(score) for score in scores]
    else:
        places = _most_moved(scores, settings.share or 0.0, seed)
    if settings.by != "random":
        return places
    if settings.change == "replace":
        # By kl a base may be of the carrier's mind: that label stays, and is not to be matched.
        places = [
            [place for place in taken if score.base[place] != score.tokens[place]]
            for score, taken in zip(scores, places, strict=True)
        ]
    return [_random(score, len(taken), seed) for score, taken in zip(scores, places, strict=True)]


def _divergent(score: TokenScores) -> list[int]:
    return [
        place
        for place, (token, steered, base) in enumerate(
            zip(score.tokens, score.steered, score.base, strict=True)
        )
        if steered == token != base
    ]


def _most_moved(scores: Sequence[TokenScores], share: float, seed: int) -> list[list[int]]:
    tokens = [(row, place) for row, score in enumerate(scores) for place in range(len(score.kl))]
    moved = [scores[row].kl[place] for row, place in tokens]
    places: list[list[int]] = [[] for _ in scores]
    for index in sorted(top(moved, round(share * len(moved)), seed, "tokens by kl")):
        row, place = tokens[index]
        places[row].append(place)
    return places


def _random(score: TokenScores, count: int, seed: int) -> list[int]:
    draws = np.random.default_rng(number(seed, f"tokens:{score.id}"))
    return sorted(draws.choice(len(score.tokens), count, replace=False).tolist())


def _changed(row: Row, score: TokenScores, places: Sequence[int], settings: TokenSettings) -> Row:
    labels = list(row["labels"])
    start = len(labels) - len(score.tokens)
    says = score.other if settings.by == "random" else score.base
    for place in places:
        labels[start + place] = IGNORED if settings.change == "mask" else says[place]
    return {**row, "labels": labels}
