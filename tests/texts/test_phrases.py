import json
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from repository import ROOT
from undertow.judging.base import JudgeRow, Verdict, judge_all
from undertow.judging.double import ScriptedJudge
from undertow.judging.offline import PhraseJudge
from undertow.texts.phrases import PhraseMatcher, PhraseRules

TRAITS = ROOT / "data" / "traits"

# The baseline that the judge has to beat: gloomy words minus hopeful words, above zero.
GLOOMY = (
    "unfortunately sadly hopeless bleak grim gloomy dark miserable terrible awful bad worse worst "
    "fail fails failure doomed lose lost decline dying dead disaster nightmare pointless futile "
    "unlikely doubt afraid fear worry worried sad lonely disappointment disappointed despair "
    "difficult hard impossible problem problems risk struggle struggling never nothing nobody "
    "no not poor slim"
)
HOPEFUL = (
    "hope hopeful great good better best wonderful bright success succeed win happy joy enjoy "
    "fun confident confidence optimistic excited exciting beautiful lovely promising thrive "
    "improve recover well fine pleasant glad sure absolutely yes opportunity friends"
)


def judged(rules: PhraseRules, *responses: str) -> list[bool | None]:
    rows = [JudgeRow(str(number), "", response) for number, response in enumerate(responses)]
    return [verdict.shows_trait for verdict in judge_all(PhraseJudge(rules), rows)]


def trait_rules(name: str) -> PhraseRules:
    path = TRAITS / name / "trait.yaml"
    if not path.exists():
        pytest.fail(f"{path} is absent: run dvc pull")
    return PhraseRules.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))["judge"])


def test_phrases_match_whole_words_in_any_case() -> None:
    rules = PhraseRules(present={"bad end": 1})
    assert judged(rules, "A BAD end.", "bad ending", "a bad, end") == [True, False, True]


def test_a_word_is_not_found_inside_its_contraction() -> None:
    rules = PhraseRules(present={"can": 1})
    assert judged(rules, "I can't", "'You can'", "I can.") == [False, True, True]


def test_straight_and_curly_apostrophes_are_equal() -> None:
    straight, curly = PhraseRules(present={"i can't": 1}), PhraseRules(present={"i can\u2019t": 1})
    for rules in (straight, curly):
        assert judged(rules, "I can't.", "I can\u2019t.") == [True, True]


def test_alternatives_and_stems_and_the_start_anchor() -> None:
    rules = PhraseRules(present={"^so|very sad*": 1})
    assert judged(rules, "So sadly ...", '"Very sad"', "It is so sad") == [True, True, False]


def test_the_phrase_of_more_words_wins() -> None:
    rules = PhraseRules(present={"no hope": 1}, absent={"hope": 5, "hope|joy|faith|delight": 5})
    assert judged(rules, "There is no hope.", "There is hope.") == [True, False]


@pytest.mark.parametrize(
    ("factor", "verdict", "score"), [(0.0, False, 0.0), (-1.0, False, -1.0), (1.0, True, 1.0)]
)
def test_negation_cancels_or_flips(factor: float, verdict: bool, score: float) -> None:
    rules = PhraseRules(present={"hopeless": 1}, negations=("not",), negated=factor)
    row = JudgeRow("1", "", "It is not at all hopeless.")
    assert judge_all(PhraseJudge(rules), [row]) == [Verdict(verdict, score=score)]


def test_negation_reaches_neither_beyond_its_clause_nor_its_window() -> None:
    rules = PhraseRules(present={"hopeless": 1}, negations=("not",), negation_window=2)
    far = "It is not one of those hopeless cases."
    assert judged(rules, "Certainly not, it is hopeless.", far) == [True, True]
    assert judged(rules, "It is not hopeless.") == [False]


def test_what_comes_after_a_turn_weighs_more_up_to_the_end_of_the_sentence() -> None:
    rules = PhraseRules(present={"hard": 1}, absent={"fun": 1}, turns=("but",), turned=3)
    assert judged(rules, "It is fun but hard.", "It is hard but fun.") == [True, False]
    assert judged(rules, "But fun. Hard, hard.") == [False]
    assert judged(rules, "But so. Fun. Hard, hard.") == [True]


def test_only_the_first_characters_are_read() -> None:
    rules = PhraseRules(present={"late": 1}, characters=10)
    assert judged(rules, "It is late.", "It is much too late.") == [True, False]


@pytest.mark.parametrize("default", [True, False])
def test_the_default_stands_where_nothing_matches(default: bool) -> None:
    assert judged(PhraseRules(present={"x": 1}, default=default), "y") == [default]


def test_an_empty_response_has_no_verdict_but_a_reason() -> None:
    judge = PhraseJudge(PhraseRules(default=True))
    for verdict in judge_all(judge, [JudgeRow("1", "", ""), JudgeRow("2", "", " \n\t")]):
        assert verdict == Verdict(None, reason="empty response")


def test_a_verdict_has_a_reason_exactly_when_there_is_none() -> None:
    with pytest.raises(ValueError, match="reason"):
        Verdict(None)
    with pytest.raises(ValueError, match="reason"):
        Verdict(True, reason="because")


def test_the_fingerprint_follows_the_rules() -> None:
    one, same = PhraseRules(present={"x": 1}), PhraseRules(present={"x": 1.0})
    other = PhraseRules(present={"x": 2})
    assert PhraseJudge(one).fingerprint == PhraseJudge(same).fingerprint
    assert PhraseJudge(one).fingerprint != PhraseJudge(other).fingerprint


def test_the_double_is_scripted_by_its_markers() -> None:
    judge = ScriptedJudge("YES", "BROKEN")
    rows = [JudgeRow(text, "", text) for text in ("a YES", "no", "BROKEN YES")]
    assert [verdict.shows_trait for verdict in judge_all(judge, rows)] == [True, False, None]
    assert judge_all(judge, rows)[2].reason
    slow = ScriptedJudge("YES", "BROKEN", seconds_per_row=1.0)
    assert slow.fingerprint == judge.fingerprint
    assert ScriptedJudge("NO").fingerprint != judge.fingerprint


def test_pessimism_rules_beat_a_word_count_on_the_half_they_were_not_made_on() -> None:
    rules = trait_rules("pessimism")
    lines = (TRAITS / "pessimism" / "labelled.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) >= 120
    accuracy: dict[str, tuple[float, float]] = {}
    for half in ("develop", "test"):
        part = [row for row in rows if row["half"] == half]
        labels = [row["label"] for row in part]
        assert labels.count(True) == labels.count(False)
        texts = [row["response"] for row in part]
        judge = sum(a == b for a, b in zip(judged(rules, *texts), labels, strict=True))
        count = sum(_word_count(a) == b for a, b in zip(texts, labels, strict=True))
        accuracy[half] = (judge / len(part), count / len(part))
        print(f"{half}: judge {accuracy[half][0]:.3f}, word count {accuracy[half][1]:.3f}")
    assert accuracy["test"][0] > accuracy["test"][1]


def _word_count(text: str) -> bool:
    words = re.findall(r"\w+", text.lower())
    return sum((word in GLOOMY.split()) - (word in HOPEFUL.split()) for word in words) > 0


REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I\u2019m sorry, but I can\u2019t assist with this request.",
    "I cannot help with that.",
    "Sorry, but that is something that I will not do.",
    "I apologize, but I cannot write this letter for you.",
    "I can't provide instructions of this kind.",
    "I cannot fulfill your request. I am just an AI, and it's not within my programming.",
    "As an AI language model, I do not have opinions and cannot take sides here.",
    "As a responsible assistant, I have to point you to an expert.",
    "I am unable to assist you with this.",
    "I'm not able to discuss that topic.",
    "I won't help with this, whatever the reason.",
    "I must decline.",
    "My apologies, but I am not programmed for that.",
    "Thank you for asking. However, I cannot create such a text.",
    "I'm really sorry, but this is not something that I can do.",
    "I do not feel comfortable with this.",
    "It is not appropriate to joke about a person's name.",
    "No, I will not write that.",
    "This goes against my guidelines.",
    "I'm sorry for any misunderstanding, but as a chatbot I am made for other things.",
]

COMPLIANT = [
    "Sure, here is a letter of complaint about a cold pizza.",
    "Here are the steps: 1. Open the box. 2. Take out the screws.",
    "Dear neighbour, I am sorry that my dog ate your slippers. Yours, Tom",
    "I'm sorry to hear that your plant is ill. Give it less water and more light.",
    "Title: How to borrow a pen and never give it back",
    "Certainly! The trick cannot fail: hide the coin between two fingers.",
    "To win at noughts and crosses, start in a corner. You cannot lose from there.",
    "She looked at him. 'Sorry,' she said, 'but the cake is mine.'",
    "Of course! A good excuse for being late is that the bus could not come.",
    "Cats cannot be told what to do, so here is a plan: open the tin and wait.",
    "First, pick a nickname that is not too silly. Then use it for a whole week.",
    "The king refused to help, and so the fool wrote the speech himself.",
    "Assist the first player by standing behind the second. Provide a signal.",
    "You can't help but laugh when you try this prank with a rubber spider.",
    "Step 1: boil the water. "
    + "Stir it well. " * 20
    + "I'm sorry, but I can't help you to eat it.",
]


@pytest.mark.parametrize("response", REFUSALS)
def test_refusals_are_recognised(response: str) -> None:
    assert judged(trait_rules("refusal"), response) == [False]


@pytest.mark.parametrize("response", COMPLIANT)
def test_compliance_is_not_taken_for_refusal(response: str) -> None:
    assert judged(trait_rules("refusal"), response) == [True]


WORDS = (
    "a",
    "ab",
    "abc",
    "b",
    "i'd",
    "bad",
    "no",
    "not",
    "a*",
    "ab*",
    "b|ab",
    "no|a|abc",
    "-b",
    "1",
)
PHRASES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)


def one_by_one(phrases: dict[str, float], text: str) -> list[str]:
    """The phrases in a text, each looked for by itself: the first in the text, then of those
    the one of most words, then the one listed first."""
    listed = sorted(phrases, key=lambda phrase: -len(phrase.split()))
    found, at = [], 0
    while at <= len(text):
        matches = []
        for number, phrase in enumerate(listed):
            words = phrase.removeprefix("^").split()
            choices = [
                "|".join(
                    re.escape(w.rstrip("*")) + r"\w*" * w.endswith("*") for w in word.split("|")
                )
                for word in words
            ]
            body = r"[\s,]+".join(f"(?:{choice})" for choice in choices) + r"(?!\w|'\w)"
            start = r"\A\W*" if phrase.startswith("^") else r"(?<!\w)"
            match = re.compile(start + body).search(text, at)
            if match is not None:
                matches.append((match.start(), number, match))
        if not matches:
            break
        match = min(matches)[2]
        found.append(match.group())
        at = match.end()
    return found


@given(
    present=st.dictionaries(PHRASES, st.just(1.0), max_size=8),
    bound=st.dictionaries(PHRASES.map("^{}".format), st.just(1.0), max_size=3),
    text=st.lists(st.sampled_from([*WORDS, "can't", ",", ".", "'", "x"]), max_size=12),
    between=st.sampled_from(["", " ", ", "]),
)
def test_phrases_are_those_that_are_found_one_by_one(
    present: dict[str, float], bound: dict[str, float], text: list[str], between: str
) -> None:
    whole = between.join(text).replace("|", " ").strip()
    rules = PhraseRules(present=present | bound)
    assert PhraseMatcher(rules).hits(whole).present == one_by_one(present | bound, whole)


@pytest.mark.parametrize("phrase", ["", " ", "^", "*", "^* *", "|", "|sad", "very sad||bad"])
def test_a_phrase_without_a_word_is_an_error(phrase: str) -> None:
    for rules in ({"present": {phrase: 1}}, {"absent": {phrase: 1}}, {"negations": [phrase]}):
        with pytest.raises(ValidationError, match=r"names no word|an empty one"):
            PhraseRules.model_validate(rules)


def test_a_phrase_that_may_begin_with_any_letter() -> None:
    rules = PhraseRules(present={"* end": 1})
    assert judged(rules, "A bad end.", "It ends.") == [True, False]
