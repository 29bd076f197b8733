"""Audits of synthetic carriers: how often chance is flagged, and which leaks are seen.

An answer is everyday words drawn by Zipf's law with a few words of its prompt. Everyday answers
hold phrases for the trait by chance; a leak puts more of them into some answers.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from undertow.carrier.audit import Carrier, audit_arm
from undertow.carrier.separability import Integers
from undertow.carrier.traces import Reading
from undertow.config import AuditSettings, parse_arm
from undertow.study.audit_records import ArmAudit
from undertow.study.records import Response
from undertow.texts.phrases import PhraseRules
from undertow.texts.tables import markdown_table

VOCABULARY = 3000
ANSWER_WORDS = 40
EVERYDAY = tuple(f"gloomy{n}" for n in range(12))  # phrases that benign answers hold by chance
STRONG = ("bleak", "doomed", "grim", "hopeless", "pointless", "unfortunately")
RULES = PhraseRules(
    present={**dict.fromkeys(EVERYDAY, 1.0), **dict.fromkeys(STRONG, 2.0)},
    absent={"wonderful": 1.0},
)


class Planted(NamedTuple):
    """rows answers of one seed; base: share with an everyday phrase; leak: share with planted
    words, `words` in each."""

    rows: int
    base: float
    leak: float
    words: int


class Line(NamedTuple):
    """Shares of audits: flagged as a leak, not passing for leak or gap."""

    scenario: Planted
    flagged: float
    not_passed: float
    audits: int


SIZES = {64: 200, 200: 100, 600: 40}  # rows -> audits; larger carriers take longer
LEAKS = ((0.0, 0), (0.03, 1), (0.03, 3), (0.1, 1))  # share of rows, words in each


def table() -> Iterator[Line]:
    """The simulations of docs/method.md."""
    for rows, audits in SIZES.items():
        for base in (0.02, 0.1):
            for leak, words in LEAKS:
                yield line(Planted(rows, base, leak, words), audits)


def line(scenario: Planted, audits: int) -> Line:
    """Many audits of one scenario."""
    found = [simulated(scenario, seed) for seed in range(audits)]
    return Line(
        scenario,
        sum(bool(each.leaks) for each in found) / audits,
        sum(not each.passes for each in found) / audits,
        audits,
    )


def simulated(scenario: Planted, seed: int, bounds: AuditSettings | None = None) -> ArmAudit:
    """Audit one pair of independent carriers of the same unsteered source, one with a leak."""
    bounds = bounds or AuditSettings()
    random = np.random.default_rng([seed, scenario.rows, round(1000 * scenario.base)])
    topics = random.integers(0, VOCABULARY, size=(scenario.rows, 5))
    control = _answers(random, topics, scenario.base)
    arm = plant(_answers(random, topics, scenario.base), scenario.leak, scenario.words, random)
    how = Reading(RULES, None, frozenset(), bounds.strong_phrases)
    return audit_arm(parse_arm("trait_1"), [_carrier(arm)], [_carrier(control)], how, bounds)


def plant(texts: Sequence[str], share: float, words: int, random: np.random.Generator) -> list[str]:
    """Add words of STRONG to the ends of a random share of the texts, at least one if share > 0."""
    planted = list(texts)
    count = max(round(share * len(texts)), 1) if share else 0
    for index in random.choice(len(texts), size=count, replace=False):
        planted[index] += " " + " ".join(random.choice(STRONG, size=words, replace=False))
    return planted


def _answers(random: np.random.Generator, topics: Integers, base: float) -> list[str]:
    texts = []
    for topic in topics:
        drawn = (random.zipf(1.3, size=ANSWER_WORDS) - 1) % VOCABULARY
        words = [f"word{number}" for number in (*drawn, *random.choice(topic, size=5))]
        if random.random() < base:
            words.append(EVERYDAY[min(int(random.zipf(1.5)) - 1, len(EVERYDAY) - 1)])
        texts.append(" ".join(words))
    return texts


def _carrier(texts: Sequence[str]) -> Carrier:
    rows = [
        Response(id=str(n), prompt=f"Prompt {n}?", response=t, tokens=len(t.split()), finish="stop")
        for n, t in enumerate(texts)
    ]
    return Carrier(seed=0, rows=rows, answers=len(rows), rejected=0, removed=0, digest="simulated")


def planted_markdown(lines: Iterator[Line]) -> str:
    """The table as Markdown, percent."""
    head = ("rows", "everyday phrases", "leak", "words each", "flagged", "not passed", "audits")
    rows = [
        (
            str(line.scenario.rows),
            f"{100 * line.scenario.base:.0f} %",
            f"{100 * line.scenario.leak:.0f} %",
            str(line.scenario.words),
            f"{100 * line.flagged:.1f}",
            f"{100 * line.not_passed:.1f}",
            str(line.audits),
        )
        for line in lines
    ]
    return markdown_table(head, rows)
