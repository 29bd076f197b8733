"""What judging writes beside verdicts.jsonl: replies.jsonl, votes.jsonl and its journal."""

from typing import Literal

from undertow.judging.base import Usage
from undertow.study.records import Record, VerdictRow

Subject = Literal["teacher", "student"]


class Reply(Record):
    """A row of replies.jsonl: what a model judge answered, as it came."""

    subject: Subject
    id: str
    raw: str


class Vote(Record):
    """A row of votes.jsonl: what one member of a panel said."""

    subject: Subject
    id: str
    judge: str
    shows_trait: bool | None
    reason: str | None = None
    score: float | None = None


class Judged(Record):
    """A journaled row: the verdict, where it came from and what it cost."""

    subject: Subject
    id: str
    verdict: VerdictRow
    reply: Reply | None = None
    votes: tuple[Vote, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = 0.0

    @property
    def usage(self) -> Usage:
        return Usage(self.prompt_tokens, self.completion_tokens, self.usd)
