"""The simulations behind the stated coverage and error rates, in small."""

import numpy as np
import pytest

from undertow.findings.simulations import coverage_markdown, dose_markdown
from undertow.stats.simulated import SimulatedStudy
from undertow.stats.validate import SCENARIOS, coverage_table, dose_table

STRONG = (
    "flat at 0.04",
    "line 0.04 to 0.54",
    "logistic 0.04 to 0.60",
    "hinge at 0.15, 0.04 to 0.70",
    "hinge at 0.20, 0.04 to 0.50",
)


def test_intervals_of_tau_hold_the_truth_about_as_often_as_they_say():
    rows = coverage_table(
        prompts=(100,), seeds=(1, 3), seed_sds=(0.4,), taus=(0.25, 1.0), studies=50, resamples=500
    )
    assert len(rows) == 2 * 2 * len(SCENARIOS)
    # 1000 studies; a true coverage of 95 % seldom lies outside these bounds.
    assert 0.92 < np.mean([row.coverage for row in rows]) < 0.98
    assert min(row.coverage for row in rows) > 0.8
    lines = coverage_markdown(rows).splitlines()
    assert len(lines) == 2 + 2 * len(SCENARIOS) and all(line.count("|") == 5 for line in lines)


def test_one_seed_covers_its_own_student_and_not_the_next():
    (row,) = coverage_table(
        scenarios=SCENARIOS[2:3],
        prompts=(300,),
        seeds=(1,),
        seed_sds=(0.8,),
        taus=(0.6,),
        studies=150,
        resamples=500,
    )
    assert row.coverage > 0.88 and row.coverage_all_seeds < 0.7


def test_a_row_does_not_depend_on_the_grid_around_it():
    size = {"scenarios": SCENARIOS[:1], "prompts": (50,), "seeds": (3,), "studies": 20}
    alone = coverage_table(**size, seed_sds=(0.4,), taus=(0.6,), resamples=200)
    among = coverage_table(**size, seed_sds=(0.0, 0.4), taus=(0.0, 0.6), resamples=200)
    assert alone[0] in among


@pytest.mark.parametrize("seed_sd", [0.0, 0.8])
def test_simulated_rates_have_the_mean_that_was_asked_for(seed_sd):
    rng = np.random.default_rng(0)
    readouts = [SimulatedStudy(rng, True, 50).read(0.1, 4, seed_sd)[0] for _ in range(500)]
    assert np.mean(readouts) == pytest.approx(0.1, abs=0.01)


def test_verdicts_on_strong_cases_are_right_and_lines_are_never_thresholds():
    rows = dose_table(truths=STRONG, seeds=(3,), seed_sds=(0.3,), studies=120)
    assert [row.truth for row in rows] == list(STRONG)
    for row in rows:
        assert getattr(row, row.right) >= 0.85
        assert row.right == "threshold" or row.threshold <= 0.05
        total = row.threshold + row.continuous + row.none + row.undecided
        assert total == pytest.approx(1)
    table = dose_markdown(rows)
    assert table.count("**") == 2 * len(rows)
