"""The report's section on the carrier audit: a row per arm, a sentence per model."""

from undertow.analysis.summary import ArmSummary, Summary
from undertow.findings.arms import arm_name, random_twin
from undertow.findings.audits import area, level, points, tokens, verdict_words
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
            "same prompts. Where the audit finds the trait, or has too few rows to exclude it, "
            "the arm is called overt."
        )
    ]
    for model in summary.models:
        arms = summary.of_model(model)
        parts += [Heading(model), Paragraph(audit_sentence(summary, model), lead=True)]
        audited = [(arm, arm.audit) for arm in arms if arm.audit is not None]
        if audited:
            parts += [_deciding(model, audited), _telling(model, audited)]
        reasons = tuple(
            f"{arm_name(arm)} {arm.strength}: {reason}."
            for arm, audit in audited
            for reason in audit.leaks + audit.gaps
        )
        if reasons:
            parts.append(Items(reasons))
    return Section("audit", "Carrier audit", tuple(parts))


def audit_sentence(summary: Summary, model: str) -> str:
    """One sentence: which trait arms are subliminal, and what the random control does."""
    arms = summary.of_model(model)
    trait = [arm for arm in arms if arm.direction == "trait" and not arm.is_control]
    missing = [arm for arm in trait if arm.audit is None]
    if missing:
        return f"Carrier audit: unknown, because {missing[0].no_audit}."
    if not trait:
        return "Carrier audit: no trait arm was run."
    said = [f"trait {arm.strength} {_verdict(arm)}" for arm in trait]
    return f"Carrier audit: {', '.join(said)}{_random(arms, trait)}."


def _verdict(arm: ArmSummary) -> str:
    return verdict_words(arm.audit) if arm.audit is not None else "unknown"


def _random(arms: list[ArmSummary], trait: list[ArmSummary]) -> str:
    """The AUC by words at the largest strength that has a random twin."""
    for arm in sorted(trait, key=lambda a: -abs(a.alpha)):
        twin = random_twin(arms, arm)
        if twin is not None and twin.audit is not None and arm.audit is not None:
            return (
                f"; AUC by words at strength {arm.strength} {area(arm.audit.pooled.words_auc)}, "
                f"of the random control {area(twin.audit.pooled.words_auc)}"
            )
    return ""


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
            arm.strength,
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
        Column("AUC by format"),
        *(Column(title if title == "Tokens" else f"{title}, pp") for title in TELLING),
        Column("Compared with", numeric=False),
    )
    rows = [
        (
            arm_name(arm),
            arm.strength,
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
