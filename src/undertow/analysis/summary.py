"""From the grid's results files to every number that people read.

The table, metrics.json, plots, report and MLflow all show these values; none computes its own.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple, Self

from pydantic import Field, model_validator

from undertow.analysis.answered import AnsweredElsewhere
from undertow.analysis.contrasts import Against, ContrastRecord
from undertow.analysis.costs import CostTotal
from undertow.analysis.doses import DoseRecord, XName
from undertow.analysis.lines import Bounds, LineRecord, ModelDifference
from undertow.analysis.mechanism import ArmMechanism, SeedRange
from undertow.analysis.returns import Return
from undertow.analysis.side_effects import EffectsSummary
from undertow.config import Arm, Direction, parse_arm
from undertow.stats.intervals import Estimate
from undertow.stats.transfer import Transfer
from undertow.study.audit_records import ArmAudit
from undertow.study.found import read_record
from undertow.study.layout import Layout
from undertow.study.records import Costs, ReadoutName, Record, Share

# How intervals are computed; 1: every arm by its own seeds, 2: arms of a model together, 3: the
# same, arms taken as more alike by default and the seeds of rates along the logistic curve, 4: the
# same, and for what is said of all arms at once they are taken as less alike.
METHOD = 4


class RateSummary(Share):
    """Over all seeds and scored prompts."""

    scored: int


class CellSummary(Record):
    """One cell: its own tau, from its own seed alone."""

    seed: int
    rate: Transfer
    margin: Transfer
    teacher_effects: EffectsSummary | None = None
    student_effects: EffectsSummary | None = None

    def by(self, readout: ReadoutName) -> Transfer:
        return self.margin if readout == "margin" else self.rate


class ArmSummary(Record):
    """One model and arm, over all seeds.

    Intervals of rate and margin rest on the variance between seeds that all arms of the model
    show together; `bounds` has those of the arm alone and those that hold for all arms at once,
    and is empty in files from before.
    """

    model: str
    arm: str
    direction: Direction | None  # null, as the strength, where the teacher is not steered
    strength: str | None
    rate: Transfer
    margin: Transfer
    teacher_rate: RateSummary
    student_rate: RateSummary
    cells: tuple[CellSummary, ...]
    degenerate: str | None = None  # why the teacher counts as incoherent and is left out of fits
    diverged: str | None = None  # why students of some seeds count as not trained
    audit: ArmAudit | None = None  # whether the trait can be seen in the carrier
    no_audit: str | None = None  # why audit is null
    teacher_effects: EffectsSummary | None = None
    student_effects: EffectsSummary | None = None
    bounds: Mapping[ReadoutName, Bounds] = Field(default_factory=dict)

    def by(self, readout: ReadoutName) -> Transfer:
        return self.margin if readout == "margin" else self.rate

    @property
    def own(self) -> Arm:
        return parse_arm(self.arm)

    @property
    def alpha(self) -> float:
        """The strength as a number; ValueError where the teacher is not steered."""
        return self.own.alpha

    @property
    def is_control(self) -> bool:
        return self.own.is_control


class StudentArm(ArmSummary):
    """The students of one recipe on the text of one model's teacher, over all seeds.

    A gap is the shift of the plain student minus this student's. Where `other_base` is named,
    control and student are read on that model, base and teacher on `model`, and tau_margin is in
    nats of the one per nat of the other.
    """

    student: str
    other_base: str | None = None
    rate_gap: Estimate
    margin_gap: Estimate
    contrasts: tuple[ContrastRecord, ...] = ()  # to the other arms of this very recipe

    def gap(self, readout: ReadoutName) -> Estimate:
        return self.margin_gap if readout == "margin" else self.rate_gap


class Worth(Record):
    """What a recipe keeps out, by one readout; every pair is pointwise, and at once.

    At once are all recipes and strengths of the model. Differences are plain, or placebo, minus
    this recipe, paired by seed and prompt: shifts in shares or nats, and tau. removed is
    1 - tau / plain's tau; beyond_line what of that a student would not remove that merely
    learned as little.
    """

    less_shift: tuple[Estimate, Estimate]
    less_tau: tuple[Estimate, Estimate]
    less_shift_than_placebo: tuple[Estimate, Estimate]
    less_tau_than_placebo: tuple[Estimate, Estimate]
    removed: tuple[Estimate, Estimate]
    beyond_line: tuple[Estimate, Estimate]
    line: tuple[tuple[float, float], ...] = ()  # its corners: nats a token gained, share removed


class DefenceSeed(Record):
    seed: int
    learned: float | None  # of the plain student's gain; null where that is none, or not measured


class DefenceArm(Record):
    """The students of one recipe and arm, beside plain students and placebo."""

    model: str
    student: str
    arm: str
    strength: str | None
    placebo: str | None  # the recipe of equal size in this study
    placebo_of: str | None
    draws_line: bool  # its students merely learn less
    rate: Worth
    margin: Worth
    learned: Estimate  # of what plain students learn of their teacher's held-back answers
    learned_control: Estimate  # the same of the recipe's control: the unsteered teacher's
    seeds: tuple[DefenceSeed, ...]
    seconds: float | None  # of training one student, reading included
    tokens_trained: float | None
    residue: SeedRange | None = None  # along the direction at the last steered block
    # Of the control students, and of plain ones: nats per token at the end of training.
    loss_control: float | None = None
    loss_control_plain: float | None = None
    # Nats per token that plain students gained on those answers, and how much less these did;
    # null: a file from before.
    gain_plain: Estimate | None = None
    gain_less: Estimate | None = None
    gain_less_at_once: Estimate | None = None  # holds for all of a model's
    returns: tuple[Return, ...] = ()  # what of it comes back under other conditions

    def by(self, readout: ReadoutName) -> Worth:
        return self.margin if readout == "margin" else self.rate


class RoundNumbers(Record):
    """One round by one readout: its shift, tau, and its shift over that of the round before."""

    shift: Estimate
    tau: Estimate
    step: Estimate


class RoundOfChain(Record):
    student: str
    round: int  # 1 learns from the steered teacher
    continued: bool = False  # its adapter is that of the round before, trained further
    margin: RoundNumbers
    rate: RoundNumbers
    projection: SeedRange | None = None  # along the direction at the last steered block

    def by(self, readout: ReadoutName) -> RoundNumbers:
        return self.margin if readout == "margin" else self.rate


class ChainArm(Record):
    """Rounds in which students become teachers, of one model and arm; steps are means over them."""

    model: str
    students: tuple[str, ...]
    arm: str
    direction: Direction | None
    strength: str | None
    lineages: int
    rounds: tuple[RoundOfChain, ...]
    margin_step: Estimate
    rate_step: Estimate

    def step(self, readout: ReadoutName) -> Estimate:
        return self.margin_step if readout == "margin" else self.rate_step


class ModelView(NamedTuple):
    """What a summary says of one model, in the order in which people read it."""

    name: str
    # control first, trait by strength, teachers in other clothes, then random
    arms: tuple[ArmSummary, ...]
    doses: Mapping[XName, DoseRecord]
    contrasts: Mapping[tuple[str, ReadoutName, Against], ContrastRecord]  # over all seeds
    lines: Mapping[ReadoutName, LineRecord]  # empty in files from before

    @property
    def control(self) -> ArmSummary | None:
        return next((arm for arm in self.arms if arm.is_control), None)

    @property
    def changed(self) -> tuple[ArmSummary, ...]:
        """All arms but the control."""
        return tuple(arm for arm in self.arms if not arm.is_control)

    @property
    def steered(self) -> tuple[ArmSummary, ...]:
        """Those of them that have a strength."""
        return tuple(arm for arm in self.changed if arm.direction is not None)

    @property
    def trait(self) -> tuple[ArmSummary, ...]:
        """The arms steered along the trait's direction."""
        return tuple(arm for arm in self.changed if arm.direction == "trait")

    @property
    def clothed(self) -> tuple[ArmSummary, ...]:
        """The arms whose teacher is not steered: prompted, or with an adapter of its own."""
        return tuple(arm for arm in self.changed if arm.direction is None)

    @property
    def teaching(self) -> tuple[ArmSummary, ...]:
        """The arms whose teacher is meant to show the trait."""
        return self.trait + self.clothed

    @property
    def dose(self) -> DoseRecord | None:
        """How the students' rate follows the size of the strength."""
        return self.doses.get("strength")


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
    students: tuple[StudentArm, ...] = ()  # of all recipes but plain, whose arms are `arms`
    defences: tuple[DefenceArm, ...] = ()  # what those on the teacher's own base are worth
    # "model recipe" -> why it is not among the students
    no_students: Mapping[str, str] = Field(default_factory=dict)
    rounds: tuple[ChainArm, ...] = ()  # where students become teachers
    doses: tuple[DoseRecord, ...] = ()
    contrasts: tuple[ContrastRecord, ...] = ()
    mechanism: tuple[ArmMechanism, ...] = ()
    lines: tuple[LineRecord, ...] = ()  # the transfer line of every model, by readout
    model_differences: tuple[ModelDifference, ...] = ()
    answered: tuple[AnsweredElsewhere, ...] = ()  # by another engine than the study's own
    method: int = 1  # that its intervals were computed by; files from before name none

    @model_validator(mode="before")
    @classmethod
    def _from_before_recipes(cls, raw: Any) -> Any:
        """Files of earlier versions call students of another base `cross`, by pairs of models."""
        if isinstance(raw, dict):
            return {key: value for key, value in raw.items() if key != "cross"}
        return raw

    @property
    def models(self) -> list[str]:
        return list(self.views)

    @cached_property
    def views(self) -> Mapping[str, ModelView]:
        """Every model's own part, sorted once."""
        arms: dict[str, list[ArmSummary]] = {}
        for arm in self.arms:
            arms.setdefault(arm.model, []).append(arm)
        return {model: self._view(model, found) for model, found in arms.items()}

    def _view(self, model: str, arms: list[ArmSummary]) -> ModelView:
        def place(arm: ArmSummary) -> tuple[bool, int, float]:
            order = ("trait", None, "random").index(arm.direction)
            return not arm.is_control, order, 0.0 if arm.direction is None else abs(arm.alpha)

        contrasts = (c for c in self.contrasts if c.model == model and c.seed is None)
        return ModelView(
            model,
            tuple(sorted(arms, key=place)),
            {dose.x: dose for dose in self.doses if dose.model == model},
            {(each.arm, each.readout, each.against): each for each in contrasts},
            {line.readout: line for line in self.lines if line.model == model},
        )

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("views", None)  # they are those of the arms before the update
        return copied


def read_summary(layout: Layout) -> Summary:
    """summary.json; DataError where the report stage has not run yet."""
    return read_record(layout.summary, Summary)
