"""All of params.yaml as one value."""

from typing import Annotated

from pydantic import Field

from undertow.config.base import NAME, Settings
from undertow.config.cells import Arm, Cell, parse_arm
from undertow.config.judges import JudgingSettings
from undertow.config.sections import (
    AuditSettings,
    CarrierSettings,
    CrossSettings,
    DirectionSettings,
    DistillationSettings,
    EvaluationSettings,
    Grid,
    Prompting,
    RuntimeSettings,
    StatisticsSettings,
    TrackingSettings,
)
from undertow.config.weights import ModelSpec
from undertow.errors import ConfigError


class Params(Settings):
    """All of params.yaml."""

    trait: str = Field(pattern=NAME, description="a folder under data/traits")
    grid: Grid
    cross: CrossSettings = CrossSettings()
    models: dict[Annotated[str, Field(pattern=NAME)], ModelSpec] = Field(min_length=1)
    prompting: Prompting
    direction: DirectionSettings
    carrier: CarrierSettings
    distillation: DistillationSettings
    evaluation: EvaluationSettings
    judging: JudgingSettings
    audit: AuditSettings = AuditSettings()
    statistics: StatisticsSettings
    runtime: RuntimeSettings
    tracking: TrackingSettings

    @property
    def arms(self) -> tuple[Arm, ...]:
        return tuple(parse_arm(arm) for arm in self.grid.arms)

    @property
    def control(self) -> Arm:
        return next(arm for arm in self.arms if arm.is_control)

    def seeds_of(self, arm: Arm) -> tuple[int, ...]:
        """grid.seeds, and the further ones of the control and of grid.random_arms."""
        if arm.is_control:
            return self.grid.seeds + self.grid.control_seeds
        return self.grid.seeds + (
            self.grid.random_seeds if arm.name in self.grid.random_arms else ()
        )

    def cells(self) -> list[Cell]:
        """All cells of the grid, in the order models, arms, seeds."""
        return [
            Cell(model, arm, seed)
            for model in self.grid.models
            for arm in self.arms
            for seed in self.seeds_of(arm)
        ]

    @property
    def cross_arms(self) -> tuple[Arm, ...]:
        return tuple(parse_arm(arm) for arm in self.cross.arms)

    def cross_cells(self) -> list[Cell]:
        """All cross cells, in the order pairs, arms, seeds."""
        return [
            Cell(pair.student, arm, seed, donor=pair.teacher)
            for pair in self.cross.pairs
            for arm in self.cross_arms
            for seed in self.grid.seeds
        ]

    def cell(self, model: str, arm: str, seed: int, donor: str | None = None) -> Cell:
        """The cell with these names; with a donor, the student of `model` on the donor's text.

        Raises ConfigError where a name is unknown or a donor is the model itself. The cell need
        not be in the grid: a strength may be tried by hand before it is added.
        """
        self.model_spec(model)
        if donor is not None:
            self.model_spec(donor)
        if donor == model:
            raise ConfigError(
                f"--student and --teacher are both {model!r}, which is the cell of the grid itself",
                f"name two models, or: python cli.py distill --model {model} --arm {arm} "
                f"--seed {seed}",
            )
        try:
            return Cell(model, parse_arm(arm), seed, donor)
        except ValueError as error:
            raise ConfigError(f"--arm: {error}", "see grid.arms in params.yaml") from None

    def model_spec(self, model: str) -> ModelSpec:
        if model not in self.models:
            known = ", ".join(sorted(self.models))
            raise ConfigError(
                f"no model {model!r} in params.yaml",
                f"use one of: {known}; or add it under models in params.yaml",
            )
        return self.models[model]
