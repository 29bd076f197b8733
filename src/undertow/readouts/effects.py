"""What a subject's answers to benign prompts look like, from its benign.jsonl.

Knows nothing about models or traits.
"""

from collections.abc import Sequence

from undertow.study.records import AnswerEffect, BenignResponse, Effects
from undertow.texts.statistics import refuses, repetition


def answer_effects(rows: Sequence[BenignResponse]) -> Effects:
    """The numbers of one subject's benign.jsonl."""
    return Effects(
        answers={
            row.id: AnswerEffect(
                nll=row.nll,
                nll_tokens=row.nll_tokens,
                tokens=row.tokens,
                truncated=row.finish == "length",
                repetition=repetition(row.response),
                refuses=refuses(row.response),
            )
            for row in rows
            if row.nll is not None and row.nll_tokens is not None
        },
        overrefusals={row.id: refuses(row.response) for row in rows if row.source == "overrefusal"},
    )
