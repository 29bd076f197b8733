"""All that a study's results files say, put together once for report, table and MLflow."""

from typing import NamedTuple

from undertow.analysis.audits import with_audits
from undertow.analysis.costs import totals_of
from undertow.analysis.cross import with_cross
from undertow.analysis.mechanism import read_mechanism
from undertow.analysis.summarise import summarise
from undertow.analysis.summary import Summary
from undertow.config import Cell, Params
from undertow.study.layout import Layout
from undertow.study.records import CellResult
from undertow.study.results import read_cross, read_grid


class Conclusions(NamedTuple):
    """grid: the study's own cells; cross cells are in the summary alone."""

    grid: dict[Cell, CellResult]
    summary: Summary


def conclude(params: Params, layout: Layout) -> Conclusions:
    """Read every cell of params.yaml; DataError names the first that is missing."""
    grid, cross = read_grid(layout, params), read_cross(layout, params)
    summary = summarise(params, grid, read_mechanism(layout, params))
    summary = with_audits(summary, layout, params, grid)
    summary = with_cross(summary, params, cross)
    totals = totals_of(grid | cross)
    return Conclusions(grid, summary.model_copy(update={"cost_totals": totals}))
