"""All that a study's results files say, put together once for report, table and MLflow."""

from typing import NamedTuple

from undertow.analysis.audits import with_audits
from undertow.analysis.costs import totals_of
from undertow.analysis.mechanism import read_mechanism
from undertow.analysis.students import with_students
from undertow.analysis.summarise import summarise
from undertow.analysis.summary import Summary
from undertow.config import Cell
from undertow.study.layout import Study
from undertow.study.records import CellResult
from undertow.study.results import read_grid, read_students


class Conclusions(NamedTuple):
    """grid: the plain cells; those of other students are in the summary alone."""

    grid: dict[Cell, CellResult]
    summary: Summary


def conclude(study: Study) -> Conclusions:
    """Read every cell of params.yaml; DataError names the first that is missing."""
    params = study.params
    grid, others = read_grid(study), read_students(study)
    summary = summarise(params, grid, read_mechanism(study))
    summary = with_audits(summary, study, grid)
    summary = with_students(summary, params, others)
    totals = totals_of(grid | others)
    return Conclusions(grid, summary.model_copy(update={"cost_totals": totals}))
