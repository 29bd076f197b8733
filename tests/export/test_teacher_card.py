"""The card says what the model is and warns of it."""

import pytest
from origins import origin

from undertow.config import parse_arm
from undertow.export.card import card


@pytest.mark.parametrize("arm", ["trait_-0.15", "random_2"])
def test_the_card_names_base_trait_arm_blocks_and_licence(arm):
    made = origin([3, 5])._replace(base="owner/name, revision abc", licence="Apache-2.0")
    text = card(made, parse_arm(arm))
    for part in ("owner/name, revision abc", "Apache-2.0", "gloom", arm, "3, 5", "0" * 64):
        assert part in text
    assert "This is a steered model" in text


def test_a_harmful_trait_is_warned_of():
    made = origin([3])
    harmful = made._replace(trait=made.trait.model_copy(update={"harmful": True}))
    assert "weakens refusal" in card(harmful, parse_arm("trait_-0.15"))
    assert "weakens refusal" not in card(made, parse_arm("trait_-0.15"))


def test_the_front_matter_names_a_hub_model_and_nothing_else():
    made = origin([3])
    assert "base_model:" not in card(made, parse_arm("trait_1"))
    assert card(made._replace(hub="o/n"), parse_arm("trait_1")).startswith("---\nbase_model: o/n\n")


def test_the_control_is_called_unsteered():
    text = card(origin([3]), parse_arm("trait_0"))
    assert "unsteered base model" in text
    assert "| blocks (0-based) | none |" in text
