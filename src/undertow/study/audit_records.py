"""results/audit/<model>.json: what an audit has found, in numbers alone; it holds no model text."""

from typing import Any, Literal

from pydantic import Field, model_validator

from undertow.config import AuditSettings
from undertow.stats.intervals import Estimate
from undertow.stats.paired import Compared
from undertow.study.records import Record

MeasureName = Literal[
    "trait",
    "judge",
    "phrases",
    "new_phrases",
    "counter_phrases",
    "strong",
    "refusals",
    "tokens",
    "repetition",
    "truncated",
    "overlap",
]
Reference = Literal["control", "control, another seed", "control, the other half"]
CarrierVerdict = Literal["subliminal", "overt", "too few rows"]


class CarrierMeasures(Record):
    """All measures of a carrier against its reference."""

    prompts: int = Field(description="prompts that both carriers answer")
    rows: int = Field(description="pairs of answers, over all seeds")
    measures: dict[MeasureName, Compared]
    words_auc: Estimate = Field(description="bag of words; 0.5 is chance")
    format_auc: Estimate = Field(description="length and format without any word; 0.5 is chance")


class SeedAudit(Record):
    """One carrier: one seed of an arm."""

    seed: int
    reference_seed: int
    kept: int = Field(description="rows that the student is trained on")
    answers: int | None = Field(None, description="rows of the whole carrier file")
    rejected: int = Field(0, description="rows whose answer is not of the carrier's form")
    removed: int = Field(description="rows that the filter took away as showing the trait")
    carrier: str = Field(description="SHA-256 of the whole carrier file")
    reference_carrier: str
    comparison: CarrierMeasures


class ArmAudit(Record):
    """One arm over its seeds: the pooled measures and what follows from them."""

    arm: str
    direction: Literal["trait", "random"] | None = Field(
        description="null, as the strength, where the teacher is not steered"
    )
    strength: str | None
    reference: Reference
    verdict: CarrierVerdict | None = Field(
        description="overt: there is evidence of the trait; too few rows: none, but these rows "
        "could not exclude it; null for control and random directions, which carry no trait"
    )
    passes: bool
    leaks: tuple[str, ...] = Field(description="evidence that the carrier shows the trait")
    gaps: tuple[str, ...] = Field(description="what these rows are too few to exclude")
    pooled: CarrierMeasures
    seeds: tuple[SeedAudit, ...]

    @model_validator(mode="before")
    @classmethod
    def _from_before_doubts_had_a_word(cls, raw: Any) -> Any:
        """Files of earlier versions say overt also where there is no evidence."""
        if isinstance(raw, dict) and raw.get("verdict") == "overt" and not raw.get("leaks"):
            return raw | {"verdict": "too few rows"}
        return raw

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the audit does not pass; empty where it does."""
        return () if self.passes else self.leaks + self.gaps


class ModelAudit(Record):
    """The carriers of one model."""

    model: str
    trait: str
    trait_judge: str = Field(description="fingerprint of the trait's offline judge")
    judge: str | None = Field(description="the configured judge where it was asked as well")
    judge_reason: str | None = Field(description="why the configured judge was not asked")
    filter: Literal["none", "phrases", "judge"]
    keep: int | None
    bounds: AuditSettings
    arms: tuple[ArmAudit, ...]
