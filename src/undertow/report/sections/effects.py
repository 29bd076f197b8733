"""The report on side effects: what steering and distillation do to benign answers."""

from collections.abc import Iterable

from undertow.analysis.side_effects import EffectsSummary
from undertow.analysis.summary import ArmSummary, Summary
from undertow.findings.numbers import PERCENT, Scale, arm_name, arm_strength, arm_title
from undertow.report.page import Column, Items, Paragraph, Part, Section, Table

PERPLEXITY = Scale("", 1, 2)
TOKENS = Scale("", 1, 1)
EXPLAINED = (
    "Answers to benign prompts that are not in the carrier, decoded like the evaluation. "
    "Perplexity is that of the answer under the unsteered base model, with the prompt as "
    "context; a loop is likely under the base, so repetition stands beside it. Refusals are "
    "found by phrases in the answer's opening. Intervals of means resample prompts, those of "
    "shares are Wilson's; neither speaks of other seeds."
)
MEASURES = (
    "Perplexity",
    "Tokens",
    "Cut off, %",
    "Repeated 4-grams, %",
    "Refusals, %",
    "Over-refusals, %",
)


def effects_section(summary: Summary) -> Section:
    """A table per model, and which teachers are past the bound on coherence."""
    parts: list[Part] = [Paragraph(EXPLAINED)]
    for model in summary.models:
        arms = summary.views[model].arms
        reasons = _reasons(arms)
        rows = [
            (arm_name(arm), arm_strength(arm), subject, *_measures(effects))
            for arm in arms
            for subject, effects in _subjects(arm)
            if effects.perplexity.value is not None or effects.overrefusals.value is not None
        ]
        if rows:
            prompts = max(effects.prompts for arm in arms for _, effects in _subjects(arm))
            parts.append(
                Table(
                    f"{model}: {prompts} held-back benign prompts",
                    (
                        Column("Arm", numeric=False),
                        Column("Strength"),
                        Column("Subject", numeric=False),
                        *map(Column, MEASURES),
                    ),
                    rows,
                    headers=3,
                )
            )
        remarks = (*incoherent(summary, model), *(f"{model}: {reason}." for reason in reasons))
        if remarks:
            parts.append(Items(remarks))
    return Section("effects", "Side effects", tuple(parts))


def incoherent(summary: Summary, model: str) -> tuple[str, ...]:
    """A sentence for each arm whose teacher is past the bound or whose student learnt nothing."""
    arms = [arm for arm in summary.arms if arm.model == model]
    return (
        *(
            f"{arm_title(arm)}: {arm.degenerate}; left out of fits."
            for arm in arms
            if arm.degenerate
        ),
        *(f"{arm_title(arm)}: {arm.diverged}." for arm in arms if arm.diverged),
    )


def _subjects(arm: ArmSummary) -> list[tuple[str, EffectsSummary]]:
    pairs = (("teacher", arm.teacher_effects), ("student", arm.student_effects))
    return [(subject, effects) for subject, effects in pairs if effects is not None]


def _reasons(arms: Iterable[ArmSummary]) -> list[str]:
    """Why measures are unknown, each reason once."""
    found = [
        estimate.reason
        for arm in arms
        for _, effects in _subjects(arm)
        for estimate in (effects.perplexity, effects.tokens, effects.overrefusals)
        if estimate.reason
    ]
    return list(dict.fromkeys(found))


def _measures(effects: EffectsSummary) -> tuple[str, ...]:
    shares = (effects.repetition, effects.refusals, effects.overrefusals)
    return (
        PERPLEXITY.written(effects.perplexity),
        TOKENS.written(effects.tokens),
        # Without its interval: with it the table is wider than the page.
        PERCENT.number(effects.truncated.value),
        *map(PERCENT.bare.written, shares),
    )
