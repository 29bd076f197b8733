"""What judging writes beside verdicts.jsonl: replies.jsonl, votes.jsonl and its journal."""

from undertow.judging.base import Usage
from undertow.study.records import Record, Reply, Subject, VerdictRow, Vote


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
