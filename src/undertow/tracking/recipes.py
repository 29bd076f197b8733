"""Runs of recipes and rounds: tags of their students' runs, and one run that puts them together."""

from collections.abc import Mapping
from dataclasses import replace

from undertow.analysis.summary import ChainArm, DefenceArm, StudentArm, Summary
from undertow.config import Cell, Params
from undertow.config.dotted import flat
from undertow.study.files import fingerprint
from undertow.study.records import CellResult
from undertow.tracking.metrics import (
    defence_of,
    round_of_chain,
    steps_of,
    strength_steps,
    worth_of,
)
from undertow.tracking.run import RunContent, points_of

NO_DEFENCE = {"placebo_of", "base"}


def of_recipe(
    run: RunContent, params: Params, summary: Summary, cell: Cell, plain: CellResult
) -> RunContent:
    """A student's run with its tags, and what it removes and learns beside its plain twin."""
    worth = defence_of(summary, cell.model, cell.arm.name, cell.student, cell.seed)
    tags = recipe_tags(params, cell.student)
    return replace(
        run,
        key=fingerprint(run.key, plain, tags),  # the numbers depend on the plain student
        tags=run.tags | tags,
        points=run.points + points_of(worth, step=0),
    )


def recipe_tags(params: Params, student: str) -> dict[str, str]:
    """Recipe, round, the settings that it changes, and whose placebo it is."""
    recipe = params.recipe(student)
    changed = sorted(recipe.model_dump(exclude_defaults=True).keys() - NO_DEFENCE)
    found = {
        "recipe": student,
        "round": str(params.round_of(student)),
        "defence": ", ".join(changed),
        "placebo_of": recipe.placebo_of or "",
    }
    return {name: value for name, value in found.items() if value}


def together_runs(params: Params, summary: Summary, shared: Mapping[str, str]) -> list[RunContent]:
    """A run per model and recipe, and per model, chain of rounds and arm."""
    arms = {(arm.model, arm.student, arm.arm): arm for arm in summary.students}
    recipes: dict[tuple[str, str], list[tuple[DefenceArm, StudentArm]]] = {}
    for each in summary.defences:
        if each.strength is None:
            continue  # a teacher in other clothes stands nowhere on the axis of strengths
        pair = each, arms[each.model, each.student, each.arm]
        recipes.setdefault((each.model, each.student), []).append(pair)
    return [
        *(_recipe(params, found, shared) for found in recipes.values()),
        *(_chain(params, chain, shared) for chain in summary.rounds),
    ]


def _recipe(
    params: Params, found: list[tuple[DefenceArm, StudentArm]], shared: Mapping[str, str]
) -> RunContent:
    """Over strengths; the largest comes last, which is what a table of runs shows."""
    found = sorted(found, key=lambda pair: abs(pair[1].alpha))
    steps = strength_steps([abs(arm.alpha) for _, arm in found])
    points = [
        point
        for (defence, arm), step in zip(found, steps, strict=True)
        for point in points_of({"strength": arm.alpha} | worth_of(defence, arm), step)
    ]
    first, _ = found[0]
    tags = recipe_tags(params, first.student)
    described = _described(params, first.model, first.student)
    described |= {"strengths": ", ".join(str(arm.strength) for _, arm in found)}
    return RunContent(
        name=f"{first.model} {first.student}",
        key=fingerprint("recipe", [record for pair in found for record in pair], described, tags),
        tags={"kind": "recipe", "model": first.model, **tags, **shared},
        params=described,
        points=points,
        seconds=sum(defence.seconds or 0.0 for defence, _ in found),
    )


def _chain(params: Params, chain: ChainArm, shared: Mapping[str, str]) -> RunContent:
    points = [
        point for each in chain.rounds for point in points_of(round_of_chain(each), each.round)
    ]
    last = chain.students[-1]
    tags = recipe_tags(params, last)
    described = _described(params, chain.model, last)
    described |= {"arm": chain.arm, "students": ", ".join(chain.students)}
    return RunContent(
        name=f"{chain.model} rounds to {last} {chain.arm}",
        key=fingerprint("rounds", chain, described, tags),
        tags={"kind": "rounds", "model": chain.model, "arm": chain.arm, **tags, **shared},
        params=described,
        points=points + points_of(steps_of(chain), step=0),
        seconds=0.0,
    )


def _described(params: Params, model: str, student: str) -> dict[str, str]:
    recipe = params.recipe(student).model_dump(mode="json", exclude_none=True)
    return {
        "model": model,
        "trait": params.trait,
        "recipe": student,
        **{name: str(value) for name, value in flat(recipe, "recipe")},
    }
