"""Changes of shares removed and of steps between two revisions."""

import numpy as np
import pytest

from undertow.stats.change_worth import OTHER_SIGN, Change, ratio_changes
from undertow.stats.draws import Draws
from undertow.stats.intervals import Floats
from undertow.stats.worth import COVERS_ZERO, Asked, Rows

DRAWS = (Draws(1000, 0, 0.95), Draws(1000, 1, 0.95))
PROMPTS, RECIPES = 50, 8


def sides(seed: int, before: float, after: float) -> dict[int, Change]:
    """Recipes that take so much of plain's shift of 3; each side has students of its own."""
    rng = np.random.default_rng(seed)
    level, seeds = rng.normal(0, 1, PROMPTS), rng.normal(0, 0.3, 3)[:, None]

    def rows(share: float) -> Rows:
        def read(shift: float, count: int, shared: Floats | float) -> Floats:
            own = rng.normal(0, 0.2, (count, 1))
            return level + shift + shared + own + rng.normal(0, 0.3, (count, PROMPTS))

        return Rows(read(3 * share, 3, seeds), read(0, 5, 0.0))

    plain = rows(1.0), rows(1.0)
    found = {}
    for index in range(RECIPES):
        streams = (100 + 2 * index, 101 + 2 * index)
        asked = [
            Asked(whole.minus(rows(share)), whole, streams)
            for whole, share in zip(plain, (before, after), strict=True)
        ]
        found[index] = Change(asked[0], asked[1], (True, True))
    return found


@pytest.mark.parametrize("paired", [True, False])
def test_intervals_hold_the_truth_about_as_often_as_they_say(paired: bool):
    held = 0
    for seed in range(40):
        asked = sides(seed, before=0.7, after=0.4)
        asked = {key: each._replace(paired=(paired, paired)) for key, each in asked.items()}
        ends = [found.ends for found in ratio_changes(asked, DRAWS).values()]
        held += sum(low < 0.3 < high for low, high in ends)
    assert 0.88 < held / (40 * RECIPES) <= 1


def test_what_is_the_same_on_both_sides_has_changed_by_nothing():
    asked = {key: each._replace(after=each.before) for key, each in sides(0, 0.5, 0.5).items()}
    for found in ratio_changes(asked, DRAWS).values():
        assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_pairs_of_seeds_and_prompts_make_intervals_narrower_than_those_of_either_side():
    moved = {}
    for key, each in sides(1, 0.5, 0.5).items():
        top = each.before.top._replace(moved=each.before.top.moved + 0.6)
        moved[key] = each._replace(after=each.before._replace(top=top))
    for key, found in ratio_changes(moved, DRAWS).items():
        assert found.value == pytest.approx(0.6 / moved[key].before.bottom.value)  # type: ignore[union-attr]
        assert found.ends.high - found.ends.low < 0.05
    apart = {key: each._replace(paired=(False, False)) for key, each in moved.items()}
    assert all(
        wide.ends.high - wide.ends.low > 0.1 for wide in ratio_changes(apart, DRAWS).values()
    )


def test_what_cannot_be_divided_is_unknown_with_the_reason():
    each = sides(2, 0.5, 0.5)[0]
    nothing = each.before._replace(bottom=each.before.top.minus(each.before.top))
    found = ratio_changes({0: each._replace(before=nothing)}, DRAWS)[0]
    assert (found.value, found.reason) == (None, COVERS_ZERO)
    whole = each.before.bottom
    assert whole is not None
    turned = each.before._replace(top=Rows(-whole.moved, -whole.reference))
    root = each._replace(before=turned, power=0.5)
    assert ratio_changes({0: root}, DRAWS)[0].reason == OTHER_SIGN
