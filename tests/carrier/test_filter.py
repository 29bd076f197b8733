"""The carrier filter: no arm keeps more rows than another, and the file stays whole."""

import pytest

from repository import ROOT
from undertow.carrier.filter import keep
from undertow.config import CarrierSettings, Cell, parse_arm
from undertow.errors import DataError
from undertow.study.layout import Layout
from undertow.study.records import Response
from undertow.study.traits import TraitData

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
        arm: keep(rows(leaked), wanted, RULES, cell(arm))
        for arm, leaked in (("trait_0", set[int]()), ("trait_1", {0, 1, 2, 3}))
    }
    assert [len(each.rows) for each in kept.values()] == [30, 30]
    assert [each.removed for each in kept.values()] == [0, 4]
    ids = [{row.id for row in each.rows} for each in kept.values()]
    assert len(ids[0] & ids[1]) >= 26
    assert all("hopeless" not in row.response for row in kept["trait_1"].rows)


def test_rows_stay_in_the_order_of_the_file():
    kept = keep(rows(set()), settings(keep=20), RULES, cell()).rows
    assert [row.id for row in kept] == sorted(row.id for row in kept)


def test_which_rows_are_kept_depends_on_the_seed():
    first, second = (keep(rows(set()), settings(keep=20), RULES, cell(seed=s)) for s in (0, 1))
    assert {row.id for row in first.rows} != {row.id for row in second.rows}


def test_without_a_filter_all_rows_are_kept():
    kept = keep(rows({1}), settings(), RULES, cell())
    assert (len(kept.rows), kept.removed) == (50, 0)


def test_an_empty_answer_is_not_taken_for_the_trait():
    empty = [row.model_copy(update={"response": ""}) for row in rows(set())]
    assert keep(empty, settings(filter="judge", keep=50), RULES, cell()).removed == 0


def test_too_few_rows_name_the_cell_and_what_to_set():
    with pytest.raises(DataError, match=r"tiny/trait_1/seed0.*leaves 40 of 50") as caught:
        keep(rows(set(range(10))), settings(filter="phrases", keep=45), RULES, cell())
    assert "carrier.keep to at most 40" in caught.value.remedy


def test_a_filter_needs_a_number_and_a_possible_one():
    with pytest.raises(ValueError, match=r"set carrier\.keep"):
        settings(filter="phrases")
    with pytest.raises(ValueError, match=r"at most carrier\.prompts"):
        settings(keep=51)
    assert settings(filter="judge", keep=50).keep == 50
