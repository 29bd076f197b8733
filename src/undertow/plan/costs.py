"""What the grid of params.yaml will cost: device hours from measured speeds, judge USD.

Tokens are counted at full length, so hours are an upper bound for models that end early.
Nothing is guessed: a model without a measured speed has no hours, and a reason.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

from undertow.analysis.summary import Summary
from undertow.config import PLAIN, Params
from undertow.judging.costing import estimate
from undertow.plan.beforehand import PROMPT_TOKENS, judged_rows, work_of
from undertow.plan.speeds import ShapeSpeed, shipped_speed
from undertow.study.layout import STAGES, Layout, Stage, Study
from undertow.study.records import Costs, Record
from undertow.study.results import read_manifest
from undertow.study.traits import TraitData

HOUR = 3600


class DefenceCost(Record):
    """What defences take beside training: made beforehand, or read along in steps."""

    what: str
    hours: float


class ModelCost(Record):
    """The cells of one model and the further students on it.

    hours is null with a reason where no speed was measured; it holds those of defences.
    """

    model: str
    cells: int
    students: int  # of other recipes than plain, trained on this model
    hours: float | None
    defences: tuple[DefenceCost, ...] = ()
    seconds_per_cell: dict[str, float]  # by stage
    device: str | None
    source: str | None
    reason: str | None


class GridCost(Record):
    """The whole grid. hours is null as soon as one model's is."""

    cells: int
    hours: float | None
    models: tuple[ModelCost, ...]
    judge_rows: int  # still to be asked
    defence_rows: int  # that recipes ask the judge about besides, and no price holds
    judge_usd: float | None
    judge_reason: str | None
    price_date: str


def grid_cost(study: Study, summary: Summary | None) -> GridCost:
    """Cost of every cell in params.yaml, students of all recipes included, run already or not."""
    params = study.params
    models = tuple(_model(study, summary, model) for model in params.grid.models)
    hours = [model.hours for model in models if model.hours is not None]
    judging = estimate(study, params.all_cells())
    no_price = "no price is known for the judge; set judging.judge.price in params.yaml"
    return GridCost(
        cells=len(params.all_cells()),
        hours=sum(hours) if len(hours) == len(models) else None,
        models=models,
        judge_rows=judging.rows - judging.cached,
        defence_rows=judged_rows(params),
        judge_usd=judging.usd,
        judge_reason=None if judging.usd is not None else no_price,
        price_date=judging.price_date,
    )


class _Tokens(NamedTuple):
    """Tokens of one cell at full length."""

    carrier: int
    evaluation: int
    trained: int


def _tokens(params: Params, student: str = PLAIN) -> _Tokens:
    carrier, evaluation = params.carrier, params.evaluation
    row = PROMPT_TOKENS + carrier.max_new_tokens
    asked = evaluation.prompts + evaluation.benign_prompts + evaluation.overrefusal_prompts
    return _Tokens(
        carrier.prompts * carrier.max_new_tokens,
        asked * evaluation.max_new_tokens,
        params.distillation_of(student).epochs * carrier.prompts * row,
    )


def _model(study: Study, summary: Summary | None, model: str) -> ModelCost:
    params = study.params
    cells = sum(cell.model == model for cell in params.cells())
    others = Counter(
        cell.student
        for cell in params.all_cells()
        if cell.student != PLAIN and params.student_base(cell) == model
    )
    speed = speed_of(study, summary, model)
    if speed is None:
        return ModelCost(
            model=model,
            cells=cells,
            students=others.total(),
            hours=None,
            seconds_per_cell={},
            device=None,
            source=None,
            reason=f"no measured speed for {model}, run one cell first",
        )
    # Students of a teacher share its text; a later round's is written for it alone.
    seconds = speed.seconds(PLAIN)
    further = sum(
        count * sum(value for stage, value in speed.seconds(student).items() if stage != "steer")
        for student, count in others.items()
    )
    further += sum(
        count * speed.passing_on
        for student, count in others.items()
        if params.writer(student) is not None
    )
    openings = TraitData(study.layout, params.trait).trait.openings
    defences = [
        DefenceCost(what=work.what, hours=work.seconds(*speed.per_second) / HOUR)
        for work in work_of(params, model, openings)
    ]
    hours = (cells * sum(seconds.values()) + further) / HOUR
    return ModelCost(
        model=model,
        cells=cells,
        students=others.total(),
        hours=hours + sum(each.hours for each in defences),
        defences=tuple(defences),
        seconds_per_cell={stage: round(value, 1) for stage, value in seconds.items()},
        device=speed.device,
        source=speed.source,
        reason=None,
    )


class Speed(NamedTuple):
    """How long the stages of a model's cells take.

    per_second: tokens generated, and tokens trained. seconds: by stage, of a cell with this
    student. passing_on: of a student that writes for the next round. start_seconds: what a process
    takes besides, once; direction_seconds: what the model's direction does, where start_seconds
    leaves it out.
    """

    per_second: tuple[float, float]
    seconds: Callable[[str], dict[Stage, float]]
    passing_on: float
    start_seconds: float
    direction_seconds: float
    device: str | None
    source: str


def speed_of(study: Study, summary: Summary | None, model: str) -> Speed | None:
    """As this study's own cells ran, else as the shipped table says, else None."""
    params = study.params
    measured = _measured(study.layout, summary, model)
    shipped = None if measured else shipped_speed(params.model_spec(model))

    def seconds(student: str) -> dict[Stage, float]:
        tokens = _tokens(params, student)
        if measured:
            return _from_results(measured, tokens)
        return _from_table(shipped, tokens, params)

    plain, tokens = seconds(PLAIN), _tokens(params)
    if not plain:
        return None
    passing_on = plain["steer"] * tokens.carrier / (tokens.carrier + tokens.evaluation)
    if shipped is None:
        steer = measured["steer"]
        # Who loads is whoever comes first in a process.
        start = max(cost.load_seconds for stage in STAGES for cost in measured[stage])
        folder = study.layout.direction(model)
        found = (folder / "manifest.json").exists()
        direction = read_manifest(folder).costs.seconds if found else 0.0
        own = "this study's own cells"
        rates = tuple(
            median(_speed(stage, cost) or 0.0 for cost in measured[stage]) for stage in STAGES[:2]
        )
        return Speed(
            (rates[0], rates[1]), seconds, passing_on, start, direction, steer[0].device, own
        )
    source = f"measured {shipped.date} ({shipped.command})"
    start = shipped.start_seconds or 0.0
    rates = (shipped.generated_per_second or 0.0, _trained(shipped, params) or 0.0)
    return Speed(rates, seconds, passing_on, start, 0.0, shipped.device, source)


def _measured(layout: Layout, summary: Summary | None, model: str) -> dict[Stage, list[Costs]]:
    """Costs of cells that have run on the device that most of them ran on; {} if none is whole.

    Manifests of cells that left the grid count: how fast they ran is still how fast it is.
    """
    found: dict[Stage, list[Costs]] = {}
    for stage in STAGES:
        inside = stage if stage == "steer" else f"{PLAIN}/{stage}"
        folders = sorted((layout.results / "cells" / model).glob(f"*/*/{inside}/manifest.json"))
        costs = [read_manifest(path.parent).costs for path in folders]
        if not costs and summary is not None:
            costs = [
                by_stage[stage]
                for key, by_stage in summary.costs.items()
                if key.split("/")[0] == model and stage in by_stage
            ]
        found[stage] = costs
    devices = Counter(cost.device for stage in STAGES[:2] for cost in found[stage])
    if not devices:
        return {}
    device = devices.most_common(1)[0][0]
    # A stage whose own speed is unknown (killed and taken up again) measured nothing.
    for stage in STAGES[:2]:
        found[stage] = [
            cost for cost in found[stage] if cost.device == device and _speed(stage, cost)
        ]
    return found if found["steer"] and found["distill"] else {}


def _speed(stage: Stage, cost: Costs) -> float | None:
    """Tokens per second of what the stage is about: writing or training."""
    return cost.trained_per_second if stage == "distill" else cost.generated_per_second


def _from_results(found: dict[Stage, list[Costs]], tokens: _Tokens) -> dict[Stage, float]:
    """Planned tokens at the measured speed, and what the stage took beside it."""

    def stage(name: Stage, planned: int, counts: Sequence[int]) -> float:
        speeds = [_speed(name, cost) or 0.0 for cost in found[name]]
        beside = [
            max(cost.seconds - count / speed, 0.0)
            for cost, count, speed in zip(found[name], counts, speeds, strict=True)
        ]
        return planned / median(speeds) + median(beside)

    seconds: dict[Stage, float] = {
        "steer": stage(
            "steer",
            tokens.carrier + tokens.evaluation,
            [cost.tokens_generated for cost in found["steer"]],
        ),
        "distill": stage(
            "distill", tokens.trained, [cost.tokens_trained for cost in found["distill"]]
        ),
    }
    if found["judge"]:
        seconds["judge"] = median(cost.seconds for cost in found["judge"])
    return seconds


def _from_table(speed: ShapeSpeed | None, tokens: _Tokens, params: Params) -> dict[Stage, float]:
    """Seconds per cell from the shipped table; {} where it lacks a number that is needed."""
    if speed is None:
        return {}
    generated, other = speed.generated_per_second, speed.other_seconds
    trained = _trained(speed, params)
    if generated is None or trained is None or other is None:
        return {}
    return {
        "steer": (tokens.carrier + tokens.evaluation) / generated + other / 2,
        "distill": tokens.trained / trained + tokens.evaluation / generated + other / 2,
    }


def _trained(speed: ShapeSpeed, params: Params) -> float | None:
    """Tokens a second, of a group of students where they are trained together."""
    quantization = params.distillation.quantization
    alone = speed.trained_per_second.get(quantization)
    if params.runtime.training == "trl":
        return alone
    return speed.together_per_second.get(quantization) or alone
