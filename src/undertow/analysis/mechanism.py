"""Does the student move along the direction that its teacher was steered with, block by block?

Reads the mean activations that the distill stage leaves behind and the directions; needs NumPy
and safetensors alone.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from undertow.config import PLAIN, Arm, Cell
from undertow.errors import DataError
from undertow.study.found import tensors
from undertow.study.layout import Study
from undertow.study.records import Record

Floats = NDArray[np.float64]
DirectionName = Literal["trait", "random"]

NO_DIRECTION = "the direction of this model is not in results/directions"
NO_ACTIVATIONS = (
    "a student of this arm or its control student has no activations.safetensors (its cell was "
    "made before there was one, or only its judge stage was pulled); dvc repro"
)
NO_DRAW = "the random direction on disk is that of seed 0, and no student has this seed"


class SeedRange(Record):
    """Mean over seeds with the smallest and the largest; one seed gives the same three."""

    mean: float
    low: float
    high: float


class BlockShift(Record):
    """The student's shift at one block's output, against one direction."""

    block: int
    steered: bool
    cosine: SeedRange | None  # None where the student did not move or the direction is 0
    # At a steered block 1 is what steering added to the teacher there (alpha ||d||); elsewhere,
    # and in arms whose teacher is not steered, in units of ||d||.
    projection: SeedRange | None


class ArmMechanism(Record):
    """One model and arm, its students' shifts against one direction."""

    model: str
    arm: str
    direction: DirectionName | None  # null, as the strength, where the teacher is not steered
    strength: str | None
    against: DirectionName
    seeds: int
    chance: float | None  # standard deviation of the cosine with an unrelated direction
    blocks: tuple[BlockShift, ...]
    reason: str | None = None  # why there are no blocks


class Directions(NamedTuple):
    """vectors: direction name -> [blocks, hidden]; layers: 0-based blocks that are steered."""

    vectors: dict[DirectionName, Floats]
    layers: list[int]


def read_mechanism(study: Study) -> tuple[ArmMechanism, ...]:
    """All arms of the grid but the control, random ones against both directions.

    Raises DataError where activations and direction are not of the same shape.
    """
    params = study.params
    return tuple(
        _arm(study, model, arm, against)
        for model in params.grid.models
        for arm in params.arms
        if not arm.is_control
        for against in _compared_with(arm)
    )


def _compared_with(arm: Arm) -> tuple[DirectionName, ...]:
    return ("trait", "random") if arm.direction == "random" else ("trait",)


def _unit(arm: Arm) -> float:
    """What a projection is measured in, in multiples of the direction."""
    return 1.0 if arm.direction is None else arm.alpha


def _arm(study: Study, model: str, arm: Arm, against: DirectionName) -> ArmMechanism:
    directions = read_directions(study.layout.direction(model) / "direction.safetensors")
    blocks: tuple[BlockShift, ...] = ()
    seeds = _seeds(study, against)
    chance, reason = None, NO_DIRECTION
    if directions is not None:
        vectors = directions.vectors[against]
        chance, reason = chance_of(vectors.shape[1]), NO_ACTIVATIONS if seeds else NO_DRAW
        shifts = _shifts(study, model, arm, seeds, vectors.shape) if seeds else None
        if shifts is not None:
            blocks = block_shifts(shifts, vectors, directions.layers, _unit(arm))
    return ArmMechanism(
        model=model,
        arm=arm.name,
        direction=arm.direction,
        strength=arm.strength,
        against=against,
        seeds=len(seeds),
        chance=chance,
        blocks=blocks,
        reason=None if blocks else reason,
    )


def _seeds(study: Study, against: DirectionName) -> tuple[int, ...]:
    """Every seed of a random arm has a direction of its own; the one on disk is seed 0's."""
    seeds = tuple(study.params.grid.seeds)
    return seeds if against == "trait" else tuple(seed for seed in seeds if seed == 0)


def chance_of(hidden: int) -> float:
    """Standard deviation of the cosine of two independent isotropic vectors: 1 / sqrt(hidden)."""
    return float(hidden**-0.5)


def block_shifts(
    shifts: Sequence[Floats], vectors: Floats, layers: Sequence[int], alpha: float
) -> tuple[BlockShift, ...]:
    """The shifts [blocks, hidden] of each seed against the direction's vectors [blocks, hidden].

    cosine = s.d / (||s|| ||d||); projection = s.d / ||d|| as a share of alpha ||d|| at a steered
    block, of ||d|| at any other.
    """
    found = []
    for block, direction in enumerate(vectors):
        steered = block in layers
        norm = float(np.linalg.norm(direction))
        sizes = [float(np.linalg.norm(shift[block])) for shift in shifts]
        along = [float(shift[block] @ direction) for shift in shifts]
        defined = norm > 0 and all(sizes)
        unit = norm * norm * (alpha if steered else 1.0)
        found.append(
            BlockShift(
                block=block,
                steered=steered,
                cosine=_range([dot / (size * norm) for dot, size in zip(along, sizes, strict=True)])
                if defined
                else None,
                projection=_range([dot / unit for dot in along]) if norm > 0 else None,
            )
        )
    return tuple(found)


def _range(values: Sequence[float]) -> SeedRange:
    return SeedRange(mean=sum(values) / len(values), low=min(values), high=max(values))


def residue_of(study: Study, model: str, student: str, arm: Arm) -> SeedRange | None:
    """How far one recipe's students lie along the trait direction at the last steered block.

    In units of what steering added to their teacher there, of the direction where it is not
    steered; None where an activation is missing.
    """
    directions = read_directions(study.layout.direction(model) / "direction.safetensors")
    if directions is None or not directions.layers:
        return None
    vectors, seeds = directions.vectors["trait"], study.params.grid.seeds
    shifts = _shifts(study, model, arm, seeds, vectors.shape, student)
    if shifts is None:
        return None
    blocks = block_shifts(shifts, vectors, directions.layers, _unit(arm))
    return blocks[max(directions.layers)].projection


def _shifts(
    study: Study,
    model: str,
    arm: Arm,
    seeds: Sequence[int],
    shape: tuple[int, ...],
    recipe: str = PLAIN,
) -> list[Floats] | None:
    """Student minus control student, a seed each; None where any of them is not there."""
    params, layout = study
    shifts = []
    for seed in seeds:
        pair = [
            read_activations(
                layout.stage(Cell(model, each, seed, recipe), "distill") / "activations.safetensors"
            )
            for each in (arm, params.control)
        ]
        for activations in pair:
            if activations is not None and activations.shape != shape:
                raise DataError(
                    f"{model}: a student's activations are {list(activations.shape)} and the "
                    f"direction is {list(shape)}, so they come from different weights",
                    "dvc repro, which runs whatever is out of date",
                )
        student, control = pair
        if student is None or control is None:
            return None
        shifts.append(student - control)
    return shifts


def read_activations(path: Path) -> Floats | None:
    """Mean activations [blocks, hidden] of a student; None where there are none."""
    if not path.exists():
        return None
    with tensors(path, "np") as file:
        activations: Floats = file.get_tensor("activations").astype(np.float64)
    return activations


def read_directions(path: Path) -> Directions | None:
    if not path.exists():
        return None
    with tensors(path, "np") as file:
        names: tuple[DirectionName, ...] = ("trait", "random")
        return Directions(
            {name: file.get_tensor(name).astype(np.float64) for name in names},
            json.loads(file.metadata()["undertow"])["layers"],
        )
