"""Later rounds: what students of students still have of the steered teacher, round by round.

tau of round k is (Sa_k - S0_k) / (Ta - T0): its control is the control lineage at the same round,
so what answering and training do by themselves is not counted; the teacher is the first one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from undertow.analysis.mechanism import SeedRange
from undertow.analysis.readings import readings_of
from undertow.analysis.summary import ChainArm, RoundNumbers, RoundOfChain, Summary
from undertow.config import PLAIN, Arm, Cell, Params
from undertow.stats.draws import drawn
from undertow.stats.rounds import Chain, Followed, followed
from undertow.stats.worth import Rows, no_reference
from undertow.study.records import CellResult, ReadoutName

Key = tuple[tuple[str, ...], Arm]


def chains(params: Params) -> list[tuple[str, ...]]:
    """The students of every chain, the first round's first; one chain for each last round."""
    passed_on = {each.after for each in params.grid.rounds}
    found = []
    for each in params.grid.rounds:
        if each.student in passed_on:
            continue
        names = [each.student]
        while (before := params.writer(names[0])) is not None:
            names.insert(0, before)
        found.append(tuple(names))
    return found


def with_rounds(
    summary: Summary,
    params: Params,
    cells: Mapping[Cell, CellResult],
    projections: Mapping[tuple[str, str, str], SeedRange],
) -> Summary:
    """The summary with every chain; one that is not finished ends at its last whole round.

    cells: those of all students that are there. projections: by model, student and arm.
    """
    found: list[ChainArm] = []
    for model in params.grid.models:
        known = [_whole(params, cells, model, names) for names in chains(params)]
        arms = [arm for arm in params.arms if not arm.is_control]
        keys: list[Key] = [(c, a) for c in dict.fromkeys(known) if len(c) > 1 for a in arms]
        if not keys:
            continue
        by_readout = {r: _followed(params, cells, model, keys, r) for r in ("margin", "rate")}
        found += [_record(params, model, key, by_readout, projections) for key in keys]
    return summary.model_copy(update={"rounds": tuple(found)}) if found else summary


def _whole(
    params: Params, cells: Mapping[Cell, CellResult], model: str, names: Sequence[str]
) -> tuple[str, ...]:
    """The chain as far as all of a round's students are there."""
    found: list[str] = []
    for name in names:
        wanted = (Cell(model, a, s, name) for a in params.arms for s in params.grid.seeds)
        if not all(cell in cells for cell in wanted):
            break
        found.append(name)
    return tuple(found)


def _followed(
    params: Params,
    cells: Mapping[Cell, CellResult],
    model: str,
    keys: Sequence[Key],
    readout: ReadoutName,
) -> dict[Key, Followed]:
    settings = params.statistics
    draws = drawn(settings.resamples, settings.seed, settings.confidence)
    return followed({key: _chain(params, cells, model, key, readout) for key in keys}, draws)


def _chain(
    params: Params, cells: Mapping[Cell, CellResult], model: str, key: Key, readout: ReadoutName
) -> Chain:
    names, arm = key
    order = [PLAIN, *params.further_students, *(each.student for each in params.grid.rounds)]
    numbers = [order.index(name) for name in names]
    found = []
    for name in names:
        own = {cell.plain: result for cell, result in cells.items() if cell.student == name}
        seeds = params.grid.seeds
        found.append(readings_of(own, params.control, model, arm, seeds, readout))
    first = found[0]
    rows = [first.base[None], first.teacher, *(r for f in found for r in (f.student, f.control))]
    known = ~np.isnan(np.concatenate(rows)).any(axis=0)
    is_rate = readout == "rate"

    def signs(first: int, then: int) -> tuple[tuple[int, int], ...]:
        return ((first, 1), (then, -1)) if is_rate else ()

    rounds = [
        Rows(each.student[:, known], each.control[:, known], signs(10 * n + 3, 10 * n + 2))
        for each, n in zip(found, numbers, strict=True)
    ]
    shift = (first.teacher - first.base)[:, known]
    many, place = len(params.arms), params.arms.index(arm)
    base = params.arms.index(params.control)
    streams = [(1 + n * many + place, 1 + n * many + base) for n in numbers]
    return Chain(rounds, Rows(shift, no_reference(int(known.sum())), signs(1, 0)), streams)


def _record(
    params: Params,
    model: str,
    key: Key,
    by_readout: Mapping[str, Mapping[Key, Followed]],
    projections: Mapping[tuple[str, str, str], SeedRange],
) -> ChainArm:
    names, arm = key
    margin, rate = by_readout["margin"][key], by_readout["rate"][key]

    def numbers(each: Followed, n: int) -> RoundNumbers:
        return RoundNumbers(shift=each.shifts[n], tau=each.taus[n], step=each.steps[n])

    return ChainArm(
        model=model,
        students=names,
        arm=arm.name,
        direction=arm.direction,
        strength=arm.strength,
        lineages=len(params.grid.seeds),
        margin_step=margin.mean_step,
        rate_step=rate.mean_step,
        rounds=tuple(
            RoundOfChain(
                student=name,
                round=n + 1,
                continued=params.recipe(name).continued,
                margin=numbers(margin, n),
                rate=numbers(rate, n),
                projection=projections.get((model, name, arm.name)),
            )
            for n, name in enumerate(names)
        ),
    )
