"""The phrase matcher as a judge: costs nothing and needs no network."""

from collections.abc import Iterator, Sequence

from undertow.judging.base import JudgeRow, Verdict
from undertow.study.files import fingerprint
from undertow.texts.phrases import ALGORITHM, PhraseMatcher, PhraseRules


class PhraseJudge:
    """A verdict from the weighted phrases of a trait."""

    name = "phrases"

    def __init__(self, rules: PhraseRules) -> None:
        self._rules = rules
        self._matcher = PhraseMatcher(rules)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.name, ALGORITHM, self._rules)

    def stream(self, rows: Sequence[JudgeRow]) -> Iterator[tuple[int, Verdict]]:
        for position, row in enumerate(rows):
            weighed = self._matcher.weigh(row.prompt, row.response)
            if weighed is None:
                yield position, Verdict(None, reason="empty response")
            else:
                yield position, Verdict(weighed.shows_trait, score=weighed.score)
