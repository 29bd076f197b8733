"""What the runs say: names, tags, parameters, metrics and keys, from results alone.

Knows nothing about MLflow, so that what is logged can be read and tested without it.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from undertow.analysis.students import round_arms
from undertow.analysis.summary import ArmSummary, CellSummary, Summary
from undertow.config import PLAIN, Cell, Params
from undertow.config.dotted import flat
from undertow.lineage.git import Repository
from undertow.lineage.stages import dvc_name
from undertow.study.files import digest, fingerprint
from undertow.study.layout import Layout, Study
from undertow.study.records import CellResult
from undertow.study.results import found_rounds, found_students, loss_curve
from undertow.texts.addresses import public
from undertow.tracking.metrics import (
    along,
    costs,
    on_line,
    pooled,
    readouts,
    side_effects,
    strength_steps,
    thresholds,
)
from undertow.tracking.recipes import of_recipe, together_runs
from undertow.tracking.run import DatasetInput, RunContent, points_of

SECTIONS = (
    "prompting",
    "direction",
    "carrier",
    "distillation",
    "evaluation",
    "judging",
    "statistics",
)


def contents(study: Study, summary: Summary, grid: Mapping[Cell, CellResult]) -> list[RunContent]:
    """A run per cell of every student, and those that put them together.

    Of these there is one per model and recipe, per model, chain of rounds and arm, per model and
    seed (a curve), and one for the whole study.
    """
    params, layout = study
    shared = git_tags(layout.root) | {"trait": summary.trait, "judge": summary.judge}
    arms = {(arm.model, arm.arm): arm for arm in summary.arms}
    data = _data_files(study)
    cells = [
        _cell(study, arms[cell.model, cell.arm.name], cell, grid, data, shared) for cell in grid
    ]
    others = found_students(study)[0] | found_rounds(study)[0]
    made = {
        (arm.model, arm.arm, arm.student): arm
        for arm in (*summary.students, *round_arms(summary, params, others))
    }
    students = [
        of_recipe(
            _cell(study, made[cell.model, cell.arm.name, cell.student], cell, others, data, shared),
            params,
            summary,
            cell,
            grid[cell.plain],
        )
        for cell in others
    ]
    curves = [
        _curve(params, summary, model, seed, grid, shared)
        for model in params.grid.models
        for seed in params.grid.seeds
    ]
    together = together_runs(params, summary, shared)
    return [*cells, *students, *together, *curves, _study(study, summary, grid, shared)]


def cell_name(cell: Cell) -> str:
    of = cell.model if cell.student == PLAIN else f"{cell.model} {cell.student}"
    return f"{of} {cell.arm.name} seed{cell.seed}"


def cell_identity(cell: Cell) -> dict[str, str]:
    """The tags that say which cell a run is, the same while it trains and when it is complete."""
    return {
        "kind": "cell" if cell.student == PLAIN else "student",
        "model": cell.model,
        "student": cell.student,
        "arm": cell.arm.name,
        "seed": str(cell.seed),
    } | ({} if cell.arm.direction is None else {"direction": cell.arm.direction})


def _cell(
    study: Study,
    arm: ArmSummary,
    cell: Cell,
    grid: Mapping[Cell, CellResult],
    data: list[DatasetInput],
    shared: Mapping[str, str],
) -> RunContent:
    params, layout = study
    result = grid[cell]
    estimates = _of_seed(arm, cell.seed)
    judged_by = dvc_name(study, "judge", cell)
    recipe = params.recipe(cell.student).model_dump(mode="json", exclude_none=True)
    described = logged_params(params, params.student_base(cell)) | {
        "arm": cell.arm.name,
        **({} if cell.arm.strength is None else {"strength": cell.arm.strength}),
        "seed": str(cell.seed),
        "student": cell.student,
        **{name: str(value) for name, value in flat(recipe, "recipe")},
    }
    carrier = DatasetInput(
        "carrier",
        result.digests.get("carrier", "unknown")[:16],
        _relative(layout, study.written(cell)),
        "training",
    )
    hashes = {
        f"sha256.{name}": result.digests[name]
        for name in ("carrier", "adapter")
        if name in result.digests
    }
    measured = (
        ({} if cell.arm.strength is None else {"strength": cell.arm.alpha})
        | readouts(estimates)
        | side_effects(estimates)
        | costs(list(result.costs.values()))
        | {f"seconds_{stage}": cost.seconds for stage, cost in result.costs.items()}
        | {"unscored": float(sum(result.unscored.values()))}
    )
    return RunContent(
        name=cell_name(cell),
        # tau depends on the control's readouts and on how intervals are made.
        key=fingerprint("cell", result, _control(params, grid, cell), described),
        tags=cell_identity(cell)
        | dict(shared)
        | hashes
        | ({"dvc.stage": judged_by} if judged_by else {})
        | reasons(estimates),
        params=described,
        points=points_of(measured, step=0),
        seconds=sum(cost.seconds for cost in result.costs.values()),
        loss=_loss(layout, cell),
        datasets=[carrier, *data],
    )


def _curve(
    params: Params,
    summary: Summary,
    model: str,
    seed: int,
    grid: Mapping[Cell, CellResult],
    shared: Mapping[str, str],
) -> RunContent:
    """Readouts over strength, trait arms only: a random direction lies on another axis."""
    view = summary.views[model]
    dose = view.dose
    ordered = [arm for arm in view.arms if arm.direction == "trait"]
    ordered.sort(key=lambda arm: arm.alpha)
    steps = strength_steps([arm.alpha for arm in ordered])
    points = [
        point
        for arm, step in zip(ordered, steps, strict=True)
        for cell in [_of_seed(arm, seed)]
        for point in points_of(along(arm.alpha, readouts(cell)) | on_line(view, cell), step)
    ]
    described = logged_params(params, model) | {"seed": str(seed)}
    results = [
        result
        for cell, result in grid.items()
        if (cell.model, cell.seed, cell.arm.direction) == (model, seed, "trait")
    ]
    return RunContent(
        name=f"{model} curve seed{seed}",
        # The fit is over all seeds and leaves arms out, so this seed's results do not fix it.
        key=fingerprint("curve", results, described, dose, *view.lines.values()),
        tags={"kind": "curve", "model": model, "seed": str(seed)}
        | dict(shared)
        | ({"dose_verdict": dose.verdict, "dose_reason": dose.reason} if dose else {}),
        params=described | {"strengths": ", ".join(str(arm.strength) for arm in ordered)},
        points=points + points_of(thresholds(dose) | pooled(view), step=0),
        seconds=sum(cost.seconds for result in results for cost in result.costs.values()),
    )


def _study(
    study: Study,
    summary: Summary,
    grid: Mapping[Cell, CellResult],
    shared: Mapping[str, str],
) -> RunContent:
    """One run for what spans all models and seeds: the report, the plots and the total costs."""
    params, layout = study
    stages = [cost for stages in summary.costs.values() for cost in stages.values()]
    totals = costs(stages)
    files = [path for path in (layout.report, layout.metrics, layout.plots) if path.exists()]
    report = {"sha256.report": fingerprint(*files)} if files else {}
    described = {
        "models": ", ".join(params.grid.models),
        "arms": ", ".join(arm.name for arm in params.arms),
        "seeds": ", ".join(map(str, params.grid.seeds)),
    }
    measured = totals | {
        "cells": float(len(grid)),
        "unscored": float(sum(summary.unscored.values())),
    }
    return RunContent(
        name=f"study {summary.trait}",
        key=fingerprint("study", summary, described),
        tags={"kind": "study"} | dict(shared) | report,
        params=described,
        points=points_of(measured, step=0),
        seconds=totals["seconds"],
        files=files,
    )


def reasons(cell: CellSummary) -> dict[str, str]:
    """Tags that say why a tau is unknown."""
    found = {"tau.reason": cell.rate.tau.reason, "tau_margin.reason": cell.margin.tau.reason}
    return {name: reason for name, reason in found.items() if reason}


def logged_params(params: Params, model: str) -> dict[str, str]:
    """The parameters that can change a result, flat; where and how fast it ran is left out."""
    spec = params.model_spec(model)
    weights = spec.weights.model_dump(mode="json", exclude={"places"})
    raw = {
        "trait": params.trait,
        "model": model,
        "weights": weights,
        "dtype": spec.dtype,
        **params.model_dump(mode="json", include=set(SECTIONS)),
    }
    return {
        name: public(value if isinstance(value, str) else json.dumps(value))
        for name, value in flat(raw)
    }


def git_tags(root: Path) -> dict[str, str]:
    """Commit and dirty flag, or why they are unknown."""
    head = Repository(root).head()
    if head.commit is None:
        return {"git.unknown": str(head.reason)}
    return {
        # MLflow's own name for it: the UI shows it in the Version column.
        "mlflow.source.git.commit": head.commit,
        "mlflow.source.name": "undertow",
        "mlflow.source.type": "LOCAL",
        "git.dirty": "unknown" if head.dirty is None else str(head.dirty).lower(),
    }


def _data_files(study: Study) -> list[DatasetInput]:
    params, layout = study
    trait = layout.trait(params.trait)
    evaluation = trait / "evaluation.jsonl"
    files = {
        f"carrier {params.carrier.name}": (
            layout.carrier(params.carrier.name) / "prompts.jsonl",
            "training",
        ),
        f"{params.trait} evaluation": (
            evaluation if evaluation.exists() else trait,
            "evaluation",
        ),
    }
    return [
        DatasetInput(name, digest(path)[:16], _relative(layout, path), context)
        for name, (path, context) in files.items()
        if path.exists()
    ]


def _control(
    params: Params, grid: Mapping[Cell, CellResult], cell: Cell
) -> CellResult | list[CellResult]:
    """What a cell's tau is taken against: the control of its seed, or all where there is none."""
    own = cell._replace(arm=params.control)
    if own in grid:
        return grid[own]
    return [grid[own._replace(seed=s)] for s in params.seeds_of(own.arm, own.student)]


def _of_seed(arm: ArmSummary, seed: int) -> CellSummary:
    return next(cell for cell in arm.cells if cell.seed == seed)


def _loss(layout: Layout, cell: Cell) -> list[tuple[int, float]]:
    if not (layout.stage(cell, "distill") / "loss.csv").exists():
        return []
    return [(step, loss) for step, loss in loss_curve(layout, cell) if math.isfinite(loss)]


def _relative(layout: Layout, path: Path) -> str:
    return path.relative_to(layout.root).as_posix()
