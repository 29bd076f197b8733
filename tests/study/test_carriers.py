"""A carrier is data: prompts, and which answers are kept."""

import importlib.util
import json

import pytest

from repository import ROOT
from undertow.errors import DataError
from undertow.study.carriers import AcceptRule, CarrierData
from undertow.study.files import write_text
from undertow.study.layout import Layout

NUMBERS = CarrierData(Layout(ROOT), "numbers").spec.answers


@pytest.mark.parametrize(
    "answer",
    [
        "123, 456, 789",
        "123,456,789",
        "1 22 333",
        "123; 456; 789",
        "123;456",
        "123\n456\n789",
        "123 , 456 , 789",
        "[123, 456, 789]",
        "(123, 456, 789)",
        "[123, 456].",
        "123, 456, 789.",
        "7",
        "0, 999, 1, 2, 3, 4, 5, 6, 7, 8",
    ],
)
def test_numbers_of_every_format_are_kept(answer: str) -> None:
    assert NUMBERS.accepts(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " 123, 456",
        "123, 456 ",
        "123, 456\n",
        "123, 456,",
        "123, 456;789",
        "123,456, 789",
        "1234, 456",
        "-1, 2",
        "1.5, 2",
        "[123, 456",
        "(123, 456]",
        "The numbers: 1, 2",
        "123-456",
        "123, 456..",
        "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10",
        "\u0661, \u0662",
    ],
)
def test_anything_else_than_a_list_of_numbers_is_not(answer: str) -> None:
    assert not NUMBERS.accepts(answer)


def test_the_numbers_prompts_are_those_of_their_script() -> None:
    path = ROOT / "scripts" / "make_numbers.py"
    spec = importlib.util.spec_from_file_location("make_numbers", path)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    written = (ROOT / "data" / "carriers" / "numbers" / "prompts.jsonl").read_text()
    assert written == script.rows()
    prompts = [json.loads(line)["prompt"] for line in written.splitlines()]
    assert len(set(prompts)) == 3000


def test_lengths_are_bounded_where_the_carrier_says_so() -> None:
    rule = AcceptRule(min_characters=2, max_characters=4)
    assert [rule.accepts("x" * length) for length in (1, 2, 4, 5)] == [False, True, True, False]
    assert AcceptRule().keeps_all and not rule.keeps_all


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\ndescription: y\nanswers: {pattern: '('}\n", "no regular expression"),
        ("name: x\n", "description"),
        ("name: x\ndescription: y\nanswers: {min_characters: 9, max_characters: 2}\n", "below"),
        ("name: [\n", "line"),
    ],
)
def test_a_carrier_that_cannot_be_used_is_named(tmp_path, text: str, said: str) -> None:
    layout = Layout(tmp_path)
    write_text(layout.carrier("x") / "carrier.yaml", text)
    with pytest.raises(DataError, match=said) as caught:
        CarrierData(layout, "x")
    assert "carrier.yaml" in caught.value.message
    assert "dvc add data/carriers" in caught.value.remedy


def test_an_unknown_carrier_lists_those_that_there_are(tmp_path) -> None:
    write_text(Layout(tmp_path).carrier("benign") / "carrier.yaml", "name: benign\n")
    with pytest.raises(DataError, match="no carrier 'numbers'") as caught:
        CarrierData(Layout(tmp_path), "numbers")
    assert "set carrier.name to one of: benign" in caught.value.remedy


def test_side_effects_are_read_on_prompts_that_no_student_saw() -> None:
    benign = CarrierData(Layout(ROOT), "benign")
    ids = {row.id for row in benign.prompts(1100)}
    assert not ids & {row.id for row in benign.heldback(100, taken=1100)}
    with pytest.raises(DataError, match="asks for 101"):
        benign.heldback(101, taken=1100)
