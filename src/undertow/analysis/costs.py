"""What a study has cost, totalled by model and stage."""

from collections.abc import Mapping, Sequence

from pydantic import Field

from undertow.config import Cell
from undertow.study.records import CellResult, Costs, Record


class CostTotal(Record):
    """The cost of one stage of one model over all its cells; null is unknown or not applicable."""

    model: str | None = Field(description="null for the whole study")
    stage: str | None = Field(description="null for all stages")
    cells: int
    seconds: float
    load_seconds: float
    gpu_hours: float | None = Field(description="a CUDA device was held; null without one")
    tokens_generated: int
    generated_per_second: float | None = Field(description="over all of its cells' generation")
    tokens_trained: int
    trained_per_second: float | None = Field(description="over all of its cells' training")
    peak_memory_bytes: int = Field(description="of the cell with the highest")
    judge_tokens: int
    usd: float | None = Field(description="of the judge; null where nothing had a price")


def totals_of(grid: Mapping[Cell, CellResult]) -> tuple[CostTotal, ...]:
    """One total per model and stage, in the grid's order, then one of the whole study."""
    by_stage: dict[tuple[str, str], list[Costs]] = {}
    for cell, result in grid.items():
        for stage, costs in result.costs.items():
            by_stage.setdefault((cell.model, stage), []).append(costs)
    everything = [costs for listed in by_stage.values() for costs in listed]
    return (
        *(total(model, stage, listed, len(listed)) for (model, stage), listed in by_stage.items()),
        total(None, None, everything, len(grid)),
    )


def total(model: str | None, stage: str | None, costs: Sequence[Costs], cells: int) -> CostTotal:
    """The sum of costs as people read it: hours, and seconds to the millisecond."""
    found = summed(costs)
    return CostTotal(
        model=model,
        stage=stage,
        cells=cells,
        seconds=round(found.seconds, 3),
        load_seconds=round(found.load_seconds, 3),
        gpu_hours=None if found.gpu_seconds is None else found.gpu_seconds / 3600,
        tokens_generated=found.tokens_generated,
        generated_per_second=found.generated_per_second,
        tokens_trained=found.tokens_trained,
        trained_per_second=found.trained_per_second,
        peak_memory_bytes=found.peak_memory_bytes,
        judge_tokens=found.prompt_tokens + found.completion_tokens,
        usd=found.usd,
    )


def summed(costs: Sequence[Costs]) -> Costs:
    """Costs as one; a speed is tokens over the time that they took, never a mean of speeds."""
    held = [cost.gpu_seconds for cost in costs if cost.gpu_seconds is not None]
    priced = [cost.usd for cost in costs if cost.usd is not None]
    return Costs(
        seconds=sum(cost.seconds for cost in costs),
        load_seconds=sum(cost.load_seconds for cost in costs),
        gpu_seconds=sum(held) if held else None,
        device=", ".join(sorted({cost.device for cost in costs})),
        tokens_generated=sum(cost.tokens_generated for cost in costs),
        tokens_trained=sum(cost.tokens_trained for cost in costs),
        generated_per_second=_speed(
            [(cost.tokens_generated, cost.generated_per_second) for cost in costs]
        ),
        trained_per_second=_speed(
            [(cost.tokens_trained, cost.trained_per_second) for cost in costs]
        ),
        peak_memory_bytes=max((cost.peak_memory_bytes for cost in costs), default=0),
        prompt_tokens=sum(cost.prompt_tokens for cost in costs),
        completion_tokens=sum(cost.completion_tokens for cost in costs),
        usd=sum(priced) if priced else None,
    )


def _speed(work: Sequence[tuple[int, float | None]]) -> float | None:
    known = [(tokens, speed) for tokens, speed in work if speed]
    seconds = sum(tokens / speed for tokens, speed in known)
    return sum(tokens for tokens, _ in known) / seconds if seconds else None
