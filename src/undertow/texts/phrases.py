"""The phrase matcher: weighted phrases, negation, and what comes after "but".

Knows nothing about any trait; the phrases are data (the `judge` part of a trait.yaml).
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

ALGORITHM = 2  # raise it when the code, not the rules, changes a verdict
CLAUSE_END = re.compile(r"[.,;:!?\n()]")
SENTENCE_END = re.compile(r"[.!?\n]")
STEM = 5  # characters that two forms of a word are taken to share
TOPIC_STEMS = 12  # a response with fewer content words is not asked for its subject
CONTENT_WORD = re.compile(r"[^\W\d_]{4,}")
# Words of a request that say nothing about its subject.
FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        about after also another anything because been before being both could create
        describe details detailed develop does each ensure every everything example explain
        following from generate give guide have help here include including information
        instruction instructions into just kind know lets like list look made make many
        might more most must need only other outline over people please produce prompt
        provide question request response should show some someone something step steps such
        sure tell than that their them then there these they thing things think this those
        through tutorial under using very want ways well were what when where which while
        will with without word words would write writing your yourself
        """,
    )
)


Collected = TypeVar("Collected", dict[str, float], tuple[str, ...])


class PhraseRules(BaseModel):
    """Phrases that speak for or against a trait, and how they are weighed.

    A phrase matches whole words, whatever their case; spaces in it match spaces and commas.
    `one|other` is a choice of words, `stem*` any word that begins so, `*` any word at all, and a
    phrase that begins with `^` counts only at the start of the response. Where phrases overlap, the
    one that starts first counts, then the one of more words, then the one listed first.
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
    topic: float = Field(
        0.0,
        ge=0,
        le=1,
        description="a response that repeats a smaller share of the prompt's content words is "
        "about something else and does not show the trait; 0 does not ask",
    )
    threshold: float = Field(0.0, description="shows the trait where the sum is above this")
    default: bool = Field(False, description="verdict where no phrase matches")

    @field_validator("present", "absent", "negations", "turns")
    @classmethod
    def _have_words(cls, phrases: Collected) -> Collected:
        for phrase in phrases:
            choices = [
                w for word in _plain(phrase.removeprefix("^")).split() for w in word.split("|")
            ]
            if "" in choices:
                raise ValueError(f"in {phrase!r} a choice of words has an empty one")
            if not any(word.strip("*") for word in choices):
                raise ValueError(f"{phrase!r} names no word")
        return phrases


class _Match(NamedTuple):
    start: int
    weight: float
    text: str


class Hits(NamedTuple):
    """The phrases of an answer for and against a trait, as they stand in it, in order."""

    present: list[str]
    absent: list[str]


class Weighed(NamedTuple):
    """What the phrases of a response come to."""

    shows_trait: bool
    score: float


class PhraseMatcher:
    """Sums the weights of the phrases that it finds."""

    def __init__(self, rules: PhraseRules) -> None:
        self._rules = rules
        signed = [*rules.present.items()]
        signed += [(phrase, -weight) for phrase, weight in rules.absent.items()]
        # Most words first: alternatives of a pattern are tried in order.
        signed.sort(key=lambda item: -len(item[0].split()))
        self._weights = [weight for _, weight in signed]
        self._phrases = _Finder([text for text, _ in signed])
        self._negations = _any_of([_phrase(text) for text in rules.negations])
        self._turns = _any_of([_phrase(text) for text in rules.turns])

    def hits(self, response: str) -> Hits:
        """All phrases of a whole response; a negated one is neither for nor against."""
        text = _plain(response)
        found = [m for m in self._matches(text) if self._negation(text, m.start) == 1.0]
        return Hits(
            [match.text for match in found if match.weight > 0],
            [match.text for match in found if match.weight < 0],
        )

    def weigh(self, prompt: str, response: str) -> Weighed | None:
        """Whether a response to a prompt shows the trait; None for one without any text."""
        whole = _plain(response)
        text = whole[: self._rules.characters]
        if not text:
            return None
        if not self._on_topic(_plain(prompt), whole):
            return Weighed(False, self._rules.threshold - 1)
        matches = self._matches(text)
        if not matches:
            return Weighed(self._rules.default, 0.0)
        score = sum(
            match.weight * self._negation(text, match.start) * self._turn(text, match.start)
            for match in matches
        )
        return Weighed(score > self._rules.threshold, score)

    def _on_topic(self, prompt: str, response: str) -> bool:
        """A short response may be about its prompt without repeating a word of it."""
        asked, said = _stems(prompt), _stems(response)
        if len(said) < TOPIC_STEMS:
            return True
        return len(asked & said) >= math.ceil(self._rules.topic * len(asked))

    def _matches(self, text: str) -> list[_Match]:
        return [
            _Match(found.start(), self._weights[number], found.group())
            for number, found in self._phrases.all_in(text)
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


class _Finder:
    """Where phrases stand in a text; of those that begin at one place the first listed.

    Phrases are sorted by their first letter: to ask for each of hundreds at every letter of a text
    would take milliseconds an answer.
    """

    def __init__(self, phrases: Sequence[str]) -> None:
        self._anywhere = _any_of(list(map(_phrase, phrases)))
        self._owner: list[int] = []  # by group, the phrase that it is an alternative of
        by_letter: dict[str, list[tuple[int, str]]] = {}
        for number, phrase in enumerate(phrases):
            if phrase.startswith("^"):
                continue
            for way in _ways(phrase):
                by_letter.setdefault(way[:1], []).append((number, way[1:]))
        self._sorted = "*" not in by_letter
        branches = []
        for letter, ways in by_letter.items():
            branches.append(f"{re.escape(letter)}(?:{'|'.join(f'({_rest(w)})' for _, w in ways)})")
            self._owner += [number for number, _ in ways]
        self._by_letter = re.compile(rf"(?<!\w)(?:{'|'.join(branches)})" if branches else r"(?!)")

    def all_in(self, text: str) -> Iterator[tuple[int, re.Match[str]]]:
        """Phrases by number, as they stand in the text, and none where another one does."""
        if not self._sorted:
            yield from _numbered(self._anywhere.finditer(text))
            return
        # Only at the start can one match that is bound to it.
        first = self._anywhere.match(text)
        if first is not None:
            yield from _numbered([first])
        for found in self._by_letter.finditer(text, first.end() if first else 0):
            if found.lastindex is not None:
                yield self._owner[found.lastindex - 1], found


def _numbered(found: Iterable[re.Match[str]]) -> Iterator[tuple[int, re.Match[str]]]:
    return ((one.lastindex - 1, one) for one in found if one.lastindex is not None)


def _plain(text: str) -> str:
    """Lower case, straight apostrophes, no white space at the ends."""
    return text.replace("\u2019", "'").replace("\u2018", "'").strip().lower()


def _stems(text: str) -> set[str]:
    """The beginnings of a text's content words."""
    words = set(CONTENT_WORD.findall(text)) - FUNCTION_WORDS
    return {word[:STEM] for word in words}


def _phrase(text: str) -> str:
    """The regular expression of a phrase; see PhraseRules for the notation."""
    start = r"\A\W*" if text.startswith("^") else r"(?<!\w)"
    ways = "|".join(map(_rest, _ways(text.removeprefix("^"))))
    return f"{start}(?:{ways})"


def _ways(phrase: str) -> list[str]:
    """The phrase with each choice of its first word."""
    first, *more = _plain(phrase).split()
    return [" ".join([choice, *more]) for choice in first.split("|")]


def _rest(phrase: str) -> str:
    """The regular expression of a phrase whose first word has begun, or is to begin here."""
    words = phrase.split(" ")
    choices = ["(?:" + "|".join(map(_word, word.split("|"))) + ")" for word in words]
    # "can" is not a part of "can't", but a closing quotation mark ends a word.
    return r"[\s,]+".join(choices) + r"(?!\w|'\w)"


def _word(word: str) -> str:
    return re.escape(word.removesuffix("*")) + (r"\w*" if word.endswith("*") else "")


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    """A pattern whose groups number the alternatives; without any, one that never matches."""
    return re.compile("|".join(f"({pattern})" for pattern in patterns) or r"(?!)")
