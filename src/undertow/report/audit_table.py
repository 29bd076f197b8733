"""The audit of one model as plain text, at most 100 columns wide."""

import textwrap
from collections.abc import Sequence

from undertow.findings.audits import area, level, points, tokens, verdict_words
from undertow.study.audit_records import ArmAudit, MeasureName, ModelAudit

WIDTH = 98


def audit_table(found: ModelAudit) -> str:
    """Measures that decide, measures that only tell, and the reasons in words."""
    judge = f"{found.judge} asked as well" if found.judge else f"not asked: {found.judge_reason}"
    lines = _wrapped(
        f"Carrier audit of {found.model}, trait {found.trait}. Differences are from the unsteered "
        f"teacher's answers to the same prompts, in percentage points; [ ]: "
        f"{100 * found.bounds.confidence:.4g} % interval. Filter: {found.filter}. Configured "
        f"judge: {judge}."
    )
    arms = sorted(found.arms, key=lambda a: (float(a.strength) != 0, a.direction == "random"))
    lines += ["", *_deciding(arms), "", *_phrases(arms), "", *_telling(arms)]
    overlap = ", ".join(f"{arm.arm} {level(arm.pooled, 'overlap')}" for arm in arms)
    lines += ["", *_wrapped(f"Rows that overlap with evaluation prompts, %: {overlap}.", hang=2)]
    for arm in arms:
        for reason in arm.leaks + arm.gaps:
            lines += _wrapped(f"{arm.arm}: {reason}.", hang=2)
    return "\n".join(lines) + "\n"


def _deciding(arms: Sequence[ArmAudit]) -> list[str]:
    head = ("arm", "verdict", "pairs", "shows trait", "AUC by words", "AUC by format")
    return _columns(
        head,
        [
            (
                arm.arm,
                "passes" if arm.passes and arm.verdict is None else verdict_words(arm),
                str(arm.pooled.rows),
                points(arm.pooled, "trait"),
                area(arm.pooled.words_auc),
                area(arm.pooled.format_auc),
            )
            for arm in arms
        ],
    )


def _phrases(arms: Sequence[ArmAudit]) -> list[str]:
    head = ("arm", "phrases for", "new phrases", "several", "phrases against")
    names: tuple[MeasureName, ...] = ("phrases", "new_phrases", "strong", "counter_phrases")
    return _columns(
        head, [(arm.arm, *(points(arm.pooled, name) for name in names)) for arm in arms]
    )


def _telling(arms: Sequence[ArmAudit]) -> list[str]:
    head = ("arm", "refusals", "tokens", "repeated", "cut off")
    return _columns(
        head,
        [
            (
                arm.arm,
                points(arm.pooled, "refusals"),
                tokens(arm.pooled),
                points(arm.pooled, "repetition"),
                points(arm.pooled, "truncated"),
            )
            for arm in arms
        ],
    )


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return [
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _wrapped(text: str, hang: int = 0) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=" " * hang, break_on_hyphens=False)
