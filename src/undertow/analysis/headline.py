"""metrics.json: the few numbers of a study that `dvc metrics` and `dvc exp show` compare."""

from collections.abc import Mapping

from undertow.analysis.doses import DoseRecord
from undertow.analysis.lines import LineRecord
from undertow.analysis.summary import Summary
from undertow.study.records import ReadoutName


def headline(summary: Summary) -> dict[str, dict[str, dict[str, float | None]]]:
    """Model -> arm -> tau by rate and by margin, few enough for `dvc exp show`.

    The pooled tau stands in the place of an arm, and so does the threshold of a model whose
    verdict is `threshold`, what each recipe removes at its largest strength, and the mean step
    ratio of each chain of rounds at its own.
    """
    return {
        model: {
            arm.arm: {"tau": arm.rate.tau.value, "tau_margin": arm.margin.tau.value}
            for arm in view.changed
        }
        | _threshold(view.dose)
        | _pooled(view.lines)
        | _removed(summary, model)
        | _steps(summary, model)
        for model, view in summary.views.items()
    }


def _pooled(lines: Mapping[ReadoutName, LineRecord]) -> dict[str, dict[str, float | None]]:
    """All strengths together, in the place of an arm."""
    if not lines:
        return {}
    return {"pooled": {"tau": lines["rate"].tau.value, "tau_margin": lines["margin"].tau.value}}


def _removed(summary: Summary, model: str) -> dict[str, dict[str, float | None]]:
    """The name says what it is: a recipe may have that of an arm."""
    return {
        f"recipe {each.student}": {
            "removed": each.rate.removed[0].value,
            "removed_margin": each.margin.removed[0].value,
        }
        for each in sorted(summary.defences, key=lambda each: abs(float(each.strength or 0)))
        if each.model == model and each.strength is not None  # of several the last one stays
    }


def _steps(summary: Summary, model: str) -> dict[str, dict[str, float | None]]:
    return {
        f"rounds to {chain.students[-1]}": {
            "step_ratio": chain.rate_step.value,
            "step_ratio_margin": chain.margin_step.value,
        }
        for chain in sorted(summary.rounds, key=lambda chain: abs(float(chain.strength or 0)))
        if chain.model == model and chain.direction == "trait"
    }


def _threshold(dose: DoseRecord | None) -> dict[str, dict[str, float | None]]:
    threshold = dose.stated_threshold if dose else None
    return {"dose": {"threshold": threshold.value}} if threshold else {}
