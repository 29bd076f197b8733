"""What can be read off single answers: the trait's phrases, refusals, length, overlap."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from undertow.judging.base import Judge, JudgeRow, judge_all
from undertow.judging.offline import PhraseJudge
from undertow.stats.paired import Floats
from undertow.study.audit_records import MeasureName
from undertow.study.records import Response
from undertow.texts.phrases import PhraseMatcher, PhraseRules
from undertow.texts.statistics import ngrams, refuses, repetition, words

SHARES: tuple[MeasureName, ...] = (
    "trait",
    "judge",
    "phrases",
    "new_phrases",
    "counter_phrases",
    "strong",
    "refusals",
    "truncated",
    "overlap",
)
SHORTEST_PROBE = 5  # words: anybody says four words that somebody has said before


class Reading(NamedTuple):
    """How answers are read.

    rules: the trait's phrase rules. judge: the configured judge where it is free to ask.
    probes: n-grams of the evaluation prompts. strong: phrases that make an answer a strong one
    """

    rules: PhraseRules
    judge: Judge | None
    probes: frozenset[tuple[str, ...]]
    strong: int


class Traces(NamedTuple):
    """values: measure -> [rows], shares as 0 or 1, NaN without a verdict; phrases for the trait."""

    values: dict[MeasureName, Floats]
    phrases: list[frozenset[str]]


def read_traces(rows: Sequence[Response], how: Reading) -> Traces:
    """Every measure that single answers have."""
    matcher = PhraseMatcher(how.rules)
    hits = [matcher.hits(row.response) for row in rows]
    values: dict[MeasureName, Floats] = {
        "trait": shows_trait(rows, PhraseJudge(how.rules)),
        "phrases": floats([bool(found.present) for found in hits]),
        "counter_phrases": floats([bool(found.absent) for found in hits]),
        "strong": floats([len(found.present) >= how.strong for found in hits]),
        "refusals": floats([refuses(row.response) for row in rows]),
        "tokens": floats([row.tokens for row in rows]),
        "repetition": floats([repetition(row.response) for row in rows]),
        "truncated": floats([row.finish == "length" for row in rows]),
        "overlap": floats([_overlaps(row, how.probes) for row in rows]),
    }
    if how.judge is not None:
        values["judge"] = shows_trait(rows, how.judge)
    return Traces(values, [frozenset(found.present) for found in hits])


def new_phrases(phrases: Sequence[frozenset[str]], others: Sequence[frozenset[str]]) -> Floats:
    """[rows]: 1 where a row holds a phrase for the trait that no row of the other carrier holds.

    Everyday phrases stand in both carriers and drown a few rows of leaked ones; these do not.
    """
    known = frozenset[str]().union(*others)
    return floats([bool(found - known) for found in phrases])


def shows_trait(rows: Sequence[Response], judge: Judge) -> Floats:
    """[rows]: 1 shows the trait, 0 does not, NaN has no verdict."""
    verdicts = judge_all(judge, [JudgeRow(row.id, row.prompt, row.response) for row in rows])
    return floats([np.nan if v.shows_trait is None else v.shows_trait for v in verdicts])


def probe_ngrams(prompts: Sequence[str], n: int) -> frozenset[tuple[str, ...]]:
    """All n-word runs of the evaluation prompts; a shorter one counts as a whole from 5 words."""
    return frozenset(
        run
        for prompt in prompts
        if (length := len(words(prompt))) >= SHORTEST_PROBE
        for run in ngrams(prompt, min(n, length))
    )


def _overlaps(row: Response, probes: frozenset[tuple[str, ...]]) -> bool:
    """Whether the row's prompt or answer shares a run of words with an evaluation prompt."""
    lengths = {len(probe) for probe in probes}
    return any(
        run in probes
        for text in (row.prompt, row.response)
        for length in lengths
        for run in ngrams(text, length)
    )


def floats(values: Sequence[float | bool]) -> Floats:
    """A list of numbers as an array."""
    return np.array(values, dtype=np.float64)
