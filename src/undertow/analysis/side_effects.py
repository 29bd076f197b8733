"""Side effects of an arm with intervals, and whether its teacher is still coherent.

Reads the numbers that cells keep of answers to held-back benign prompts; knows nothing about
text, models or the trait.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from undertow.config import CoherenceSettings, StatisticsSettings
from undertow.stats.intervals import Estimate, percentiles, wilson
from undertow.study.records import AnswerEffect, Effects, Record

Floats = NDArray[np.float64]

NOT_MEASURED = "a cell of this arm was made before side effects were measured; dvc repro"
ALL_EMPTY = "every answer to a held-back benign prompt is empty"
NO_OVERREFUSAL = "no over-refusal prompts were asked (evaluation.overrefusal_prompts is 0)"
NO_COMMON = (
    "the seeds of this arm answered no held-back benign prompt in common "
    "(evaluation.benign_prompts is 0 or has changed between them)"
)
ONE_PROMPT = "one prompt has no interval; raise evaluation.benign_prompts"


class EffectsSummary(Record):
    """One subject's answers to held-back benign prompts, over the seeds of an arm."""

    perplexity: Estimate  # under the base: exp(nats per answer token)
    tokens: Estimate  # mean length of an answer
    truncated: Estimate  # share of answers cut off at evaluation.max_new_tokens
    repetition: Estimate  # mean share of 4-grams that repeat an earlier one
    refusals: Estimate  # share of held-back benign prompts that are refused
    overrefusals: Estimate  # the same on the trait's own over-refusal prompts
    prompts: int


def summarise_effects(
    cells: Sequence[Effects | None], reason: str | None, settings: StatisticsSettings
) -> EffectsSummary:
    """Side effects over the cells of one arm, one per seed.

    Means have a percentile interval from resampling prompts, the answers of all seeds to a
    prompt together; shares have Wilson intervals, which take those answers as independent.
    reason: why a cell has none, where that is known.
    """
    known = [effects for effects in cells if effects is not None]
    if not known or len(known) < len(cells):
        return _unknown(reason or NOT_MEASURED)
    if all(effects == known[0] for effects in known):
        known = known[:1]  # a greedy teacher answers alike whatever the seed
    refused = [refusal for effects in known for refusal in effects.overrefusals.values()]
    overrefusals = _share(refused, settings)
    # A prompt that only some seeds answered would weigh less than the others.
    ids = [id for id in known[0].answers if all(id in effects.answers for effects in known)]
    if not ids:
        return _unknown(NO_COMMON).model_copy(update={"overrefusals": overrefusals})
    answers = [[effects.answers[id] for effects in known] for id in ids]
    flat = [answer for row in answers for answer in row]
    return EffectsSummary(
        perplexity=_perplexity(answers, settings),
        tokens=_mean([[answer.tokens for answer in row] for row in answers], settings),
        truncated=_share([answer.truncated for answer in flat], settings),
        repetition=_mean([[answer.repetition for answer in row] for row in answers], settings),
        refusals=_share([answer.refuses for answer in flat], settings),
        overrefusals=overrefusals,
        prompts=len(ids),
    )


def _unknown(reason: str) -> EffectsSummary:
    unknown = Estimate.unknown(reason)
    return EffectsSummary(
        perplexity=unknown,
        tokens=unknown,
        truncated=unknown,
        repetition=unknown,
        refusals=unknown,
        overrefusals=unknown,
        prompts=0,
    )


def incoherence(
    teacher: EffectsSummary, unsteered: EffectsSummary, bound: CoherenceSettings
) -> str | None:
    """Why a teacher counts as incoherent, or None where it does not or nothing was measured.

    A loop is likely under the base, so perplexity alone would pass it: both bounds are needed.
    """
    if teacher.perplexity.reason == ALL_EMPTY:
        return f"its teacher is incoherent: {ALL_EMPTY}"
    if teacher.perplexity.value is not None and unsteered.perplexity.value is not None:
        ratio = teacher.perplexity.value / unsteered.perplexity.value
        if ratio > bound.max_perplexity_ratio:
            return (
                f"its teacher is incoherent: answers to benign prompts have {ratio:.3g} times the "
                "unsteered teacher's perplexity under the base (statistics.coherence allows "
                f"{bound.max_perplexity_ratio:g})"
            )
    repeated, usual = teacher.repetition.value, unsteered.repetition.value
    # A base that repeats itself this much unsteered is no reason to drop its every arm.
    if repeated is not None and repeated > max(bound.max_repetition, usual or 0.0):
        return (
            f"its teacher is incoherent: {100 * repeated:.0f} % of the 4-grams of an answer to a "
            "benign prompt repeat an earlier one (statistics.coherence allows "
            f"{100 * bound.max_repetition:g} %)"
        )
    return None


def _perplexity(
    answers: Sequence[Sequence[AnswerEffect]], settings: StatisticsSettings
) -> Estimate:
    """exp(sum of nll / sum of tokens): every token counts alike, so a long answer weighs more."""
    nll = np.array([sum(answer.nll for answer in row) for row in answers])
    tokens = np.array([sum(answer.nll_tokens for answer in row) for row in answers], dtype=float)
    if not tokens.any():
        return Estimate.unknown(ALL_EMPTY)
    value = float(np.exp(nll.sum() / tokens.sum()))
    if len(answers) < 2:
        return Estimate(value, None, None, ONE_PROMPT)
    weights = _weights(len(answers), settings.resamples, settings.seed)
    drawn = weights @ tokens
    # A resample of empty answers alone has no perplexity.
    usable = drawn > 0
    return Estimate(
        value, *percentiles(np.exp((weights @ nll)[usable] / drawn[usable]), settings.confidence)
    )


def _mean(rows: Sequence[Sequence[float]], settings: StatisticsSettings) -> Estimate:
    by_prompt = np.array(rows, dtype=np.float64).mean(axis=1)
    value = float(by_prompt.mean())
    if len(by_prompt) < 2:
        return Estimate(value, None, None, ONE_PROMPT)
    weights = _weights(len(by_prompt), settings.resamples, settings.seed)
    drawn = weights @ by_prompt / len(by_prompt)
    return Estimate(value, *percentiles(drawn, settings.confidence))


def _share(flags: Sequence[bool], settings: StatisticsSettings) -> Estimate:
    if not flags:  # answers to held-back prompts are known to be there
        return Estimate.unknown(NO_OVERREFUSAL)
    low, high = wilson(sum(flags), len(flags), settings.confidence)
    return Estimate(sum(flags) / len(flags), low, high)


@lru_cache(maxsize=4)
def _weights(prompts: int, resamples: int, seed: int) -> Floats:
    """[resamples, prompts]: how often each prompt is drawn; the same for every arm."""
    stream = np.random.default_rng([seed, 3, prompts])
    return stream.multinomial(prompts, np.full(prompts, 1 / prompts), resamples).astype(float)
