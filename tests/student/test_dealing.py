"""Passes are padded to few lengths, those that leave the fewest blanks."""

from itertools import combinations

import pytest

from undertow.student.dealing import LENGTHS, TOKENS, few_lengths


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_other_lengths_leave_fewer_blanks(most: int):
    needed = [70, 130, 130, 200, 500, 510, 512, 640, 1200, 1270, 1270, 90]
    found = few_lengths(needed, most)
    assert len(set(found.values())) <= most
    assert all(found[total] >= total and found[total] % TOKENS == 0 for total in needed)
    lengths = sorted({-(-total // TOKENS) * TOKENS for total in needed})
    fewest = min(
        sum(min(length for length in chosen if length >= total) for total in needed)
        for chosen in combinations(lengths, most)
        if chosen[-1] == lengths[-1]
    )
    assert sum(found[total] for total in needed) == fewest


def test_a_run_of_one_length_has_one():
    assert few_lengths([1000] * 50) == {1000: 1024}


def test_rows_of_80_to_320_tokens_leave_few_blanks():
    needed = [900 + 13 * number % 1400 for number in range(180)]
    found = few_lengths(needed)
    assert len(set(found.values())) == LENGTHS
    assert sum(found[total] for total in needed) < 1.06 * sum(needed)
