"""How often a judge agrees with people: accuracy, sensitivity, specificity and kappa.

A calibration file holds counts and row ids, none of the labelled text.
"""

from collections.abc import Sequence
from pathlib import Path

from undertow.judging.base import Judge, Verdict, judge_all
from undertow.judging.labelled import Labelled, labelled_set, load_labelled
from undertow.stats.agreement import agreement
from undertow.stats.intervals import wilson
from undertow.study.files import write_json
from undertow.study.layout import Layout
from undertow.study.records import Calibration, Half, Mistake, ShareOfRows


def calibrate(judge: Judge, name: str, half: Half = "all", confidence: float = 0.95) -> Calibration:
    """Measure a judge on a labelled set."""
    labelled = load_labelled(name, half)
    verdicts = judge_all(judge, [row for row, _ in labelled])
    return summarise_calibration(judge, name, half, labelled, verdicts, confidence)


def summarise_calibration(
    judge: Judge,
    name: str,
    half: Half,
    labelled: Sequence[Labelled],
    verdicts: Sequence[Verdict],
    confidence: float = 0.95,
) -> Calibration:
    """Rows without a verdict are counted and left out of every share."""
    pairs = [
        (human, verdict.shows_trait) for (_, human), verdict in zip(labelled, verdicts, strict=True)
    ]
    tp, fn, tn, fp = (
        pairs.count(pair) for pair in ((True, True), (True, False), (False, False), (False, True))
    )
    unscored: dict[str, int] = {}
    for verdict in verdicts:
        if verdict.reason is not None:
            unscored[verdict.reason] = unscored.get(verdict.reason, 0) + 1
    ids = [row.id for row, _ in labelled]
    votes: dict[str, list[bool | None]] = {
        "human": [human for human, _ in pairs],
        "judge": [said for _, said in pairs],
    }
    compared = agreement(votes, ids, confidence=confidence)
    return Calibration(
        set=name,
        set_sha256=labelled_set(name).source.sha256,
        half=half,
        trait=labelled_set(name).trait,
        judge=judge.name,
        judge_fingerprint=judge.fingerprint,
        rows=len(labelled),
        unscored=unscored,
        confidence=confidence,
        true_positive=tp,
        false_negative=fn,
        true_negative=tn,
        false_positive=fp,
        accuracy=_share(tp + tn, tp + tn + fp + fn, confidence),
        sensitivity=_share(tp, tp + fn, confidence),
        specificity=_share(tn, tn + fp, confidence),
        kappa=compared.pairs[0].kappa,
        mistakes=tuple(
            Mistake(id=id, human=human, judge=said)
            for id, (human, said) in zip(ids, pairs, strict=True)
            if said != human
        ),
    )


def calibration_path(layout: Layout, name: str, half: Half, judge: Judge) -> Path:
    return layout.results / "calibration" / f"{name}.{half}.{judge.fingerprint[:16]}.json"


def write_calibration(layout: Layout, judge: Judge, found: Calibration) -> Path:
    path = calibration_path(layout, found.set, found.half, judge)
    write_json(path, found)
    return path


def describe(found: Calibration) -> str:
    """A calibration in lines to print."""
    level = f"{found.confidence:.0%}"
    lines = [
        f"{found.judge} on {found.set} ({found.half}, {found.rows} rows, "
        f"{sum(found.unscored.values())} unscored)"
    ]
    for label, value in (
        ("accuracy", found.accuracy),
        ("sensitivity", found.sensitivity),
        ("specificity", found.specificity),
        ("kappa", found.kappa),
    ):
        if value.value is None or value.low is None or value.high is None:
            lines.append(f"  {label:<12} not defined on these rows")
        else:
            lines.append(
                f"  {label:<12} {value.value:.3f}  {level} {value.low:.3f}-{value.high:.3f}"
            )
    lines += [f"  unscored: {count} x {reason}" for reason, count in found.unscored.items()]
    return "\n".join(lines)


def _share(count: int, of: int, confidence: float) -> ShareOfRows:
    if of == 0:
        return ShareOfRows(value=None, low=None, high=None, count=0)
    low, high = wilson(count, of, confidence)
    return ShareOfRows(value=count / of, low=low, high=high, count=of)
