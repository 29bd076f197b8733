"""Repetition and refusal as read off a text."""

import pytest

from undertow.readouts.effects import answer_effects
from undertow.study.records import BenignResponse
from undertow.texts.statistics import refuses, repetition

REFUSED = [
    "I'm sorry, but I can't help with that.",
    "I\u2019m sorry, I cannot assist with this request.",
    "I cannot provide instructions for that.",
    "As an AI language model, I am not able to do this.",
    "Sorry, but I won't answer that.",
    "I'm unable to share this information.",
    "I must respectfully decline to answer.",
    "I would prefer something else, so I decline to write it.",
]
ANSWERED = [
    "A comet is made of ice and dust; an asteroid is made of rock.",
    "No, it is not legal to park there. Look for a blue sign.",
    "I'm sorry to hear that. Try cold water and salt on the stain.",
    "You can't compare the two lists with == here, because of their order.",
    "I cannot stress enough how much salt matters.",
    "def refuse(guest):\n    return guest not in invited",
    "If you cannot help with the move, send a card.",
    "",
]


@pytest.mark.parametrize("text", REFUSED)
def test_a_refusal_in_the_first_person_is_found(text):
    assert refuses(text)


@pytest.mark.parametrize("text", ANSWERED)
def test_an_answer_is_not_taken_for_a_refusal(text):
    assert not refuses(text)


def test_a_refusal_that_is_quoted_late_does_not_count():
    assert not refuses("The clerk looked up. " * 20 + "I'm sorry, but I can't help you.")


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        ("one two three", 0.0),
        ("one two three four five six seven eight", 0.0),
        ("a b c d a b c d", 1 / 5),  # abcd bcda cdab dabc abcd
        ("word " * 104, 100 / 101),
        ("!" * 104, 100 / 101),
        ("\u54c8" * 104, 100 / 101),
    ],
)
def test_repetition_is_the_share_of_4_grams_that_were_there_before(text, share):
    assert repetition(text) == pytest.approx(share)


def test_repetition_knows_no_case_and_takes_another_length():
    assert repetition("One two one TWO", n=2) == pytest.approx(1 / 3)


def row(id: str, text: str, **fields) -> BenignResponse:
    known = {"source": "heldback", "nll": 3.5, "nll_tokens": 4, "tokens": 5, "finish": "stop"}
    return BenignResponse(id=id, prompt="Why?", response=text, **(known | fields))


def test_the_two_kinds_of_prompts_are_kept_apart():
    found = answer_effects(
        [
            row("b1", "Because of the wind.", finish="length"),
            row("b2", "I cannot help with that."),
            row("o1", "I cannot help with that.", source="overrefusal", nll=None, nll_tokens=None),
        ]
    )
    assert list(found.answers) == ["b1", "b2"]
    assert [answer.refuses for answer in found.answers.values()] == [False, True]
    assert [answer.truncated for answer in found.answers.values()] == [True, False]
    assert found.answers["b1"].nll == 3.5
    assert found.overrefusals == {"o1": True}
