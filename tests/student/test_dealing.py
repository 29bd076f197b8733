"""Passes are padded to few lengths, those that leave the fewest blanks."""

from itertools import combinations

import pytest
import torch

from undertow.config import DistillationSettings, Lora
from undertow.student.dealing import LENGTHS, LONG_RUN, TOKENS, deal, few_lengths, sizes_of
from undertow.student.rows import IGNORED
from undertow.student.teaching import Teaching


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


def test_a_long_run_may_have_twice_as_many():
    needed = [200 + 7 * number for number in range(400)]
    assert len(set(few_lengths(needed).values())) == LENGTHS
    assert len(set(few_lengths(needed * (LONG_RUN // 400 + 1)).values())) == 2 * LENGTHS


def run_of(students: int) -> list[tuple[Teaching, int]]:
    """Students of 96 rows of 80 to 320 tokens, of which the first 64 are not learned."""
    settings = DistillationSettings(
        epochs=1, learning_rate=1e-3, batch_size=8, lora=Lora(rank=4, alpha=8)
    )
    run = []
    for seed in range(students):
        generator = torch.Generator().manual_seed(seed)
        rows = []
        for length in torch.randint(80, 321, (96,), generator=generator).tolist():
            ids = [1] * length
            rows.append({"input_ids": ids, "labels": [IGNORED] * 64 + ids[64:]})
        run.append((Teaching(rows, settings), seed))
    return run


def test_a_student_alone_in_its_group_does_not_go_by_the_longest_rows_of_the_run():
    run = run_of(12)
    alone, in_company = (sizes_of(run, students, 8) for students in (1, 3))
    real = blank = company = 0
    for teaching, seed in run:
        lengths = [len(row["input_ids"]) for row in teaching.rows]
        for step, ((part,), widest) in enumerate(
            zip(deal(96, teaching.settings, seed, 8), in_company.tokens, strict=True)
        ):
            own = sum(lengths[row] for row in part)
            tokens = alone.padded(step, 0, own)
            assert tokens >= own
            assert alone.targets[tokens] >= own - 64 * 8
            assert in_company.padded(step, 0, own) == widest[0] >= own
            assert in_company.targets[widest[0]] >= own - 64 * 8
            real += own
            blank += tokens - own
            company += widest[0] - own
    assert blank < 0.05 * real
    assert company > 0.15 * real


def test_rows_of_80_to_320_tokens_leave_few_blanks():
    needed = [900 + 13 * number % 1400 for number in range(180)]
    found = few_lengths(needed)
    assert len(set(found.values())) == LENGTHS
    assert sum(found[total] for total in needed) < 1.06 * sum(needed)
