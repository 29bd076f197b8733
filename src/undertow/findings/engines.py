"""Which answers another engine gave: no number that rests on them stands there without a word."""

from collections.abc import Iterable, Iterator, Mapping

from undertow.analysis.answered import AnsweredElsewhere
from undertow.analysis.summary import Summary
from undertow.config import PLAIN
from undertow.study.records import AnswersOf, Subject

OWN = "this study's engine"
Answerer = tuple[str, int, str]
"""Arm, seed and student."""


def engine_name(engine: str | None, of: AnswersOf = "teacher") -> str:
    """An engine as it is written; None is one that its file does not name."""
    name = engine or "an engine that is not named"
    return f"{name} (its carrier alone)" if of == "carrier" else name


def engine_sentences(summary: Summary, model: str) -> Iterator[str]:
    """What is to be known of a model's teachers and students, if any of them answered elsewhere."""
    rows = [row for row in summary.answered if row.model == model]
    everyone = {
        (arm.arm, cell.seed, PLAIN)
        for arm in summary.arms
        if arm.model == model
        for cell in arm.cells
    }
    subjects: tuple[Subject, ...] = ("teacher", "student")
    for subject in subjects:
        found = {
            _who(row): engine_name(row.engine, row.of) for row in rows if row.subject == subject
        }
        if found:
            yield _sentence(subject, found, everyone)
    for reason in dict.fromkeys(row.no_margin for row in rows if row.no_margin):
        arms = dict.fromkeys(row.arm for row in rows if row.no_margin == reason)
        yield f"The margins of the teacher of {', '.join(arms)} are unknown: {reason}."


def _who(row: AnsweredElsewhere) -> Answerer:
    return row.arm, row.seed, row.student


def _sentence(subject: Subject, found: Mapping[Answerer, str], everyone: set[Answerer]) -> str:
    engines = dict.fromkeys(found.values())
    parts = [
        f"{_named([who for who, name in found.items() if name == engine], everyone)} in {engine}"
        for engine in engines
    ]
    text = f"Answers from elsewhere, by the {subject}s of {'; '.join(parts)}"
    if everyone <= set(found) and len(engines) == 1:
        return f"{text}: all arms alike, and none in {OWN}."
    return f"{text}; all others in {OWN}. Differences between them include that of the engines."


def _named(who: Iterable[Answerer], everyone: set[Answerer]) -> str:
    """Arms, with their seeds where it is not all of them."""
    seeds: dict[tuple[str, str], list[int]] = {}
    for arm, seed, student in who:
        seeds.setdefault((arm, student), []).append(seed)
    names = []
    for (arm, student), own in seeds.items():
        whole = {seed for one, seed, _ in everyone if one == arm} <= set(own)
        name = arm if student == PLAIN else f"{arm} {student}"
        names.append(name if whole else f"{name} (seed {', '.join(map(str, own))})")
    return ", ".join(names)
