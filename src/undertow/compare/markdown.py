"""A comparison as Markdown, fit for a pull request. Shows the records and computes nothing."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from undertow.compare.records import (
    CellChange,
    Comparison,
    Difference,
    MissingCell,
    RecipeChange,
    RoundChange,
    TauChange,
    VerdictChange,
)
from undertow.findings.numbers import PERCENT, RATIO, READOUTS, SCALES, Scale
from undertow.stats.intervals import Estimate
from undertow.study.records import ReadoutName
from undertow.texts.tables import markdown_table
from undertow.texts.untrusted import visible

SPECIAL = re.compile(r"([\\`*<>\[\]|])")
LONG = 80
VERDICT_HEAD = ("model", "arm", "verdict", "before", "after", "did what it rests on move?")
CHANGE_HEAD = ("before", "after", "difference", "after against before")
RECIPE_HEAD = ("model", "recipe", "arm", "what", *CHANGE_HEAD)
ROUND_HEAD = ("model", "student", "arm", "what", *CHANGE_HEAD)
READOUT_UNITS: dict[ReadoutName, str] = {"margin": "margin", "rate": "rate of verdicts"}


def comparison_markdown(comparison: Comparison) -> str:
    """Headline, then a section for each kind of change that there is."""
    parts = [
        f"## Undertow: {_text(comparison.before.label)} against {_text(comparison.after.label)}",
        f"**{_text(comparison.headline)}**",
        *(_text(note) for note in comparison.notes),
    ]
    if comparison.params:
        rows = [(p.key, _value(p.before), _value(p.after)) for p in comparison.params]
        parts += ["### Parameters", _table(("key", "before", "after"), rows)]
    if comparison.cells:
        parts += ["### Cells", _table(("cell", "change", "cause"), _cells(comparison.cells))]
        if comparison.cells_unchanged:
            parts.append(f"Unchanged cells: {comparison.cells_unchanged}.")
    for readout in READOUTS:
        taus = [tau for tau in comparison.taus if tau.readout == readout]
        if taus and any(tau.difference.word != "same data" for tau in taus):
            parts += [f"### tau by {READOUT_UNITS[readout]}", _taus(taus)]
    parts += further_tables(comparison)
    changes = [
        *(each.difference for each in comparison.taus),
        *(each.difference for each in comparison.recipes),
        *(each.difference for each in comparison.rounds),
    ]
    if any(each.word != "same data" for each in changes):
        parts.append(_legend(comparison))
    if comparison.verdicts:
        parts += ["### Verdicts", _table(VERDICT_HEAD, map(_verdict, comparison.verdicts))]
    if comparison.missing:
        head = ("cell", "side", "why there is no result", "what to type")
        parts += ["### Not available", _table(head, map(_missing, comparison.missing))]
    return "\n\n".join(parts) + "\n"


def further_tables(comparison: Comparison) -> Iterable[str]:
    """A table per readout of recipes, and of rounds, where any rests on other data."""
    for readout in READOUTS:
        recipes = [each for each in comparison.recipes if each.readout == readout]
        if any(each.difference.word != "same data" for each in recipes):
            yield f"### Recipes by {READOUT_UNITS[readout]}"
            yield _table(RECIPE_HEAD, map(_recipe, recipes))
        rounds = [each for each in comparison.rounds if each.readout == readout]
        if any(each.difference.word != "same data" for each in rounds):
            yield f"### Rounds by {READOUT_UNITS[readout]}"
            yield _table(ROUND_HEAD, map(_round, rounds))


def _recipe(each: RecipeChange) -> tuple[str, ...]:
    scales = (RATIO, RATIO) if each.measure == "tau" else (PERCENT, SCALES["rate"])
    return (each.model, each.student, each.arm, each.measure, *_sides(each, *scales))


def _round(each: RoundChange) -> tuple[str, ...]:
    last = each.students[-1] if each.round is None else each.students[each.round - 1]
    measure = "mean step ratio" if each.round is None else f"tau, round {each.round}"
    return (each.model, last, each.arm, measure, *_sides(each, RATIO, RATIO))


def _sides(each: RecipeChange | RoundChange, scale: Scale, apart: Scale) -> tuple[str, ...]:
    before, after = ("-" if e is None else scale.written(e) for e in (each.before, each.after))
    return before, after, _difference(each.difference, apart), _word(each.difference)


def _cells(changes: Iterable[CellChange]) -> Iterable[tuple[str, str, str]]:
    """A row each; what came or went with a recipe or round has one for each model."""
    whole: dict[tuple[str, str, str], int] = {}
    rows: list[tuple[str, str, str]] = []
    for change in changes:
        model, _, _, *student = change.cell.split("/")
        if not student or change.state not in ("appeared", "vanished"):
            rows.append(_cell(change))
            continue
        group = (model, student[0], change.state)
        if group not in whole:
            rows.append(group)
        whole[group] = whole.get(group, 0) + 1
    for row in rows:
        many = whole.get(row)
        yield row if many is None else (f"{row[0]}, {row[1]}: {many} cells", row[2], "the grid")


def _cell(change: CellChange) -> tuple[str, str, str]:
    state = change.state + (f": {change.detail}" if change.detail else "")
    if change.state in ("appeared", "vanished"):
        return change.cell, state, "the grid"
    return change.cell, state, ", ".join(change.causes) or "none recorded in dvc.lock"


def _taus(taus: Sequence[TauChange]) -> str:
    head = ("model", "arm", *CHANGE_HEAD)
    rows = [
        (
            tau.model,
            tau.arm,
            _tau(tau.before),
            _tau(tau.after),
            _difference(tau.difference, RATIO),
            _word(tau.difference),
        )
        for tau in taus
    ]
    return _table(head, rows)


def _tau(tau: Estimate | None) -> str:
    return "-" if tau is None else RATIO.written(tau)


def _difference(difference: Difference, scale: Scale) -> str:
    if difference.estimate.value is None:
        return "-"
    shown = scale.written(difference.estimate, signed=True)
    if difference.basis == "paired":
        return f"{shown}, paired on {difference.prompts} prompts"
    return f"{shown}, independent"


def _word(difference: Difference) -> str:
    match difference.word:
        case "same data":
            return "the same data"
        case "unknown":
            return f"cannot be said: {difference.estimate.reason}"
        case "not distinguishable":
            return "not distinguishable from noise: the interval covers 0"
        case word:
            return f"{word}: the interval excludes 0"


def _legend(comparison: Comparison) -> str:
    return (
        f"Brackets: {100 * comparison.confidence:.4g} % intervals, "
        f"{comparison.resamples:,} resamples, both sides with the settings of the second. "
        "Paired: both sides resample the same prompts together. tau is undefined where the "
        "teacher did not measurably move."
    )


def _verdict(change: VerdictChange) -> tuple[str, ...]:
    by = f" by {change.readout}" if change.readout else ""
    names = (change.model, change.arm or "all", change.subject + by, change.before, change.after)
    if change.difference is None or change.readout is None:
        return (*names, "-")
    shown = _difference(change.difference, SCALES[change.readout])
    match change.difference.word:
        case "higher" | "lower":
            answer = "yes"
        case "unknown":
            answer = "cannot be said"
        case _:
            answer = "not measurably"
    return (*names, f"{answer}: {change.rests_on} {shown}")


def _missing(gap: MissingCell) -> tuple[str, str, str, str]:
    return gap.cell, gap.side, gap.reason, gap.remedy


def _value(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        text = ", ".join(map(str, value))
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONG else f"{text[:LONG]}..."


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return markdown_table(head, [tuple(map(_text, row)) for row in rows])


def _text(text: str) -> str:
    """Text that Markdown and HTML leave as it is, on one line.

    A bracket of an interval needs no backslash: it starts no link without a parenthesis.
    """
    flat = " ".join(visible(text).split())
    return re.sub(r"\\([\[\]])", r"\1", SPECIAL.sub(r"\\\1", flat)).replace("](", "]\\(")
