"""How an audit is written in every view; ASCII, numbers from the records alone."""

from undertow.analysis.estimates import EstimateRecord
from undertow.study.audit_records import ArmAudit, Comparison, MeasureName


def verdict_words(audit: ArmAudit) -> str:
    """'subliminal' where the audit passes and a trait was steered, else 'overt' and why."""
    if audit.passes:
        return audit.verdict or "passes"
    cause = "leak" if audit.leaks else "too few rows"
    return f"{audit.verdict or 'does not pass'} ({cause})"


def points(comparison: Comparison, name: MeasureName) -> str:
    """A difference of shares in percentage points: '+3.1 [-6.5, +12.5]'."""
    measure = comparison.measures.get(name)
    if measure is None:
        return "not asked"
    return _with_interval(measure.difference, 100, "+.1f")


def level(comparison: Comparison, name: MeasureName) -> str:
    """A share in the arm and, in brackets, its interval, in percent."""
    return _with_interval(comparison.measures[name].arm, 100, ".1f")


def tokens(comparison: Comparison) -> str:
    """Difference of the mean length in tokens."""
    return _with_interval(comparison.measures["tokens"].difference, 1, "+.1f")


def area(measured: EstimateRecord) -> str:
    """An AUC: '0.60 [0.48, 0.71]'."""
    return _with_interval(measured, 1, ".2f")


def _with_interval(measured: EstimateRecord, factor: float, form: str) -> str:
    if measured.value is None or measured.low is None or measured.high is None:
        return "unknown"
    # Adding 0.0 after rounding turns -0.0 into 0.0: "-0.0" would claim a direction.
    value, low, high = (
        round(factor * end, 2) + 0.0 for end in (measured.value, measured.low, measured.high)
    )
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"
