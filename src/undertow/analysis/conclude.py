"""All that a study's results files say, put together once for report, table and MLflow."""

from collections.abc import Mapping
from typing import NamedTuple

from undertow.analysis.answered import answered_elsewhere
from undertow.analysis.audits import with_audits
from undertow.analysis.costs import totals_of
from undertow.analysis.defences import defended, with_defences
from undertow.analysis.losses import control_losses
from undertow.analysis.mechanism import SeedRange, read_mechanism, residue_of
from undertow.analysis.rounds import chains, with_rounds
from undertow.analysis.students import with_students
from undertow.analysis.summarise import summarise
from undertow.analysis.summary import Summary
from undertow.config import Cell
from undertow.study.layout import Study
from undertow.study.records import CellResult
from undertow.study.results import found_rounds, found_students, read_grid


class Conclusions(NamedTuple):
    """grid: the plain cells; those of other students are in the summary alone."""

    grid: dict[Cell, CellResult]
    summary: Summary


def conclude(study: Study) -> Conclusions:
    """Read every cell of params.yaml; DataError names the first plain one that is missing.

    Other recipes whose cells are not all there are left out, and named in the summary.
    """
    params = study.params
    grid, (others, missing) = read_grid(study), found_students(study)
    summary = summarise(params, grid, read_mechanism(study))
    summary = with_audits(summary, study, grid)
    summary = with_students(summary, params, others)
    losses = control_losses(study, grid | others)
    summary = with_defences(summary, params, grid, others, _residue(study, others), losses)
    later, unfinished = found_rounds(study)
    together = grid | others | later
    summary = with_rounds(summary, params, together, _projections(study, together))
    told = {cell.key: result.costs for cell, result in later.items()}
    summary = summary.model_copy(
        update={"no_students": {**missing, **unfinished}, "costs": summary.costs | told}
    )
    whole = {"cost_totals": totals_of(together), "answered": answered_elsewhere(together)}
    return Conclusions(grid, summary.model_copy(update=whole))


def _residue(
    study: Study, others: Mapping[Cell, CellResult]
) -> dict[tuple[str, str, str], SeedRange]:
    params = study.params
    found = {
        (model, student, arm.name): residue_of(study, model, student, arm)
        for model in params.grid.models
        for student in defended(params, others, model)
        for arm in params.arms
        if arm.teaches_trait
    }
    return {key: projection for key, projection in found.items() if projection is not None}


def _projections(
    study: Study, cells: Mapping[Cell, CellResult]
) -> dict[tuple[str, str, str], SeedRange]:
    """Of every student of a chain along the trait direction, by model, student and arm."""
    names = dict.fromkeys(name for chain in chains(study.params) for name in chain)
    found = {
        (model, name, arm.name): residue_of(study, model, name, arm)
        for model in study.params.grid.models
        for name in names
        if any((cell.model, cell.student) == (model, name) for cell in cells)
        for arm in study.params.arms
        if not arm.is_control
    }
    return {key: projection for key, projection in found.items() if projection is not None}
