"""From the grid's results files to every number that people read.

The table, metrics.json, plots, report and MLflow all show these values; none computes its own.
"""

from typing import Literal

from undertow.analysis.contrasts import Against, ContrastRecord
from undertow.analysis.costs import CostTotal
from undertow.analysis.doses import DoseRecord, XName
from undertow.analysis.mechanism import ArmMechanism
from undertow.analysis.side_effects import EffectsSummary
from undertow.errors import DataError
from undertow.stats.intervals import Estimate
from undertow.study.audit_records import ArmAudit
from undertow.study.layout import Layout
from undertow.study.records import Costs, ReadoutName, Record


class TransferRecord(Record):
    """transfer.Transfer as a record; rates are shares, margins are nats."""

    base: float | None
    teacher: float | None
    control: float | None
    student: float | None
    teacher_shift: Estimate
    student_shift: Estimate
    naive_shift: Estimate
    tau: Estimate
    tau_naive: Estimate
    prompts: int
    seeds: int
    dropped: int


class RateRecord(Record):
    """A share with its Wilson interval, over all seeds and scored prompts."""

    value: float | None
    low: float | None
    high: float | None
    scored: int


class CellSummary(Record):
    """One cell: its own tau, from its own seed alone."""

    seed: int
    rate: TransferRecord
    margin: TransferRecord
    teacher_effects: EffectsSummary | None = None
    student_effects: EffectsSummary | None = None


class ArmSummary(Record):
    """One model and arm, over all seeds."""

    model: str
    arm: str
    direction: Literal["trait", "random"]
    strength: str
    rate: TransferRecord
    margin: TransferRecord
    teacher_rate: RateRecord
    student_rate: RateRecord
    cells: tuple[CellSummary, ...]
    degenerate: str | None = None  # why the teacher counts as incoherent and is left out of fits
    audit: ArmAudit | None = None  # whether the trait can be seen in the carrier
    no_audit: str | None = None  # why audit is null
    teacher_effects: EffectsSummary | None = None
    student_effects: EffectsSummary | None = None

    @property
    def alpha(self) -> float:
        return float(self.strength)

    @property
    def is_control(self) -> bool:
        return self.alpha == 0


class CrossArm(ArmSummary):
    """A student of `model` on the text of another base's teacher, over all seeds.

    Base and teacher are read on `teacher_model`, control and student on `model`; tau_margin is
    therefore in nats of the one per nat of the other. A gap is the shift of teacher_model's own
    student minus this student's.
    """

    teacher_model: str
    rate_gap: Estimate
    margin_gap: Estimate
    contrasts: tuple[ContrastRecord, ...] = ()  # to the other arms of this very pair


class Summary(Record):
    """summary.json: one study."""

    trait: str
    rate_name: str
    judge: str
    confidence: float
    resamples: int
    arms: tuple[ArmSummary, ...]
    costs: dict[str, dict[str, Costs]]  # cell key -> stage -> costs
    cost_totals: tuple[CostTotal, ...]  # by model and stage, and of the whole study
    unscored: dict[str, int]
    cross: tuple[CrossArm, ...] = ()  # students of another base than their teacher's
    doses: tuple[DoseRecord, ...] = ()
    contrasts: tuple[ContrastRecord, ...] = ()
    mechanism: tuple[ArmMechanism, ...] = ()

    def dose_of(self, model: str, x: XName = "strength") -> DoseRecord | None:
        return next((dose for dose in self.doses if (dose.model, dose.x) == (model, x)), None)

    def of_model(self, model: str) -> list[ArmSummary]:
        """Arms of one model: control first, trait by strength, then random."""
        arms = [arm for arm in self.arms if arm.model == model]
        return sorted(arms, key=lambda a: (not a.is_control, a.direction == "random", abs(a.alpha)))

    def contrast(
        self, arm: ArmSummary, readout: ReadoutName, against: Against
    ) -> ContrastRecord | None:
        """An arm's contrast over all seeds; None where nothing of the kind was run."""
        wanted = (arm.model, arm.arm, None, readout, against)
        return next(
            (c for c in self.contrasts if (c.model, c.arm, c.seed, c.readout, c.against) == wanted),
            None,
        )

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(arm.model for arm in self.arms))


def headline(summary: Summary) -> dict[str, dict[str, dict[str, float | None]]]:
    """metrics.json: model -> arm -> tau by rate and by margin, few enough for `dvc exp show`.

    A model whose verdict is `threshold` has its threshold too, in the place of an arm.
    """
    return {
        model: {
            arm.arm: {"tau": arm.rate.tau.value, "tau_margin": arm.margin.tau.value}
            for arm in summary.of_model(model)
            if not arm.is_control
        }
        | _threshold(summary.dose_of(model))
        for model in summary.models
    }


def _threshold(dose: DoseRecord | None) -> dict[str, dict[str, float | None]]:
    threshold = dose.stated_threshold if dose else None
    return {"dose": {"threshold": threshold.value}} if threshold else {}


def read_summary(layout: Layout) -> Summary:
    """summary.json; DataError where the report stage has not run yet."""
    if not layout.summary.exists():
        raise DataError(f"{layout.summary} does not exist", "dvc repro, or: python cli.py report")
    return Summary.model_validate_json(layout.summary.read_text(encoding="utf-8"))
