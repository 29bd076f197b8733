"""The report on the form of the dose-response curve: threshold, continuous, none or undecided."""

from undertow.analysis.doses import DoseRecord
from undertow.analysis.summary import Summary
from undertow.findings.doses import FORM_NAMES, X_NAMES, dose_sentence, x_scale
from undertow.findings.numbers import RATIO
from undertow.report.charts.rates import dose_figure
from undertow.report.page import Column, Items, Paragraph, Part, Section, Table
from undertow.stats.forms import FORMS

P_VALUE_DIGITS = 3


def dose_section(summary: Summary) -> Section:
    """A sentence per model and fit, the curves, and the numbers behind the verdicts."""
    parts: list[Part] = [
        Paragraph(
            "Does the student follow the strength smoothly, or does it rest up to a threshold? "
            "Four forms are fitted to the students' verdicts by maximum likelihood and compared "
            "by AICc. A verdict is about these strengths and this many students: undecided is "
            "not continuous."
        )
    ]
    if summary.doses:
        parts.append(Items(tuple(f"{d.model}: {dose_sentence(d)}" for d in summary.doses)))
    parts.append(dose_figure(summary))
    if any(dose.forms for dose in summary.doses):
        parts.append(_table(summary))
    return Section("dose", "Dose-response", tuple(parts))


def _table(summary: Summary) -> Table:
    words = ("Model", "Against", "Verdict")
    numbers = (
        "Threshold",
        "interval",
        *(FORM_NAMES[form].capitalize() for form in FORMS),
        "Dispersion",
        "Monotone, p",
        "Students",
    )
    return Table(
        "Dose-response fits. Under the names of the forms: AICc weights. The dispersion "
        "is the variance between seeds over the binomial one; a small p says that the "
        "rates turn back. A threshold is given only under the verdict threshold",
        (*(Column(word, numeric=False) for word in words), *map(Column, numbers)),
        [_row(dose) for dose in summary.doses],
        headers=2,
    )


def _row(dose: DoseRecord) -> tuple[str, ...]:
    weights = {form.form: RATIO.number(form.weight) for form in dose.forms}
    monotone = "" if dose.monotone is None else f"{dose.monotone:.{P_VALUE_DIGITS}f}"
    return (
        dose.model,
        X_NAMES[dose.x],
        dose.verdict,
        *_threshold(dose),
        *(weights.get(form, "") for form in FORMS),
        "" if dose.dispersion is None else RATIO.number(dose.dispersion),
        monotone,
        str(dose.students),
    )


def _threshold(dose: DoseRecord) -> tuple[str, str]:
    threshold = dose.stated_threshold
    if threshold is None:
        return "", ""
    scale = x_scale(dose.x)
    low, high = threshold.ends
    return scale.number(threshold.value), f"{scale.number(low)}, {scale.number(high)}"
