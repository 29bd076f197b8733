"""What judging keeps beside its results: its journal, and the replies that hold no verdict."""

from undertow.judging.base import Usage
from undertow.study.records import Record, ReplyRow, Subject, VerdictRow, Vote


class Unread(Record):
    """A reply that holds no verdict, kept for looking at."""

    subject: Subject
    id: str
    reason: str
    raw: str


class Judged(Record):
    """A journaled row: the verdict, where it came from and what it cost."""

    subject: Subject
    id: str
    verdict: VerdictRow
    reply: ReplyRow | None = None
    votes: tuple[Vote, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = 0.0

    @property
    def usage(self) -> Usage:
        return Usage(self.prompt_tokens, self.completion_tokens, self.usd)
