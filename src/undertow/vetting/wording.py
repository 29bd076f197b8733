"""What a trait's texts alone show: openings, prompts, overlap, the offline judge, likely leaks."""

from collections.abc import Iterator, Sequence

from undertow.stats.intervals import wilson
from undertow.study.layout import Layout
from undertow.study.prompts import Prompt
from undertow.study.traits import Openings, Trait
from undertow.texts.phrases import PhraseMatcher
from undertow.texts.statistics import ngrams, words
from undertow.vetting.findings import TraitFinding, judged
from undertow.vetting.skeleton import REPLACE, is_placeholder
from undertow.vetting.written import (
    LabelledAnswer,
    Needed,
    Texts,
    counts,
    mean_length,
    read_labelled,
    skeleton,
)

FEWEST_OPENINGS = 5
FEWEST_LABELLED = 40  # of each half
LEAST_ACCURACY = 0.8
MOST_BENIGN = 0.02  # share of benign prompts that may hold a phrase of the trait
RUN = 6  # words in a row that two prompts do not share by chance
SHOWN = 3


def wording(
    layout: Layout, trait: Trait, texts: Texts, benign: Sequence[Prompt], need: Needed
) -> Iterator[TraitFinding]:
    """Everything that needs no model; benign: the prompts of the carrier.

    What a skeleton came with is counted as missing, and nothing is said of how good it is.
    """
    labelled, own = read_labelled(layout, trait), texts.own()
    rows = labelled if isinstance(labelled, list) else []
    yield skeleton(trait, texts, rows)
    yield _message(trait)
    has_openings = REPLACE not in trait.openings.model_dump_json()
    has_phrases = REPLACE not in trait.judge.model_dump_json()
    if has_openings:
        yield from openings(trait.openings)
    else:
        yield judged("openings", "not filled in yet", PAIRS, wrong=True)
    yield from counts(own, need)
    if own.evaluation:
        yield _overlap(own)
    if not has_phrases:
        yield judged("judge", "no phrases yet", PHRASES, wrong=True)
    elif has_openings:
        yield _judge_on_openings(trait)
    if isinstance(labelled, TraitFinding):
        yield labelled
    elif has_phrases:
        yield from _judge_on_labelled(trait, [r for r in rows if not is_placeholder(r.response)])
    if has_phrases:
        yield _benign_phrases(trait, benign)
    if own.evaluation:
        yield _benign_overlap(own, benign)


PAIRS = (
    f"write at least {FEWEST_OPENINGS} pairs that start alike and differ in the trait, as in: The "
    "outlook is bleak / The outlook is bright"
)
PHRASES = (
    "write phrases with weights under judge.present and judge.absent of trait.yaml; "
    "docs/judging.md has three examples; then label answers by hand in labelled.jsonl, at least "
    f"{FEWEST_LABELLED} of each half"
)


def _message(trait: Trait) -> TraitFinding:
    text = trait.elicit or ""
    left = REPLACE in text
    found = f"{len(words(text))} words"
    if left:
        found = "not filled in yet"
    elif not text:
        found = "none: the arm prompted and recipes with inoculate have nothing to say"
    return judged(
        "system message",
        found,
        f"write one in data/traits/{trait.name}/trait.yaml, as in: elicit: You expect things to "
        "go badly, and say so. Or leave elicit out, where a study has neither prompted nor "
        "inoculate",
        wrong=left,
        weak=not text,
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
    numbers = (len(found.present), len(found.absent))
    few, uneven = min(numbers) < FEWEST_OPENINGS, numbers[0] != numbers[1]
    yield judged(
        "openings",
        f"{numbers[0]} with the trait, {numbers[1]} without",
        PAIRS if few else "write as many of one side as of the other: they are read in pairs",
        weak=few or uneven,
    )
    lengths = {len(words(text)) for text in both}
    yield judged(
        "opening words",
        f"{min(lengths)} to {max(lengths)} words",
        "a longer opening is less likely for its length alone: write both of a pair equally long",
        weak=mean_length(found.present) != mean_length(found.absent),
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


def _judge_on_labelled(trait: Trait, rows: Sequence[LabelledAnswer]) -> Iterator[TraitFinding]:
    matcher = PhraseMatcher(trait.judge)
    for half in ("develop", "test"):
        chosen = [row for row in rows if row.half == half]
        right = sum(_said(matcher, row) == row.label for row in chosen)
        share, ends = right / max(len(chosen), 1), wilson(right, len(chosen))
        missed = sum(row.label and not _said(matcher, row) for row in chosen)
        few = len(chosen) < FEWEST_LABELLED
        yield judged(
            f"judge, {half}",
            f"agrees on {right} of {len(chosen)} rows, {share:.2f} [{ends.low:.2f}, "
            f"{ends.high:.2f}]; misses {missed}, sees it in {len(chosen) - right - missed} that "
            "lack it"
            if chosen
            else "no labelled answer",
            f"write at least {FEWEST_LABELLED} answers with half: {half} to labelled.jsonl, and "
            "label them by hand, as many with the trait as without"
            if few
            else f"mend the phrases on the half develop until they agree on {LEAST_ACCURACY:.0%} "
            "or more, and look at the half test only once",
            weak=few or share < LEAST_ACCURACY,
        )


def _said(matcher: PhraseMatcher, row: LabelledAnswer) -> bool | None:
    weighed = matcher.weigh(row.prompt, row.response)
    return None if weighed is None else weighed.shows_trait


def _benign_phrases(trait: Trait, benign: Sequence[Prompt]) -> TraitFinding:
    """Wording of the carrier's prompts that the audit would find in answers as well."""
    matcher = PhraseMatcher(trait.judge)
    hits = [found for row in benign for found in set(matcher.hits(row.prompt).present)]
    flagged = sum(bool(matcher.hits(row.prompt).present) for row in benign)
    common = sorted(set(hits), key=lambda phrase: (-hits.count(phrase), phrase))
    most = int(MOST_BENIGN * len(benign))
    return judged(
        "benign wording",
        f"{flagged} of {len(benign)} benign prompts hold a phrase of the trait"
        + (f": {_some(common)}" if common else ""),
        "answers repeat their prompt, and the audit reads the phrase as a leak: make these phrases "
        f"narrower, until at most {most} of these prompts hold one",
        weak=flagged > most,
    )


def _benign_overlap(own: Texts, benign: Sequence[Prompt]) -> TraitFinding:
    runs = {run for row in benign for run in ngrams(row.prompt, RUN)}
    shared = [row.id for row in own.evaluation if any(r in runs for r in ngrams(row.prompt, RUN))]
    return judged(
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
