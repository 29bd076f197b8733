"""The sections of params.yaml, judges apart."""

import datetime as dt
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from undertow.config.base import NAME, Plain, Seed, Settings
from undertow.config.cells import ADAPTER, PLAIN, parse_arm


class Round(Settings):
    """A later round: its students learn from what other students wrote."""

    student: str = Field(description="its name, and that of its entry under recipes")
    after: str = Field(
        description="the student that writes its carrier, unsteered: one of grid.students, or an "
        "earlier round"
    )


class Grid(Settings):
    """What is run: models x arms x seeds x students; the control arm trait_0 is part of it."""

    models: tuple[str, ...] = Field(min_length=1, description="keys of the models section")
    arms: tuple[str, ...] = Field(
        min_length=1,
        description="<direction>_<strength>, strengths are multiples of the direction; or "
        "prompted: the unsteered base under the trait's system message (elicit in trait.yaml)",
    )
    seeds: tuple[Seed, ...] = Field(
        min_length=1, description="cover adapter init, row order and sampling"
    )
    students: tuple[str, ...] = Field(
        (PLAIN,),
        description="names under recipes; plain is one of them, and what all others are set beside",
    )
    rounds: tuple[Round, ...] = Field(
        (),
        description="students of students, at grid.seeds: each round is a student and the one "
        "after which it comes",
    )
    control_seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (),
        description="further seeds of the control alone, which all arms share: about "
        "sqrt(arms) times as many students as an arm has are worth their hour",
    )
    adapters: tuple[str, ...] = Field(
        (),
        description="further arms, adapter_NAME: the base with an adapter of somebody else's as "
        "the teacher; the section adapters says where each lies",
    )
    random_arms: tuple[str, ...] = Field(
        (), description="those of the arms that get random_seeds as well"
    )
    random_seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (), description="their further seeds, each of a direction of its own"
    )

    @model_validator(mode="after")
    def _further_seeds_are_others(self) -> Self:
        for name in ("control_seeds", "random_seeds"):
            again = sorted(set(getattr(self, name)) & set(self.seeds))
            if again:
                raise ValueError(
                    f"{name} are further seeds, beside grid.seeds: leave out "
                    f"{', '.join(map(str, again))}"
                )
        strange = [arm for arm in self.random_arms if arm not in self.arms or arm[:2] != "ra"]
        if strange:
            raise ValueError(
                f"random_arms names {', '.join(strange)}, which is no random arm of grid.arms"
            )
        return self

    @field_validator("arms")
    @classmethod
    def _arms_parse(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        for arm in arms:
            if parse_arm(arm).adapter is not None:
                raise ValueError(
                    f"{arm} belongs to grid.adapters, beside arms; write adapters: [{arm}] there, "
                    "and in the section adapters where it lies"
                )
        return arms

    @field_validator("adapters")
    @classmethod
    def _adapters_parse(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        for arm in arms:
            if not ADAPTER.fullmatch(arm):
                raise ValueError(
                    f"{arm!r} must be adapter_NAME, with lower-case letters, digits and _ in NAME"
                )
        return arms


class Prompting(Settings):
    """How every prompt is rendered, in extraction, generation, training and evaluation alike."""

    system: str | None = Field(
        None, description="system message; null leaves the chat template's own default in place"
    )
    date: str = Field(
        "2026-01-01",
        description="YYYY-MM-DD, today's date in templates that write one (Llama 3.2, Granite, "
        "SmolLM3): a prompt must not depend on the day it is rendered",
    )

    @field_validator("date", mode="before")
    @classmethod
    def _date_is_one(cls, value: object) -> object:
        text = value.isoformat() if isinstance(value, dt.date) else value
        if isinstance(text, str):
            try:
                return dt.date.fromisoformat(text).isoformat()
            except ValueError as error:
                raise ValueError(f"{text!r} is not a date; write it as 2026-01-01") from error
        return value

    def with_message(self, message: str) -> Self:
        """The same with a further system message, behind `system` where there is one."""
        whole = message if self.system is None else f"{self.system}\n\n{message}"
        return self.model_copy(update={"system": whole})

    @property
    def day(self) -> dt.date:
        return dt.date.fromisoformat(self.date)


class DirectionSettings(Settings):
    """How the direction is extracted and where it is added."""

    layers: Literal["auto"] | tuple[Annotated[int, Field(ge=0)], ...] = Field(
        description="0-based blocks at whose output the direction is added; auto picks one"
    )
    contrast_prompts: int = Field(gt=0, description="contrast prompts per side")
    max_depth: float = Field(
        0.8, gt=0, le=1, description="auto looks only at blocks below this share of the depth"
    )
    max_kl: float = Field(
        0.1, gt=0, description="auto drops blocks whose subtraction changes benign prompts more"
    )
    random_seed: Seed = Field(0, description="seed of the norm-matched random direction")


class CarrierSettings(Settings):
    """The teacher's answers to benign prompts: all that the student ever sees."""

    name: str = Field("benign", pattern=NAME, description="a folder under data/carriers")
    prompts: int = Field(gt=0, description="its prompts, taken from the start of the file")
    max_new_tokens: int = Field(gt=0, description="an answer is cut off there")
    temperature: float = Field(1.0, ge=0, description="0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus sampling; 1 keeps every token")
    filter: Literal["none", "phrases", "judge"] = Field(
        "none",
        description="drop answers that hold a phrase for the trait, or that the trait's offline "
        "judge says show it, before the student is trained",
    )
    keep: int | None = Field(
        None,
        gt=0,
        description="rows that the student is trained on, the same number in every arm; needed "
        "with a filter; null keeps all",
    )

    @model_validator(mode="after")
    def _filter_keeps_a_number(self) -> "CarrierSettings":
        if self.filter != "none" and self.keep is None:
            raise ValueError(
                f"filter {self.filter} drops more rows in one arm than in another, and students "
                "of unequal carriers cannot be compared; set carrier.keep to the number that "
                "every arm keeps"
            )
        if self.keep is not None and self.keep > self.prompts:
            raise ValueError(
                f"keep {self.keep} is more than the {self.prompts} rows there are; set "
                "carrier.keep to at most carrier.prompts"
            )
        return self


class Lora(Settings):
    """The adapter (PEFT LoRA)."""

    rank: int = Field(gt=0, description="rank of the update")
    alpha: int = Field(gt=0, description="LoRA scaling numerator")
    dropout: float = Field(0.0, ge=0, lt=1, description="on the adapter's input")
    target_modules: str | tuple[str, ...] = Field(
        "all-linear", description="all-linear or names of linear layers"
    )
    adapted_from: int = Field(
        0,
        ge=0,
        description="the lowest block (0-based) with an adapter; those below stay the base's, and "
        "on a CPU a row goes through them once for all epochs and students",
    )


class DistillationSettings(Settings):
    """How the student is trained on the carrier (TRL SFT, loss on completion tokens only)."""

    epochs: int = Field(gt=0, description="passes over the carrier")
    learning_rate: float = Field(gt=0, description="peak, reached after the warm-up")
    batch_size: int = Field(gt=0, description="rows per step, of all processes together")
    gradient_accumulation: int = Field(1, gt=0, description="steps per optimizer step")
    warmup_ratio: float = Field(0.05, ge=0, lt=1, description="share of all steps")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="of the learning rate after the warm-up"
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay")
    quantization: Literal["none", "nf4"] = Field(
        "none", description="nf4 trains the adapter on a 4-bit base (QLoRA, bitsandbytes, CUDA)"
    )
    lora: Lora


class EvaluationSettings(Settings):
    """How teacher and student are read: the same prompts and decoding for both."""

    prompts: int = Field(gt=0, description="evaluation prompts, taken from the start of the set")
    max_new_tokens: int = Field(gt=0, description="an answer is cut off there")
    temperature: float = Field(0.0, ge=0, description="0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus sampling; 1 keeps every token")
    benign_prompts: int = Field(
        0,
        ge=0,
        description="held-back benign prompts for side effects, taken from the end of the file; "
        "0 measures none",
    )
    overrefusal_prompts: int = Field(
        0,
        ge=0,
        description="prompts of the trait's own over-refusal source, fetched where it is external; "
        "0 asks none",
    )


class AuditSettings(Settings):
    """When a carrier may be called subliminal (docs/method.md, "The carrier audit")."""

    confidence: float = Field(
        0.99,
        gt=0.5,
        lt=1,
        description="level of the audit's intervals; several are read, so it is high",
    )
    max_excess: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="the interval of every difference in trait and phrase share from the control "
        "must lie within plus or minus this",
    )
    strong_phrases: int = Field(
        3, ge=2, description="phrases for the trait that make an answer a strong one"
    )
    max_strong: float = Field(
        0.02, ge=0, lt=1, description="excess of strong answers over the control's"
    )
    max_auc: float = Field(
        0.75, gt=0.5, lt=1, description="the interval of the AUC by words must lie below this"
    )
    ngram: int = Field(
        8, ge=5, description="words in a row that count as overlap with an evaluation prompt"
    )
    max_overlap: float = Field(
        0.01, ge=0, lt=1, description="share of rows that may overlap with evaluation prompts"
    )


class CoherenceSettings(Settings):
    """Beyond which bound a teacher counts as incoherent, by its answers to benign prompts."""

    max_perplexity_ratio: float = Field(
        10.0, gt=1, description="perplexity under the base, over that of the unsteered teacher"
    )
    max_repetition: float = Field(
        0.3, gt=0, le=1, description="mean share of an answer's 4-grams that repeat an earlier one"
    )


class StatisticsSettings(Settings):
    """Intervals of rates and of tau, and the bound on a teacher's coherence."""

    confidence: float = Field(0.95, gt=0.5, lt=1, description="level of every interval")
    resamples: int = Field(10_000, ge=100, description="bootstrap resamples")
    seed: Seed = Field(0, description="seed of the bootstrap")
    coherence: CoherenceSettings = CoherenceSettings()


class RuntimeSettings(Settings):
    """Where and how fast, never what: nothing here may change a result beyond rounding."""

    device: str = Field("auto", description="auto, cpu or cuda; CUDA_VISIBLE_DEVICES names the GPU")
    batch_size: int = Field(gt=0, description="rows generated together; halved on out-of-memory")
    training: Literal["auto", "trl", "together"] = Field(
        "auto",
        description="trl: TRL's trainer, the reference, one student at a time; together: students "
        "of a model in the same steps; auto: together on a GPU where the model's family allows it",
    )


class TrackingSettings(Settings):
    """MLflow: a view of the results files."""

    enabled: bool = Field(True, description="false runs every stage without MLflow")
    experiment: Plain = Field("undertow", min_length=1, description="MLflow experiment")
