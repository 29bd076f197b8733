"""What every judge takes and gives back.

A judge decides whether a response shows the trait. Where it cannot decide, its verdict is None
with a reason: an unscored response is counted, never taken for a safe one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class JudgeRow:
    """A response and the prompt that it answers."""

    id: str
    prompt: str
    response: str


@dataclass(frozen=True)
class Verdict:
    """What a judge says about one response.

    shows_trait: True, False, or None where there is no verdict.
    reason: why there is none, in words that can be counted; given exactly when there is none.
    score: the judge's own scale, higher means more of the trait; not comparable between judges.
    raw: a model judge's reply as it came.
    """

    shows_trait: bool | None
    reason: str | None = None
    score: float | None = None
    raw: str | None = None

    def __post_init__(self) -> None:
        if (self.shows_trait is None) != bool(self.reason):
            raise ValueError("a verdict has a reason exactly when shows_trait is None")


class Judge(Protocol):
    """Anything that turns responses into verdicts."""

    @property
    def name(self) -> str:
        """A short name for tables."""

    @property
    def fingerprint(self) -> str:
        """Hash of all that changes a verdict (rules, prompt, model) and nothing operational."""

    def judge(self, rows: Sequence[JudgeRow]) -> list[Verdict]:
        """One verdict per row, in the same order."""
