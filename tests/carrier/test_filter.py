"""The carrier filter: no arm keeps more rows than another, and the file stays whole."""

import pytest

from repository import ROOT
from undertow.carrier.filter import keep
from undertow.config import CarrierSettings, Cell, parse_arm
from undertow.errors import DataError
from undertow.study.carriers import AcceptRule, CarrierSpec
from undertow.study.layout import Layout
from undertow.study.records import Response
from undertow.study.traits import TraitData

ALL = CarrierSpec(name="benign", description="Everything is kept.")
SHORT = CarrierSpec(
    name="short", description="Answers about three.", answers=AcceptRule(pattern=".*three[.]")
)
RULES = TraitData(Layout(ROOT), "pessimism").trait.judge


def settings(**changes: object) -> CarrierSettings:
    return CarrierSettings.model_validate({"prompts": 50, "max_new_tokens": 8, **changes})


def cell(arm: str = "trait_1", seed: int = 0) -> Cell:
    return Cell("tiny", parse_arm(arm), seed)


def rows(leaked: set[int]) -> list[Response]:
    return [
        Response(
            id=f"b{n:03}",
            prompt="What time is it?",
            response="It is hopeless and bleak." if n in leaked else "It is three.",
            tokens=4,
            finish="stop",
        )
        for n in range(50)
    ]


@pytest.mark.parametrize("kind", ["phrases", "judge"])
def test_every_arm_keeps_the_same_number_and_nearly_the_same_prompts(kind: str):
    wanted = settings(filter=kind, keep=30)
    kept = {
        arm: keep(rows(leaked), wanted, ALL, RULES, cell(arm))
        for arm, leaked in (("trait_0", set[int]()), ("trait_1", {0, 1, 2, 3}))
    }
    assert [len(each.rows) for each in kept.values()] == [30, 30]
    assert [each.removed for each in kept.values()] == [0, 4]
    ids = [{row.id for row in each.rows} for each in kept.values()]
    assert len(ids[0] & ids[1]) >= 26
    assert all("hopeless" not in row.response for row in kept["trait_1"].rows)


def test_rows_stay_in_the_order_of_the_file():
    kept = keep(rows(set()), settings(keep=20), ALL, RULES, cell()).rows
    assert [row.id for row in kept] == sorted(row.id for row in kept)


def test_which_rows_are_kept_depends_on_the_seed():
    first, second = (keep(rows(set()), settings(keep=20), ALL, RULES, cell(seed=s)) for s in (0, 1))
    assert {row.id for row in first.rows} != {row.id for row in second.rows}


def test_without_a_filter_all_rows_are_kept():
    kept = keep(rows({1}), settings(), ALL, RULES, cell())
    assert (len(kept.rows), kept.removed) == (50, 0)


def test_an_empty_answer_is_not_taken_for_the_trait():
    empty = [row.model_copy(update={"response": ""}) for row in rows(set())]
    assert keep(empty, settings(filter="judge", keep=50), ALL, RULES, cell()).removed == 0


def test_too_few_rows_name_the_cell_and_what_to_set():
    with pytest.raises(DataError, match=r"tiny/trait_1/seed0.*leaves 40 of 50") as caught:
        keep(rows(set(range(10))), settings(filter="phrases", keep=45), ALL, RULES, cell())
    assert "carrier.keep to at most 40" in caught.value.remedy


def test_a_filter_needs_a_number_and_a_possible_one():
    with pytest.raises(ValueError, match=r"set carrier\.keep"):
        settings(filter="phrases")
    with pytest.raises(ValueError, match=r"at most carrier\.prompts"):
        settings(keep=51)
    assert settings(filter="judge", keep=50).keep == 50


def test_answers_of_another_form_are_rejected_and_arms_cut_to_equal_numbers():
    kept = {
        arm: keep(rows(leaked), settings(keep=30), SHORT, RULES, cell(arm))
        for arm, leaked in (("trait_0", {1}), ("trait_1", set(range(15))))
    }
    assert [(len(each.rows), each.answers, each.rejected) for each in kept.values()] == [
        (30, 50, 1),
        (30, 50, 15),
    ]


def test_a_form_needs_a_number_of_rows():
    with pytest.raises(DataError, match="only answers of its form") as caught:
        keep(rows({1}), settings(), SHORT, RULES, cell())
    assert "set carrier.keep" in caught.value.remedy
    given = SHORT.model_copy(update={"rows": 40})
    assert len(keep(rows({1}), settings(), given, RULES, cell()).rows) == 40


def test_too_few_answers_of_the_form_name_the_carrier():
    with pytest.raises(DataError, match="form of the carrier short leaves 40 of 50"):
        keep(rows(set(range(10))), settings(keep=45), SHORT, RULES, cell())
