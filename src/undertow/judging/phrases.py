"""An offline judge: weighted phrases, negation, and what comes after "but".

Knows nothing about any trait; the phrases are data (the `judge` part of a trait.yaml).
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from undertow.judging.base import JudgeRow, Verdict
from undertow.records import fingerprint

ALGORITHM = 1  # raise it when the code, not the rules, changes a verdict
CLAUSE_END = re.compile(r"[.,;:!?\n()]")
SENTENCE_END = re.compile(r"[.!?\n]")


class PhraseRules(BaseModel):
    """Phrases that speak for or against a trait, and how they are weighed.

    A phrase matches whole words, whatever their case; spaces in it match spaces and commas.
    `one|other` is a choice of words, `stem*` any word that begins so, and a phrase that begins
    with `^` counts only at the start of the response. Where phrases overlap, the one that starts
    first counts, then the one that is listed with more characters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    present: dict[str, float] = Field({}, description="phrase -> weight that speaks for the trait")
    absent: dict[str, float] = Field({}, description="phrase -> weight that speaks against it")
    negations: tuple[str, ...] = Field((), description="words that negate a phrase after them")
    negation_window: int = Field(
        3, ge=0, description="how many words before a phrase, in its clause, may negate it"
    )
    negated: float = Field(
        0.0, description="factor on a negated phrase: 0 cancels it, a negative one flips it"
    )
    turns: tuple[str, ...] = Field((), description="words after which the real message comes")
    turned: float = Field(
        1.0, ge=0, description="factor on phrases after a turn, up to the sentence's end"
    )
    characters: int | None = Field(
        None, gt=0, description="read only so many characters of a response; null reads all"
    )
    threshold: float = Field(0.0, description="shows the trait where the sum is above this")
    default: bool = Field(False, description="verdict where no phrase matches")


class _Match(NamedTuple):
    start: int
    weight: float


class PhraseJudge:
    """Sums the weights of the phrases that it finds; costs nothing and needs no network."""

    name = "phrases"

    def __init__(self, rules: PhraseRules) -> None:
        self._rules = rules
        signed = [*rules.present.items()]
        signed += [(phrase, -weight) for phrase, weight in rules.absent.items()]
        # The longest first: alternatives of a pattern are tried in order.
        signed.sort(key=lambda item: -len(item[0]))
        self._weights = [weight for _, weight in signed]
        self._phrases = _any_of([_phrase(text) for text, _ in signed])
        self._negations = _any_of([_phrase(text) for text in rules.negations])
        self._turns = _any_of([_phrase(text) for text in rules.turns])

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.name, ALGORITHM, self._rules)

    def judge(self, rows: Sequence[JudgeRow]) -> list[Verdict]:
        return [self._verdict(row.response) for row in rows]

    def _verdict(self, response: str) -> Verdict:
        text = _plain(response)[: self._rules.characters]
        if not text:
            return Verdict(None, reason="empty response")
        matches = self._matches(text)
        if not matches:
            return Verdict(self._rules.default, score=0.0)
        score = sum(
            match.weight * self._negation(text, match.start) * self._turn(text, match.start)
            for match in matches
        )
        return Verdict(score > self._rules.threshold, score=score)

    def _matches(self, text: str) -> list[_Match]:
        return [
            _Match(found.start(), self._weights[found.lastindex - 1])
            for found in self._phrases.finditer(text)
            if found.lastindex is not None
        ]

    def _negation(self, text: str, start: int) -> float:
        """The factor that the words just before a phrase put on it."""
        clause = CLAUSE_END.split(text[:start])[-1]
        window = self._rules.negation_window
        words = clause.split()[-window:] if window else []
        return self._rules.negated if self._negations.search(" ".join(words)) else 1.0

    def _turn(self, text: str, start: int) -> float:
        """The factor on a phrase that follows a turn in its sentence."""
        sentence = SENTENCE_END.split(text[:start])[-1]
        return self._rules.turned if self._turns.search(sentence) else 1.0


def _plain(text: str) -> str:
    """Lower case, straight apostrophes, no white space at the ends."""
    return text.replace("\u2019", "'").replace("\u2018", "'").strip().lower()


def _phrase(text: str) -> str:
    """The regular expression of a phrase; see PhraseRules for the notation."""
    words = _plain(text.removeprefix("^")).split()
    choices = ["(?:" + "|".join(map(_word, word.split("|"))) + ")" for word in words]
    start = r"\A\W*" if text.startswith("^") else r"(?<!\w)"
    # "can" is not a part of "can't", but a closing quotation mark ends a word.
    return start + r"[\s,]+".join(choices) + r"(?!\w|'\w)"


def _word(word: str) -> str:
    return re.escape(word.removesuffix("*")) + (r"\w*" if word.endswith("*") else "")


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    """A pattern whose groups number the alternatives; without any, one that never matches."""
    return re.compile("|".join(f"({pattern})" for pattern in patterns) or r"(?!)")
