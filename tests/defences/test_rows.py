"""Rows that are dropped, swapped, reworded or mixed: which, how many, and whose words."""

from threading import Thread

import pytest
from classroom import PROMPTS, open_class

from undertow.defences.given import REWORD, Given
from undertow.errors import DataError
from undertow.study.prompts import Prompt, read_prompts
from undertow.teacher.steering import steer


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return open_class(tmp_path_factory.mktemp("room") / "root")


def carrier_of(room, **recipe):
    return list(room.taught(**recipe).carrier)


def changed(room, rows):
    return {row.id for row, old in zip(rows, room.carrier, strict=True) if row != old}


def test_swapping_everything_makes_the_controls_carrier(room):
    assert carrier_of(room, rows={"by": "all", "change": "swap"}) == room.base


def test_swapping_changes_nothing_in_the_control(tmp_path):
    control = open_class(tmp_path, "trait_0")
    assert carrier_of(control, rows={"by": "all", "change": "swap"}) == control.carrier


def test_the_gap_takes_the_rows_that_steering_made_likeliest(room):
    kept = carrier_of(room, rows={"by": "gap", "share": 0.3, "change": "drop"})
    assert len(kept) == PROMPTS - 3
    gaps = {id: score.mean_gap for id, score in room.given.scores(room.carrier).items()}
    gone = set(gaps) - {row.id for row in kept}
    assert min(gaps[id] for id in gone) >= max(gaps[row.id] for row in kept)


def test_swap_changes_the_rows_that_drop_takes(room):
    dropped = carrier_of(room, rows={"by": "gap", "share": 0.3, "change": "drop"})
    swapped = carrier_of(room, rows={"by": "gap", "share": 0.3, "change": "swap"})
    gone = {row.id for row in room.carrier} - {row.id for row in dropped}
    assert changed(room, swapped) == gone
    base = {row.id: row for row in room.base}
    assert [row for row in swapped if row.id in gone] == [
        base[row.id] for row in room.carrier if row.id in gone
    ]


@pytest.mark.parametrize(
    "random", [{"share": 0.3}, {"like": "gap", "share": 0.3}], ids=["share", "like"]
)
def test_the_placebo_takes_as_many_rows_drawn(room, random):
    swapped = carrier_of(room, rows={"by": "random", "change": "swap", **random})
    real = carrier_of(room, rows={"by": "gap", "share": 0.3, "change": "swap"})
    assert len(changed(room, swapped)) == 3
    assert changed(room, swapped) != changed(room, real)


def leaking(room, count):
    gloomy = {"response": "It is hopeless, and all is bleak.", "finish": "stop"}
    return [
        row.model_copy(update=gloomy if n < count else {"response": "It is three o'clock."})
        for n, row in enumerate(room.carrier)
    ]


@pytest.mark.parametrize("by", ["phrases", "judge"])
def test_rows_that_show_the_trait_are_dropped_and_the_placebo_drops_as_many(room, by):
    rows = leaking(room, 4)

    def kept(**settings):
        return list(room.taught_on(rows, rows={"change": "drop", **settings}).carrier)

    assert kept(by=by) == rows[4:]
    placebo = kept(by="random", like=by)
    assert len(placebo) == PROMPTS - 4
    assert placebo != rows[4:]


def test_dropping_every_row_is_an_error_that_says_what_to_do(room):
    with pytest.raises(DataError, match="drops every row") as caught:
        room.taught_on(leaking(room, PROMPTS), rows={"by": "phrases", "change": "drop"})
    assert "swap" in caught.value.remedy


@pytest.mark.parametrize("writer", ["base", "teacher"])
def test_a_paraphrase_is_what_the_writer_says_when_asked(room, writer):
    rows = carrier_of(room, rows={"by": "all", "change": "paraphrase", "writer": writer})
    given = room.given
    asked = [Prompt(id=row.id, prompt=REWORD + row.response) for row in room.carrier]
    with steer(given.model, given.offsets if writer == "teacher" else {}):
        said = given._ask(asked, f"another reading of the {writer}")
    assert [row.response for row in rows] == [row.response for row in said]
    assert [row.prompt for row in rows] == [row.prompt for row in room.carrier]


def test_paraphrases_of_base_and_teacher_differ(room):
    by_writer = [
        carrier_of(room, rows={"by": "all", "change": "paraphrase", "writer": writer})
        for writer in ("base", "teacher")
    ]
    assert by_writer[0] != by_writer[1]


@pytest.mark.parametrize("writer", ["base", "teacher"])
def test_a_remix_keeps_the_number_and_takes_prompts_that_nobody_else_uses(room, writer):
    rows = carrier_of(room, remix={"share": 0.4, "writer": writer})
    new = [row for row in rows if row.id not in {old.id for old in room.carrier}]
    assert (len(rows), len(new)) == (PROMPTS, 4)
    params, layout = room.given.study
    every = [
        prompt.id for prompt in read_prompts(layout.carrier("benign") / "prompts.jsonl", Prompt)
    ]
    heldback = every[-params.evaluation.benign_prompts :]
    assert not {row.id for row in new} & set(every[:PROMPTS] + heldback)
    old = [row for row in rows if row not in new]
    assert old == [row for row in room.carrier if row in old]


def test_a_remix_without_prompts_enough_says_so(tmp_path):
    room = open_class(tmp_path, evaluation={"benign_prompts": 1188})
    with pytest.raises(DataError, match=r"remix\.share asks for 4 prompts"):
        room.taught(remix={"share": 0.4})


def test_the_base_answers_several_cells_at_once(tmp_path):
    """While one process has its rows reworded, another's of the same study are not held up."""
    room = open_class(tmp_path)
    study, cell, model, tokenizer = (
        getattr(room.given, name) for name in ("study", "cell", "model", "tokenizer")
    )
    half = len(room.carrier) // 2
    meanwhile = []

    def echoed(prompts, identity, prompting):
        return [row for row in room.carrier if row.id in {prompt.id for prompt in prompts}]

    def slow(prompts, identity, prompting):
        other = Given(study, cell._replace(seed=1), model, tokenizer, echoed)
        meanwhile.append(other.reworded(room.carrier, steered=False))
        other = Given(study, cell, model, tokenizer, echoed)
        meanwhile.append(other.reworded(room.carrier[half:], steered=False))
        return echoed(prompts, identity, prompting)

    given = Given(study, cell, model, tokenizer, slow)
    assert len(given.reworded(room.carrier[:half], steered=False)) == half
    assert [len(found) for found in meanwhile] == [len(room.carrier), len(room.carrier) - half]


def test_the_same_is_asked_of_the_base_by_one_at_a_time(tmp_path):
    room = open_class(tmp_path)
    study, cell, model, tokenizer = (
        getattr(room.given, name) for name in ("study", "cell", "model", "tokenizer")
    )
    order = []

    def second(prompts, identity, prompting):
        order.append("second")
        return list(room.carrier)

    other = Given(study, cell, model, tokenizer, second)
    thread = Thread(target=lambda: other.reworded(room.carrier, steered=False))

    def first(prompts, identity, prompting):
        order.append("first begins")
        thread.start()
        thread.join(0.5)
        order.append("first ends")
        return list(room.carrier)

    Given(study, cell, model, tokenizer, first).reworded(room.carrier, steered=False)
    thread.join()
    assert order == ["first begins", "first ends", "second"]
