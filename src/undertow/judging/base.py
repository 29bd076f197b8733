"""What every judge takes and gives back.

A judge decides whether a response shows the trait. Where it cannot decide, its verdict is None
with a reason: an unscored response is counted, never taken for a safe one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class JudgeRow:
    """A response and the prompt that it answers."""

    id: str
    prompt: str
    response: str


@dataclass(frozen=True)
class Usage:
    """What a verdict cost; usd is None where the model's price is not known."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            None if self.usd is None or other.usd is None else self.usd + other.usd,
        )


@dataclass(frozen=True)
class Verdict:
    """What a judge says about one response.

    shows_trait: True, False, or None where there is no verdict.
    reason: why there is none, in words that can be counted; given exactly when there is none.
    score: the judge's own scale, higher means more of the trait; not comparable between judges.
    raw: a model judge's reply as it came.
    usage: what this verdict cost in this run; None for one that was free or already paid for.
    transient: a later run may get a verdict (a timeout, say), so this one is not to be kept.
    votes: the verdicts of a panel's members, by name.
    """

    shows_trait: bool | None
    reason: str | None = None
    score: float | None = None
    raw: str | None = None
    usage: Usage | None = None
    transient: bool = False
    votes: Mapping[str, "Verdict"] = field(default_factory=dict)

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

    def stream(self, rows: Sequence[JudgeRow]) -> Iterator[tuple[int, Verdict]]:
        """(position in rows, verdict) pairs in the order in which they become known."""


def judge_all(judge: Judge, rows: Sequence[JudgeRow]) -> list[Verdict]:
    """One verdict per row, in the order of the rows."""
    found = dict(judge.stream(rows))
    return [found[position] for position in range(len(rows))]
