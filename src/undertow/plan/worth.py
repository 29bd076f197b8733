"""What a grid of defences can be expected to say: how much of plain's transfer each removes."""

import math

from undertow.config import Params
from undertow.findings.defences import LEAST
from undertow.plan.shares import ShareOfStudies, share_of
from undertow.stats.worth_power import TRUTHS, WorthDesign, expect_removed
from undertow.study.records import Record

STUDIES = 40  # a model each, with recipes of every truth


class RemovedRecord(Record):
    """Recipes that remove this share, by margin, from intervals that hold for all at once."""

    removed: float
    half_width: float | None  # null: plain's shift could be told from 0 in no study
    above_zero: ShareOfStudies  # whose interval lies above 0
    no_effect: ShareOfStudies  # of which no effect would be shown


class DefencePower(Record):
    """Of one model. What a recipe costs in learning, and how it stands to its placebo, is not
    simulated: a verdict "removes transfer" needs these as well."""

    recipes: int  # beside plain
    arms: int
    seeds: int
    control_students: int
    recipe_spread: float  # assumed, a share of plain's shift: see stats/worth_power.py
    outcomes: tuple[RemovedRecord, ...]


def defence_power(params: Params, prompts: int, seeds: int) -> DefencePower | None:
    """Of the recipes and arms of params.yaml; None where there are none, or one seed."""
    recipes = [name for name in params.further_students if params.recipe(name).base is None]
    arms = [arm for arm in params.arms if arm.teaches_trait]
    if not recipes or not arms or seeds < 2:
        return None
    control = seeds + len(params.grid.control_seeds)
    design = WorthDesign(len(recipes), len(arms), seeds, control, prompts)
    # A study of few recipes has not all of the truths.
    simulated = STUDIES * math.ceil(len(TRUTHS) / len(recipes))
    return DefencePower(
        recipes=len(recipes),
        arms=len(arms),
        seeds=seeds,
        control_students=control,
        recipe_spread=design.paired_sd,
        outcomes=tuple(
            RemovedRecord(
                removed=each.removed,
                half_width=each.half_width,
                above_zero=share_of(each.above_zero, STUDIES),
                no_effect=share_of(each.little, STUDIES),
            )
            for each in expect_removed(design, least=LEAST, studies=simulated)
        ),
    )
