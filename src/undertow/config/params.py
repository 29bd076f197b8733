"""All of params.yaml as one value."""

from typing import Annotated

from pydantic import Field, field_validator

from undertow.config.adapters import AdapterArm, AdapterSpec, what_to_type
from undertow.config.base import NAME, Settings
from undertow.config.cells import PLAIN, Arm, Cell, parse_arm
from undertow.config.judges import JudgingSettings
from undertow.config.recipes import Recipe, RecipeName
from undertow.config.sections import (
    AuditSettings,
    CarrierSettings,
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
    recipes: dict[RecipeName, Recipe] = Field(
        {PLAIN: Recipe()},
        description="a kind of student: what differs from plain; grid.students says which run",
    )
    models: dict[Annotated[str, Field(pattern=NAME)], ModelSpec] = Field(min_length=1)
    adapters: dict[AdapterArm, dict[str, AdapterSpec]] = Field(
        {},
        description="adapter_NAME of grid.adapters, and for every model of the grid the adapter "
        "that its teacher has on",
    )
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

    @field_validator("recipes")
    @classmethod
    def _with_plain(cls, recipes: dict[str, Recipe]) -> dict[str, Recipe]:
        if recipes.get(PLAIN, Recipe()) != Recipe():
            raise ValueError(
                "plain is what every recipe differs from; write plain: {}, and change the "
                "sections distillation and carrier, or give your recipe a name of its own"
            )
        return {PLAIN: Recipe()} | recipes

    @property
    def arms(self) -> tuple[Arm, ...]:
        """All of grid.arms, and those with an adapter."""
        return tuple(parse_arm(arm) for arm in (*self.grid.arms, *self.grid.adapters))

    @property
    def control(self) -> Arm:
        return next(arm for arm in self.arms if arm.is_control)

    def seeds_of(self, arm: Arm, student: str = PLAIN) -> tuple[int, ...]:
        """grid.seeds, and the further ones of the control and, plain alone, of random_arms.

        A later round has grid.seeds alone: each seed is a lineage.
        """
        grid = self.grid
        if self.writer(student) is not None:
            return grid.seeds
        if arm.is_control:
            return grid.seeds + grid.control_seeds
        more = arm.name in grid.random_arms and student == PLAIN
        return grid.seeds + (grid.random_seeds if more else ())

    def cells(self, student: str = PLAIN) -> list[Cell]:
        """All cells of one kind of student, in the order models, arms, seeds."""
        return [
            Cell(model, arm, seed, student)
            for model in self.grid.models
            for arm in self.arms
            for seed in self.seeds_of(arm, student)
        ]

    @property
    def further_students(self) -> tuple[str, ...]:
        """grid.students but plain."""
        return tuple(name for name in self.grid.students if name != PLAIN)

    def all_cells(self) -> list[Cell]:
        """The cells of all students, plain ones first and later rounds last."""
        names = (PLAIN, *self.further_students, *(each.student for each in self.grid.rounds))
        return [cell for name in names for cell in self.cells(name)]

    def writer(self, student: str) -> str | None:
        """The student that writes this one's carrier; None where the steered teacher does."""
        return next((each.after for each in self.grid.rounds if each.student == student), None)

    def writer_of(self, cell: Cell) -> Cell | None:
        """The cell whose student writes this one's carrier; None where its teacher does."""
        after = self.writer(cell.student)
        return None if after is None else cell._replace(student=after)

    def round_of(self, student: str) -> int:
        """1 for who learns from the steered teacher, and one more for each student between."""
        after = self.writer(student)
        return 1 if after is None else 1 + self.round_of(after)

    def cell(self, model: str, arm: str, seed: int, student: str = PLAIN) -> Cell:
        """The cell with these names; ConfigError where one is unknown.

        It need not be in the grid: a strength or a recipe may be tried by hand first.
        """
        self.model_spec(model)
        self.recipe(student)
        try:
            found = parse_arm(arm)
            if found.adapter is not None:
                self.adapter_spec(model, arm)
            return Cell(model, found, seed, student)
        except ValueError as error:
            raise ConfigError(f"--arm: {error}", "see grid.arms in params.yaml") from None

    def recipe(self, student: str) -> Recipe:
        if student not in self.recipes:
            raise ConfigError(
                f"no recipe {student!r} in params.yaml",
                f"use one of: {', '.join(self.recipes)}; or add it under recipes in params.yaml",
            )
        return self.recipes[student]

    def student_base(self, cell: Cell) -> str:
        """The model that a cell's student is trained on, a key of models."""
        return (self.recipe(cell.student).base or {}).get(cell.model, cell.model)

    def distillation_of(self, student: str) -> DistillationSettings:
        """How this student is trained: the section, with what its recipe has in its place."""
        recipe = self.recipe(student)
        own: dict[str, object] = {"epochs": recipe.epochs_of(self.distillation.epochs)}
        if recipe.learning_rate is not None:
            own["learning_rate"] = recipe.learning_rate
        return self.distillation.model_copy(update=own)

    def adapter_spec(self, model: str, arm: str) -> AdapterSpec:
        """Where the adapter of an arm lies for one base; ConfigError where nothing says so."""
        found = self.adapters.get(arm, {}).get(model)
        if found is None:
            raise ConfigError(
                f"no adapter for the arm {arm} on {model} in params.yaml",
                f"write {what_to_type(arm, model)}",
            )
        return found

    def model_spec(self, model: str) -> ModelSpec:
        if model not in self.models:
            known = ", ".join(sorted(self.models))
            raise ConfigError(
                f"no model {model!r} in params.yaml",
                f"use one of: {known}; or add it under models in params.yaml",
            )
        return self.models[model]
