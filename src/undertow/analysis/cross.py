"""Cross-model students: what a student of another base takes from this teacher's text.

The estimates are those of every arm. T0 and Ta are the donor teacher's, on the donor's base; S0
is the control of the student's own base, trained on the donor's unsteered text, so that what
this text does by itself is not counted as transfer (the control of Cloud et al., arXiv:2507.14805).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from undertow.analysis.summarise import summarise
from undertow.analysis.summary import ArmSummary, CrossArm, Summary
from undertow.config import Cell, CrossPair, Grid, Params
from undertow.stats.intervals import Estimate, difference
from undertow.stats.transfer import Transfer
from undertow.study.records import CellResult

TWO_BASES = (
    "the teacher's base and the student's base are different models, so their difference is "
    "no shift of the student"
)
UNKNOWN = Estimate.unknown(TWO_BASES)


def with_cross(summary: Summary, params: Params, cross: Mapping[Cell, CellResult]) -> Summary:
    """The summary with its cross-model arms and their costs; unchanged where there are none.

    cross: from results.read_cross.
    """
    if not cross:
        return summary
    own = {(arm.model, arm.arm): arm for arm in summary.arms}
    arms = [arm for pair in params.cross.pairs for arm in _arms(params, pair, cross, own)]
    costs = {cell.key: result.costs for cell, result in cross.items()}
    return summary.model_copy(update={"cross": tuple(arms), "costs": summary.costs | costs})


def _arms(
    params: Params,
    pair: CrossPair,
    cross: Mapping[Cell, CellResult],
    own: Mapping[tuple[str, str], ArmSummary],
) -> Iterator[CrossArm]:
    """One pair as the study that it is: a grid of one model whose teacher is another's."""
    grid = Grid(models=(pair.student,), arms=params.cross.arms, seeds=params.grid.seeds)
    results = {
        cell._replace(donor=None): result
        for cell, result in cross.items()
        if (cell.model, cell.donor) == (pair.student, pair.teacher)
    }
    alone = summarise(params.model_copy(update={"grid": grid}), results)
    for arm in alone.arms:
        same = own[pair.teacher, arm.arm]
        cells = tuple(
            cell.model_copy(
                update={
                    "rate": _without_naive(cell.rate),
                    "margin": _without_naive(cell.margin),
                }
            )
            for cell in arm.cells
        )
        known = {name: getattr(arm, name) for name in ArmSummary.model_fields}
        changed = {
            "rate": _without_naive(arm.rate),
            "margin": _without_naive(arm.margin),
            "cells": cells,
            "degenerate": same.degenerate,  # the same teacher, judged on its own base
        }
        yield CrossArm(
            **(known | changed),
            teacher_model=pair.teacher,
            rate_gap=_gap(same.rate, arm.rate),
            margin_gap=_gap(same.margin, arm.margin),
            contrasts=tuple(found for found in alone.contrasts if found.arm == arm.arm),
        )


def _without_naive(transfer: Transfer) -> Transfer:
    return replace(transfer, naive_shift=UNKNOWN, tau_naive=UNKNOWN)


def _gap(same: Transfer, other: Transfer) -> Estimate:
    """How much further the same-base student went, on the readout's own scale."""
    return difference(same.student_shift, other.student_shift)
