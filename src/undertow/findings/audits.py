"""How an audit is written in every view; ASCII, numbers from the records alone."""

from collections.abc import Sequence

from undertow.analysis.summary import ArmSummary, Summary
from undertow.findings.arms import random_twin
from undertow.findings.numbers import arm_title
from undertow.stats.intervals import Estimate
from undertow.study.audit_records import ArmAudit, CarrierMeasures, MeasureName
from undertow.texts.numbers import AREA, PERCENT, POINTS, Scale

TOKENS = Scale("", 1, 1)


def verdict_words(audit: ArmAudit) -> str:
    """'subliminal', 'overt' or 'too few rows'; where no trait was steered, 'passes' or not."""
    if audit.verdict is not None:
        return audit.verdict
    if audit.passes:
        return "passes"
    return "differs" if audit.leaks else "too few rows"


def points(comparison: CarrierMeasures, name: MeasureName) -> str:
    """A difference of shares in percentage points: '+3.1 [-6.5, +12.5]'."""
    measure = comparison.measures.get(name)
    return "not asked" if measure is None else POINTS.bare.written(measure.difference, signed=True)


def level(comparison: CarrierMeasures, name: MeasureName) -> str:
    """A share in the arm and, in brackets, its interval, in percent."""
    return PERCENT.bare.written(comparison.measures[name].arm)


def tokens(comparison: CarrierMeasures) -> str:
    """Difference of the mean length in tokens."""
    return TOKENS.written(comparison.measures["tokens"].difference, signed=True)


def area(measured: Estimate) -> str:
    """An AUC: '0.60 [0.48, 0.71]'."""
    return AREA.written(measured)


def yielded(audit: ArmAudit) -> str:
    """Percent of an arm's answers that are of the carrier's form."""
    answers = sum(seed.answers or 0 for seed in audit.seeds)
    if not answers:
        return "unknown"
    return f"{100 * (1 - sum(seed.rejected for seed in audit.seeds) / answers):.0f}"


def audit_sentence(summary: Summary, model: str) -> str:
    """One sentence: which arms are subliminal, and what the random control does."""
    view = summary.views[model]
    missing = [arm for arm in view.teaching if arm.audit is None]
    if missing:
        return f"Carrier audit: unknown, because {missing[0].no_audit}."
    if not view.teaching:
        return "Carrier audit: no trait arm was run."
    said = [f"{arm_title(arm)} {_verdict(arm)}" for arm in view.teaching]
    return f"Carrier audit: {', '.join(said)}{_random(view.arms, view.trait)}."


def _verdict(arm: ArmSummary) -> str:
    return verdict_words(arm.audit) if arm.audit is not None else "unknown"


def _random(arms: Sequence[ArmSummary], trait: Sequence[ArmSummary]) -> str:
    """The AUC by words at the largest strength that has a random twin."""
    for arm in sorted(trait, key=lambda a: -abs(a.alpha)):
        twin = random_twin(arms, arm)
        if twin is not None and twin.audit is not None and arm.audit is not None:
            return (
                f"; AUC by words at strength {arm.strength} {area(arm.audit.pooled.words_auc)}, "
                f"of the random control {area(twin.audit.pooled.words_auc)}"
            )
    return ""
