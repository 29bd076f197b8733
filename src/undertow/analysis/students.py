"""Students of other recipes than plain: what each takes from the same teachers' text.

A recipe is read as the study that it is. T0 and Ta are the teacher's own; S0 is the control
student of the same recipe, trained on the unsteered teacher's text, so that what recipe and text do
by themselves is not counted as transfer (for another base: Cloud et al., arXiv:2507.14805).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from undertow.analysis.summarise import summarise
from undertow.analysis.summary import ArmSummary, StudentArm, Summary
from undertow.config import PLAIN, Cell, Params
from undertow.stats.intervals import Estimate, difference
from undertow.stats.transfer import Transfer
from undertow.study.records import CellResult

TWO_BASES = (
    "the teacher's base and the student's base are different models, so their difference is "
    "no shift of the student"
)
UNKNOWN = Estimate.unknown(TWO_BASES)


def with_students(summary: Summary, params: Params, others: Mapping[Cell, CellResult]) -> Summary:
    """The summary with the arms of all other recipes and their costs; unchanged without any.

    others: from results.read_students.
    """
    if not others:
        return summary
    plain = {(arm.model, arm.arm): arm for arm in summary.arms}
    arms = [
        arm
        for student in params.further_students
        for model in params.grid.models
        if any((cell.model, cell.student) == (model, student) for cell in others)
        for arm in _arms(params, model, student, others, plain)
    ]
    costs = {cell.key: result.costs for cell, result in others.items()}
    return summary.model_copy(update={"students": tuple(arms), "costs": summary.costs | costs})


def round_arms(
    summary: Summary, params: Params, cells: Mapping[Cell, CellResult]
) -> list[StudentArm]:
    """The students of later rounds as students of any recipe, beside the steered teacher's shift.

    cells: from results.found_rounds; others among them are passed over.
    """
    plain = {(arm.model, arm.arm): arm for arm in summary.arms}
    return [
        arm
        for each in params.grid.rounds
        for model in params.grid.models
        if any((cell.model, cell.student) == (model, each.student) for cell in cells)
        for arm in _arms(params, model, each.student, cells, plain)
    ]


def _arms(
    params: Params,
    model: str,
    student: str,
    others: Mapping[Cell, CellResult],
    plain: Mapping[tuple[str, str], ArmSummary],
) -> Iterator[StudentArm]:
    """One recipe and model as a study of its own, beside the plain students of the same arms."""
    alone = {"models": (model,), "students": (PLAIN,), "random_arms": (), "random_seeds": ()}
    # A chain has its lineages alone.
    own = {} if params.writer(student) is None else {"control_seeds": ()}
    grid = params.grid.model_copy(update=alone | own)
    results = {
        cell.plain: result
        for cell, result in others.items()
        if (cell.model, cell.student) == (model, student)
    }
    other_base = next(iter(results.values())).other_base
    found = summarise(params.model_copy(update={"grid": grid}), results)
    for arm in found.arms:
        beside = plain[model, arm.arm]
        told = _without_naive(arm) if other_base else arm
        # The same teacher: whether it is coherent is judged on its own base.
        told = told.model_copy(update={"degenerate": beside.degenerate})
        yield StudentArm(
            **{name: getattr(told, name) for name in ArmSummary.model_fields},
            student=student,
            other_base=other_base,
            rate_gap=difference(beside.rate.student_shift, arm.rate.student_shift),
            margin_gap=difference(beside.margin.student_shift, arm.margin.student_shift),
            contrasts=tuple(each for each in found.contrasts if each.arm == arm.arm),
        )


def _without_naive(arm: ArmSummary) -> ArmSummary:
    def cut(transfer: Transfer) -> Transfer:
        return replace(transfer, naive_shift=UNKNOWN, tau_naive=UNKNOWN)

    cells = (
        cell.model_copy(update={"rate": cut(cell.rate), "margin": cut(cell.margin)})
        for cell in arm.cells
    )
    changed = {"rate": cut(arm.rate), "margin": cut(arm.margin), "cells": tuple(cells)}
    return arm.model_copy(update=changed)
