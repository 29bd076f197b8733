"""A plan as lines to read in a terminal; all numbers are the plan's own."""

from undertow.plan.costs import GridCost, ModelCost
from undertow.plan.plan import Plan, SizeRecord
from undertow.plan.shares import ShareOfStudies
from undertow.plan.sizes import AllocationRecord, AuditRows
from undertow.plan.worth import DefencePower
from undertow.texts.numbers import RATIO, Scale

WHOLE_PERCENT = Scale("%", 100, 0)

RATES = {"teacher": "teacher", "base": "base", "control": "control student"}


def describe_plan(plan: Plan) -> str:
    """The plan as plain text."""
    numbers = plan.inputs
    rates = ", ".join(
        f"{label} {100 * numbers[name].value:.1f} % ({numbers[name].source})"
        for name, label in RATES.items()
    )
    taus = f"tau {_plain(plan, 'tau')}"
    if "other_tau" in numbers:
        taus += f", other tau {_plain(plan, 'other_tau')}"
    lines = [
        f"Expected: {rates}; {taus}",
        f"Size: {_plain(plan, 'prompts')} prompts, {_plain(plan, 'seeds')} seeds; "
        f"spread between seeds {_plain(plan, 'seed_sd')}",
        "",
        f"interval of tau to expect      {_interval(plan)}",
        f"tau undefined                  {_percent(plan.undefined)} of studies",
        f"its interval excludes 0        {_percent(plan.excludes_zero)}",
        f"power to tell the two taus     {_percent(plan.apart)}",
        f"the same by pooled tau         {_percent(plan.pooled_apart)}",
        f"control students worth having  {plan.control_seeds} (sqrt of {plan.arms} arms "
        f"x {_plain(plan, 'seeds')}; grid.control_seeds)",
        f"power to see a threshold       {_percent(plan.threshold)}"
        + (f" with {plan.strengths} strengths" if plan.threshold.reason is None else ""),
        f"a line is called a threshold   {_percent(plan.threshold_error)}",
    ]
    lines += [f"{_asked(each):<31}{_allocation(each)}" for each in plan.allocations]
    lines.append(f"rows that the audit needs      {_audit(plan.audit)}")
    if plan.defences:
        lines += ["", *_removed(plan.defences)]
    if plan.caution:
        lines.append(f"Caution: {plan.caution}.")
    if plan.sizes:
        lines += ["", f"To tell the two taus apart in {100 * plan.enough:.0f} % of studies:"]
        lines += [f"  {_size(size)}" for size in plan.sizes]
    lines += ["", describe_cost(plan.cost)]
    lines += ["", "In brackets after a share: its 95 % Monte Carlo interval."]
    return "\n".join(lines)


def _plain(plan: Plan, name: str) -> str:
    number = plan.inputs[name]
    return f"{number.value:.3g} ({number.source})"


def _interval(plan: Plan) -> str:
    text = RATIO.written(plan.interval)
    return text if plan.interval.value is not None else f"{text}: {plan.interval.reason}"


def _percent(share: ShareOfStudies) -> str:
    text = WHOLE_PERCENT.written(share)
    return text if share.value is not None else f"{text}: {share.reason}"


def _size(size: SizeRecord) -> str:
    if size.prompts is None:
        return f"{size.seeds} seeds: no number of prompts that was tried ({_percent(size.power)})"
    return f"{size.seeds} seeds x {size.prompts} prompts: {_percent(size.power)}"


def _removed(power: DefencePower) -> list[str]:
    recipes = "1 recipe" if power.recipes == 1 else f"{power.recipes} recipes"
    arms = "1 arm" if power.arms == 1 else f"{power.arms} arms"
    spread = WHOLE_PERCENT.number(power.recipe_spread)
    lines = [
        f"What defences remove of plain's shift, by margin, {recipes} at {arms} at once, "
        f"{power.seeds} seeds and {power.control_students} control students each (spread of a "
        f"recipe's students about plain's {spread} % of it, assumed):"
    ]
    for each in power.outcomes:
        width = WHOLE_PERCENT.number(each.half_width)
        lines.append(
            f"  {WHOLE_PERCENT.number(each.removed):>3} %, +-{width} points: more than nothing "
            f"shown in {_percent(each.above_zero)}, no effect in {_percent(each.no_effect)}"
        )
    return lines


def _asked(record: AllocationRecord) -> str:
    if record.wanted == "interval":
        return f"fewest students for +-{record.target:g}"
    return f"best use of {record.target:g} students"


def _allocation(record: AllocationRecord) -> str:
    if record.seeds is None:
        return f"none: {record.reason}"
    return (
        f"{record.seeds} seeds an arm and {record.control_seeds} of the control: "
        f"{record.students} students a model, shift +-{record.half_width:.2g}"
    )


def _audit(rows: AuditRows) -> str:
    needed = "more than were tried" if rows.needed is None else f"{rows.needed:,}"
    return (
        f"{needed}, for {100 * rows.passing:.0f} % of carriers without a trace to pass where "
        f"{100 * rows.share:.2g} % of everyday answers look like one ({rows.source}); "
        f"planned: {rows.planned:,}"
    )


def describe_cost(cost: GridCost) -> str:
    """What the grid takes, as plain text."""
    total = "unknown" if cost.hours is None else f"about {cost.hours:.2f} device hours at most"
    lines = [f"Cost of the {cost.cells} cells of params.yaml: {total}"]
    for model in cost.models:
        lines += [f"  {_model(model)}", *_defences(model)]
    if cost.judge_usd is None:
        lines.append(f"  judge: unknown: {cost.judge_reason}")
    elif cost.judge_usd == 0:
        lines.append("  judge: 0 USD")
    else:
        lines.append(
            f"  judge: about {cost.judge_usd:.2f} USD for {cost.judge_rows:,} rows that are not "
            f"paid for yet, at the prices of {cost.price_date}"
        )
    if cost.defence_rows and cost.judge_usd != 0:
        lines.append(
            f"  judge, besides: {cost.defence_rows:,} carrier rows that recipes filter by it"
        )
    return "\n".join(lines)


def _defences(cost: ModelCost) -> list[str]:
    """A line of their own, where defences take anything beside training."""
    if not cost.defences:
        return []
    minutes = [(each.what, 60 * each.hours) for each in cost.defences]
    parts = ", ".join(f"{what} {each:.1f}" for what, each in minutes)
    whole = sum(each for _, each in minutes)
    return [f"    of these for defences, beside training: {whole:.1f} minutes ({parts})"]


def _model(cost: ModelCost) -> str:
    if cost.hours is None:
        return f"{cost.model}: unknown: {cost.reason}"
    stages = ", ".join(f"{stage} {value:.0f} s" for stage, value in cost.seconds_per_cell.items())
    further = f"{cost.students} students of other recipes; " if cost.students else ""
    return (
        f"{cost.model}: {cost.hours:.2f} hours on {cost.device} ({cost.cells} cells: {stages} "
        f"each; {further}from {cost.source})"
    )
