"""What a trait's texts alone show: openings, prompts, overlap, the offline judge, likely leaks."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from undertow.errors import UndertowError
from undertow.stats.intervals import wilson
from undertow.study.found import read_rows
from undertow.study.layout import Layout
from undertow.study.prompts import Prompt
from undertow.study.records import Record
from undertow.study.traits import Contrast, Openings, Trait, TraitData
from undertow.texts.phrases import PhraseMatcher
from undertow.texts.statistics import ngrams, words
from undertow.vetting.findings import TraitFinding, judged
from undertow.vetting.skeleton import REPLACE

FEWEST_OPENINGS, FEWEST_CONTRAST, FEWEST_HELDBACK, FEWEST_EVALUATION = 5, 48, 16, 50
FEWEST_LABELLED = 40  # of the half that the phrases were not chosen on
LEAST_ACCURACY = 0.8
RUN = 6  # words in a row that two prompts do not share by chance
SHOWN = 3


class LabelledAnswer(Record):
    """A row of labelled.jsonl."""

    id: str
    prompt: str
    response: str
    label: bool
    half: Literal["develop", "test"]


class Texts(NamedTuple):
    """All prompts of a trait."""

    contrast: Contrast
    heldback: Contrast
    evaluation: list[Prompt]

    @property
    def learnt(self) -> list[str]:
        """What the direction and its block are chosen on."""
        return [text for side in (*self.contrast, *self.heldback) for text in side]


def read_texts(data: TraitData) -> Texts:
    """Raises DataError where a file is absent or has rows that cannot be used."""
    return Texts(data.contrast(), data.heldback(), data.evaluation())


def wording(
    layout: Layout, trait: Trait, texts: Texts, benign: Sequence[Prompt]
) -> Iterator[TraitFinding]:
    """Everything that needs no model; benign: the prompts of the carrier."""
    yield _replaced(trait, texts)
    yield _message(trait)
    yield from openings(trait.openings)
    yield from _counts(texts)
    yield _overlap(texts)
    yield _judge_on_openings(trait)
    yield from _judge_on_labelled(layout, trait)
    yield from _leaks(trait, texts, benign)


def _replaced(trait: Trait, texts: Texts) -> TraitFinding:
    prompts = [*texts.learnt, *(row.prompt for row in texts.evaluation)]
    left = sum(REPLACE in text for text in prompts) + trait.model_dump_json().count(REPLACE)
    return judged(
        "skeleton",
        f"{left} places still say {REPLACE}" if left else "all of it is replaced",
        f"write your own text there: grep -rn {REPLACE} data/traits/{trait.name}",
        wrong=left > 0,
    )


def _message(trait: Trait) -> TraitFinding:
    count = len(words(trait.elicit or ""))
    return judged(
        "system message",
        f"{count} words" if count else "none: the arm prompted and inoculate have nothing to say",
        f"add a line to data/traits/{trait.name}/trait.yaml, as in: elicit: You expect things to "
        "go badly, and say so.",
        weak=count == 0,
    )


def openings(found: Openings) -> Iterator[TraitFinding]:
    """Beginnings of others, numbers of both sides, and words of each."""
    both = [*found.present, *found.absent]
    begun = [
        f"{longer!r} begins with {short!r}"
        for short in both
        for longer in both
        if short is not longer and longer.startswith(short)
    ]
    yield judged(
        "openings apart",
        _some(begun) if begun else "none is the beginning of another",
        "change one of the two: their probabilities are added, so they must exclude each other",
        wrong=bool(begun),
    )
    counts = (len(found.present), len(found.absent))
    few, uneven = min(counts) < FEWEST_OPENINGS, counts[0] != counts[1]
    yield judged(
        "openings",
        f"{counts[0]} with the trait, {counts[1]} without",
        f"write pairs, {FEWEST_OPENINGS} or more of a side",
        weak=few or uneven,
    )
    lengths = {len(words(text)) for text in both}
    yield judged(
        "opening words",
        f"{min(lengths)} to {max(lengths)} words",
        "a longer opening is less likely for its length alone: write both of a pair equally long",
        weak=_mean_length(found.present) != _mean_length(found.absent),
    )


def _mean_length(texts: Sequence[str]) -> float:
    return sum(len(words(text)) for text in texts) / len(texts)


def _counts(texts: Texts) -> Iterator[TraitFinding]:
    for name, found, fewest in (
        ("contrast", texts.contrast, FEWEST_CONTRAST),
        ("held back", texts.heldback, FEWEST_HELDBACK),
    ):
        counts = len(found.present), len(found.absent)
        longer = _mean_length(found.present) / max(_mean_length(found.absent), 1)
        uneven = not 0.8 <= longer <= 1.25
        shown = f"{counts[0]} with the trait, {counts[1]} without"
        yield judged(
            f"{name} prompts",
            shown + (f"; the first are {longer:.2f} times as long" if uneven else ""),
            "length becomes a part of the direction: make both sides equally long"
            if uneven
            else f"write {fewest} or more of each side",
            weak=min(counts) < fewest or uneven,
        )
    count = len(texts.evaluation)
    yield judged(
        "evaluation prompts",
        f"{count}",
        f"write {FEWEST_EVALUATION} or more: the intervals rest on them",
        weak=count < FEWEST_EVALUATION,
    )


def _overlap(texts: Texts) -> TraitFinding:
    """Evaluation prompts that share a run of words with what the direction is made of."""
    known = {run for text in texts.learnt for run in ngrams(text, RUN)}
    whole = {tuple(words(text)) for text in texts.learnt}
    same = [row.id for row in texts.evaluation if tuple(words(row.prompt)) in whole]
    alike = [
        row.id
        for row in texts.evaluation
        if row.id not in same and any(run in known for run in ngrams(row.prompt, RUN))
    ]
    sides = [set(texts.contrast.present + texts.contrast.absent)]
    again = [text for text in (*texts.heldback.present, *texts.heldback.absent) if text in sides[0]]
    parts = [
        *([f"{_some(same)} of evaluation stand in contrast or heldback"] if same else []),
        *([f"{len(again)} held-back prompts stand in contrast"] if again else []),
        *([f"{_some(alike)} share {RUN} words in a row with them"] if alike else []),
    ]
    return judged(
        "overlap",
        "; ".join(parts) or f"no evaluation prompt shares {RUN} words in a row with the contrast",
        "write other prompts: what the direction was taken from would be measured with it",
        wrong=bool(same or again),
        weak=bool(alike),
    )


def _judge_on_openings(trait: Trait) -> TraitFinding:
    matcher = PhraseMatcher(trait.judge)
    missed = [text for text in trait.openings.present if not _shows(matcher, text)]
    wrong = [text for text in trait.openings.absent if _shows(matcher, text)]
    return judged(
        "judge, openings",
        f"reads the trait in {len(trait.openings.present) - len(missed)} of "
        f"{len(trait.openings.present)} openings that have it"
        + (f"; and in {_some(wrong)}, which do not" if wrong else ""),
        "margin and share would measure two things: add phrases for these openings to judge",
        weak=bool(wrong) or 2 * len(missed) > len(trait.openings.present),
    )


def _shows(matcher: PhraseMatcher, text: str) -> bool:
    weighed = matcher.weigh("", text)
    return weighed is not None and weighed.shows_trait


def _judge_on_labelled(layout: Layout, trait: Trait) -> Iterator[TraitFinding]:
    path = layout.trait(trait.name) / "labelled.jsonl"
    if not path.exists():
        yield judged(
            "judge, labelled",
            "there is no labelled.jsonl",
            "label answers by hand, half of them kept apart from the choice of phrases",
            weak=True,
        )
        return
    try:
        rows = read_rows(path, LabelledAnswer)
    except UndertowError as error:
        yield judged("judge, labelled", error.message, error.remedy or "", wrong=True)
        return
    matcher = PhraseMatcher(trait.judge)
    for half in ("develop", "test"):
        chosen = [row for row in rows if row.half == half]
        right = sum(_said(matcher, row) == row.label for row in chosen)
        if not chosen:
            yield judged(f"judge, {half}", "no rows", f"label rows of the half {half}", weak=True)
            continue
        share, ends = right / len(chosen), wilson(right, len(chosen))
        missed = sum(row.label and not _said(matcher, row) for row in chosen)
        few = half == "test" and len(chosen) < FEWEST_LABELLED
        yield judged(
            f"judge, {half}",
            f"agrees on {right} of {len(chosen)} rows, {share:.2f} [{ends.low:.2f}, "
            f"{ends.high:.2f}]; misses {missed}, sees it in {len(chosen) - right - missed} that "
            "lack it",
            f"label {FEWEST_LABELLED} or more rows of this half"
            if few
            else "mend the phrases on the half develop, and look at the half test only once",
            weak=few or share < LEAST_ACCURACY,
        )


def _said(matcher: PhraseMatcher, row: LabelledAnswer) -> bool | None:
    weighed = matcher.weigh(row.prompt, row.response)
    return None if weighed is None else weighed.shows_trait


def _leaks(trait: Trait, texts: Texts, benign: Sequence[Prompt]) -> Iterator[TraitFinding]:
    """Wording of the carrier's prompts that the audit would find in answers as well."""
    matcher = PhraseMatcher(trait.judge)
    hits = [found for row in benign for found in set(matcher.hits(row.prompt).present)]
    flagged = sum(bool(matcher.hits(row.prompt).present) for row in benign)
    common = sorted(set(hits), key=lambda phrase: (-hits.count(phrase), phrase))
    yield judged(
        "benign wording",
        f"{flagged} of {len(benign)} benign prompts hold a phrase of the trait"
        + (f": {_some(common)}" if common else ""),
        "answers repeat their prompt, and the audit reads the phrase as a leak: make these phrases "
        "narrower",
        weak=flagged > 0.02 * len(benign),
    )
    runs = {run for row in benign for run in ngrams(row.prompt, RUN)}
    shared = [row.id for row in texts.evaluation if any(r in runs for r in ngrams(row.prompt, RUN))]
    yield judged(
        "benign overlap",
        f"{_some(shared)} share {RUN} words in a row with a benign prompt"
        if shared
        else f"no evaluation prompt shares {RUN} words in a row with a benign one",
        "the audit calls that an overlap: write these prompts otherwise",
        weak=bool(shared),
    )


def _some(texts: Sequence[str]) -> str:
    shown = ", ".join(texts[:SHOWN])
    return shown + (f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else "")
