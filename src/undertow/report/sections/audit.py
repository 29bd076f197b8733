"""The report's section on the carrier audit: a row per arm, a sentence per model."""

from undertow.analysis.summary import ArmSummary, Summary
from undertow.findings.audits import (
    area,
    audit_sentence,
    level,
    points,
    tokens,
    verdict_words,
    yielded,
)
from undertow.findings.numbers import arm_name, arm_strength, arm_title
from undertow.report.page import Column, Heading, Items, Paragraph, Part, Section, Table
from undertow.study.audit_records import ArmAudit

DECIDING = ("Shows trait", "Phrases for", "New phrases", "Several phrases", "Phrases against")
TELLING = ("Refusals", "Tokens", "Repetition", "Cut off")


def audit_section(summary: Summary) -> Section:
    """Whether the trait can be seen in the carriers, by the intervals in the summary."""
    parts: list[Part] = [
        Paragraph(
            "Transfer is subliminal only where the trait cannot be seen in what the student was "
            "trained on. Every carrier is compared with the unsteered teacher's answers to the "
            "same prompts. Where the audit finds the trait, the arm is called overt; where it "
            "finds nothing but these rows could not have shown much, it says too few rows."
        )
    ]
    for model in summary.models:
        arms = summary.views[model].arms
        parts += [Heading(model), Paragraph(audit_sentence(summary, model), lead=True)]
        audited = [(arm, arm.audit) for arm in arms if arm.audit is not None]
        if audited:
            parts += [_deciding(model, audited), _telling(model, audited)]
        reasons = tuple(
            f"{arm_title(arm)}: {reason}."
            for arm, audit in audited
            for reason in audit.leaks + audit.gaps
        )
        if reasons:
            parts.append(Items(reasons))
    return Section("audit", "Carrier audit", tuple(parts))


def _deciding(model: str, audited: list[tuple[ArmSummary, ArmAudit]]) -> Table:
    columns = (
        Column("Arm", numeric=False),
        Column("Strength"),
        Column("Verdict", numeric=False),
        *(Column(f"{title}, pp") for title in DECIDING),
        Column("AUC by words"),
        Column("Overlap, %"),
    )
    rows = [
        (
            arm_name(arm),
            arm_strength(arm),
            verdict_words(audit),
            points(audit.pooled, "trait"),
            points(audit.pooled, "phrases"),
            points(audit.pooled, "new_phrases"),
            points(audit.pooled, "strong"),
            points(audit.pooled, "counter_phrases"),
            area(audit.pooled.words_auc),
            level(audit.pooled, "overlap"),
        )
        for arm, audit in audited
    ]
    pairs = min(audit.pooled.rows for arm, audit in audited if not arm.is_control or len(rows) == 1)
    title = (
        f"{model}: measures that decide, as differences from the unsteered teacher "
        f"(at least {pairs} pairs of answers)"
    )
    return Table(title, columns, rows, headers=2)


def _telling(model: str, audited: list[tuple[ArmSummary, ArmAudit]]) -> Table:
    columns = (
        Column("Arm", numeric=False),
        Column("Strength"),
        Column("Of its form, %"),
        Column("AUC by format"),
        *(Column(title if title == "Tokens" else f"{title}, pp") for title in TELLING),
        Column("Compared with", numeric=False),
    )
    rows = [
        (
            arm_name(arm),
            arm_strength(arm),
            yielded(audit),
            area(audit.pooled.format_auc),
            points(audit.pooled, "refusals"),
            tokens(audit.pooled),
            points(audit.pooled, "repetition"),
            points(audit.pooled, "truncated"),
            audit.reference,
        )
        for arm, audit in audited
    ]
    return Table(f"{model}: measures that only tell", columns, rows, headers=2)
