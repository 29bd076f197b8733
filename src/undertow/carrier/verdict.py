"""When a carrier may be called subliminal.

A leak is evidence that the trait can be seen in the carrier. A gap is a doubt that these rows are
too few to remove. The audit passes where there is neither. docs/method.md argues for each rule.
"""

from typing import NamedTuple

from undertow.config import AuditSettings
from undertow.stats.intervals import Estimate
from undertow.stats.paired import Compared
from undertow.study.audit_records import CarrierMeasures, MeasureName
from undertow.texts.numbers import AREA, PERCENT, POINTS

# Shares whose difference from the reference decides, in either direction: a direction may be
# taken with either sign, and fewer of a trait's phrases than before are a trace of it too.
DECIDING: tuple[MeasureName, ...] = (
    "trait",
    "judge",
    "phrases",
    "new_phrases",
    "counter_phrases",
)
TITLES: dict[MeasureName, str] = {
    "trait": "answers that show the trait",
    "judge": "answers that show the trait by the configured judge",
    "phrases": "answers with a phrase for the trait",
    "new_phrases": "answers with a phrase for the trait that the other carrier never has",
    "counter_phrases": "answers with a phrase against the trait",
    "strong": "answers with several phrases for the trait",
    "overlap": "rows that share words with an evaluation prompt",
}


class Checks(NamedTuple):
    leaks: tuple[str, ...]
    gaps: tuple[str, ...]


def check(found: CarrierMeasures, bounds: AuditSettings) -> Checks:
    """The evidence and the doubts of one comparison, as sentences without a full stop."""
    leaks: list[str] = []
    gaps: list[str] = []
    for name in DECIDING:
        if name in found.measures:
            _difference(name, found.measures[name], bounds, leaks, gaps)
    strong = found.measures["strong"]
    if _strong(strong, found.rows, bounds):
        leaks.append(_differs("strong", strong))
    overlap = found.measures["overlap"].arm
    if overlap.value is not None and overlap.value > bounds.max_overlap:
        leaks.append(
            f"{TITLES['overlap']}: {_percent(overlap.value)}, more than "
            f"audit.max_overlap = {_percent(bounds.max_overlap)}"
        )
    _separability(found.words_auc, bounds, leaks, gaps)
    return Checks(tuple(leaks), tuple(gaps))


def _difference(
    name: MeasureName, measure: Compared, bounds: AuditSettings, leaks: list[str], gaps: list[str]
) -> None:
    difference = measure.difference
    if difference.low is None or difference.high is None:
        gaps.append(f"{TITLES[name]}: {difference.reason}")
    elif difference.low > 0 or difference.high < 0:
        leaks.append(_differs(name, measure))
    # New phrases are a part of all phrases, whose interval already bounds them.
    elif name != "new_phrases" and max(difference.high, -difference.low) > bounds.max_excess:
        gaps.append(
            f"{TITLES[name]}: the difference {_points(difference)} may be more than "
            f"audit.max_excess = {_percent(bounds.max_excess)}"
        )


def _strong(measure: Compared, rows: int, bounds: AuditSettings) -> bool:
    """A count, not a test: among 64 rows no test can see two, but chance hardly makes two."""
    difference = measure.difference
    if difference.value is None or difference.low is None:
        return False
    several = round(difference.value * rows) >= 2
    return (several and difference.value > bounds.max_strong) or difference.low > 0


def _separability(auc: Estimate, bounds: AuditSettings, leaks: list[str], gaps: list[str]) -> None:
    if auc.low is None or auc.high is None:
        gaps.append(f"AUC by words: {auc.reason}")
    elif auc.high > bounds.max_auc:
        text = f"AUC by words {AREA.written(auc)}"
        if auc.low > bounds.max_auc:
            leaks.append(f"{text} lies above audit.max_auc = {bounds.max_auc:g}")
        else:
            gaps.append(f"{text} reaches above audit.max_auc = {bounds.max_auc:g}")


def _differs(name: MeasureName, measure: Compared) -> str:
    return (
        f"{TITLES[name]}: {_percent(measure.arm.value)} against "
        f"{_percent(measure.reference.value)}, {_points(measure.difference)}"
    )


def _percent(value: float | None) -> str:
    return f"{PERCENT.number(value)} %"


def _points(difference: Estimate) -> str:
    return POINTS.written(difference, signed=True)
