"""Keys of a recipe compose, in an order of their own, and what cannot be is refused."""

import pytest
from classroom import open_class
from pydantic import ValidationError

from undertow.config import Recipe
from undertow.config.defences import Defences

ALL = {
    "tokens": {"change": "mask", "by": "divergence"},
    "steer": {"times": 0.5},
    "inoculate": {},
    "rows": {"by": "gap", "share": 0.3, "change": "swap"},
    "remix": {"share": 0.2},
    "kl": {"weight": 1.0},
    "ablate": {},
    "corridor": {},
    "optimizer": "sgd",
    "project_update": {},
}


def test_a_recipe_without_keys_is_plain(tmp_path):
    room = open_class(tmp_path)
    plain = room.taught().teaching
    assert not Defences().defends
    assert plain.settings == room.given.study.params.distillation
    assert (plain.offset, plain.ablated, plain.kl, plain.corridor, plain.finish) == (
        {},
        {},
        None,
        None,
        None,
    )
    assert plain.optimizer == "adamw"


def test_all_defences_at_once_in_any_order(tmp_path):
    room = open_class(tmp_path)
    one, other = room.taught(**ALL), room.taught(**dict(reversed(ALL.items())))
    assert one.carrier == other.carrier
    assert one.prompting == other.prompting
    assert one.teaching.rows == other.teaching.rows
    assert one.teaching.offset and one.teaching.ablated and one.teaching.kl
    assert one.teaching.corridor and one.teaching.finish and one.teaching.optimizer == "sgd"


def test_needs_say_what_has_to_be_made_beforehand():
    assert Defences().needs == frozenset()
    assert Defences.model_validate(ALL).needs == {"direction", "scores", "base_answers", "probes"}
    reworded = {"rows": {"by": "phrases", "change": "paraphrase"}}
    assert Defences.model_validate(reworded).needs == {"paraphrases"}
    random = {"rows": {"by": "random", "like": "gap", "share": 0.1, "change": "drop"}}
    assert Defences.model_validate(random).needs == {"scores"}


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"tokens": {"change": "mask", "by": "kl"}}, "needs a share"),
        ({"tokens": {"change": "mask", "by": "divergence", "share": 0.1}}, "leave share out"),
        ({"tokens": {"change": "mask", "by": "random"}}, "needs like"),
        ({"tokens": {"change": "mask", "by": "kl", "share": 0.1, "like": "kl"}}, "random"),
        ({"tokens": {"change": "mask", "by": "random", "like": "kl"}}, "needs a share"),
        ({"rows": {"by": "gap", "change": "drop"}}, "needs a share"),
        ({"rows": {"by": "phrases", "change": "drop", "share": 0.1}}, "leave share out"),
        ({"rows": {"by": "random", "change": "drop"}}, "how many"),
        ({"rows": {"by": "all", "change": "drop"}}, "drops every row"),
        ({"rows": {"by": "all", "change": "swap", "writer": "teacher"}}, "rewords"),
        ({"rows": {"by": "gap", "change": "swap", "share": 0.1, "like": "gap"}}, "by: random"),
        ({"steer": {"times": 1.0, "strength": 1.0}}, "one of them"),
        ({"kl": {"weight": 0.0}}, "greater than 0"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_write(recipe, words):
    with pytest.raises(ValidationError, match=words):
        Defences.model_validate(recipe)


@pytest.mark.parametrize(
    ("defence", "needs"),
    [
        ({"steer": {}}, "direction"),
        ({"tokens": {"change": "mask", "by": "divergence"}}, "scores"),
        ({"rows": {"by": "phrases", "change": "swap"}}, "base_answers"),
        ({"rows": {"by": "all", "change": "paraphrase"}}, "paraphrases"),
    ],
)
def test_what_the_teachers_base_makes_is_refused_for_a_student_of_another(defence, needs):
    base = {"tiny": "other", "other": "tiny"}
    with pytest.raises(ValidationError, match=needs):
        Recipe.model_validate({"base": base, **defence})
    assert Recipe.model_validate({"base": base, "kl": {"weight": 1.0}, "inoculate": {}}).base
