"""Several judges on the same rows: one verdict, all votes kept.

A member that keeps its verdicts in a cache may be asked again after a kill; one that does not is
asked again only for the rows that the stage has not journaled.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from undertow.judging.base import Judge, JudgeRow, Usage, Verdict, judge_all
from undertow.study.files import fingerprint

BLOCK = 64  # rows that all members judge before the next ones: what a kill can cost at most
TIE = "panel: no majority"
NO_VOTE = "panel: no member has a verdict"


class PanelJudge:
    """Asks every member and combines what they say.

    majority: what more than half of the members with a verdict say; a tie is unscored.
    primary: what the first member says; the others are there to compare.
    """

    def __init__(self, members: Mapping[str, Judge], rule: Literal["majority", "primary"]) -> None:
        self._members = members
        self._rule = rule

    @property
    def name(self) -> str:
        return f"{self._rule} of {', '.join(self._members)}"

    @property
    def fingerprint(self) -> str:
        members = [(name, member.fingerprint) for name, member in self._members.items()]
        return fingerprint("panel", self._rule, members)

    def stream(self, rows: Sequence[JudgeRow]) -> Iterator[tuple[int, Verdict]]:
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            votes = {name: judge_all(member, block) for name, member in self._members.items()}
            for offset in range(len(block)):
                yield start + offset, self._combined({n: v[offset] for n, v in votes.items()})

    def _combined(self, votes: Mapping[str, Verdict]) -> Verdict:
        usage = sum((vote.usage for vote in votes.values() if vote.usage), Usage())
        primary = next(iter(votes.values()))
        if self._rule == "primary":
            shows, reason, score = primary.shows_trait, primary.reason, primary.score
        else:
            shows, reason = majority([vote.shows_trait for vote in votes.values()])
            score = None  # members' scales are not comparable
        # A vote that a later run may get is kept out of the journal only where it is missed.
        transient = any(vote.transient for vote in votes.values())
        return Verdict(
            shows, reason, score, primary.raw, usage=usage, transient=transient, votes=dict(votes)
        )


def majority(votes: Sequence[bool | None]) -> tuple[bool | None, str | None]:
    """The verdict of more than half of those that have one, else None with the reason."""
    known = [vote for vote in votes if vote is not None]
    if not known:
        return None, NO_VOTE
    if 2 * sum(known) == len(known):
        return None, TIE
    return 2 * sum(known) > len(known), None
