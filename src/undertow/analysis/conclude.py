"""All that a study's results files say, put together once for report, table and MLflow."""

from collections.abc import Mapping
from typing import NamedTuple

from undertow.analysis.audits import with_audits
from undertow.analysis.costs import totals_of
from undertow.analysis.defences import defended, with_defences
from undertow.analysis.mechanism import SeedRange, read_mechanism, residue_of
from undertow.analysis.students import with_students
from undertow.analysis.summarise import summarise
from undertow.analysis.summary import Summary
from undertow.config import Cell
from undertow.study.layout import Study
from undertow.study.records import CellResult
from undertow.study.results import found_students, read_grid


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
    summary = with_defences(summary, params, grid, others, _residue(study, others))
    summary = summary.model_copy(update={"no_students": missing})
    totals = totals_of(grid | others)
    return Conclusions(grid, summary.model_copy(update={"cost_totals": totals}))


def _residue(
    study: Study, others: Mapping[Cell, CellResult]
) -> dict[tuple[str, str, str], SeedRange]:
    params = study.params
    found = {
        (model, student, arm.name): residue_of(study, model, student, arm)
        for model in params.grid.models
        for student in defended(params, others, model)
        for arm in params.arms
        if arm.direction == "trait" and not arm.is_control
    }
    return {key: projection for key, projection in found.items() if projection is not None}
