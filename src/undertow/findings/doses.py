"""What a dose-response verdict allows to be said. Words come from the verdict alone."""

from undertow.analysis.doses import DoseRecord, XName
from undertow.findings.numbers import PERCENT, Scale
from undertow.stats.dose import DoseVerdict
from undertow.stats.forms import Form

STRENGTH = Scale("", 1, 3)
X_NAMES: dict[XName, str] = {
    "strength": "size of the strength",
    "teacher rate": "teacher's rate, %",
}
FORM_NAMES: dict[Form, str] = {
    "none": "constant",
    "linear": "line",
    "hinge": "hinge",
    "logistic": "logistic curve",
}
SENTENCES: dict[DoseVerdict, str] = {
    "threshold": "threshold: the student's rate rests up to a start and moves beyond it",
    "continuous": "continuous: a smooth curve is enough, no threshold is needed (which does not "
    "show that there is none)",
    "none": "none: no dependence of the student's rate is supported",
    "undecided": "undecided: the data do not tell a threshold from a smooth curve",
}


def dose_sentence(dose: DoseRecord) -> str:
    """One line per model: the verdict, why, and the threshold where the verdict is one."""
    text = f"Dose-response by {dose.x}: {SENTENCES[dose.verdict]}; {dose.reason}."
    threshold = stated_threshold(dose)
    text += f" Threshold at {threshold}." if threshold else ""
    if dose.left_out:
        text += f" Left out: {'; '.join(f'{e.arm} ({e.reason})' for e in dose.left_out)}."
    return text


def stated_threshold(dose: DoseRecord) -> str:
    """'0.151 [0.140, 0.163]' where the verdict is a threshold, else nothing."""
    threshold = dose.stated_threshold
    return "" if threshold is None else x_scale(dose.x).written(threshold)


def x_scale(x: XName) -> Scale:
    return STRENGTH if x == "strength" else PERCENT
