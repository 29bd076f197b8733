"""A training whose loss never fell is called so where it happens, in the table and on the page."""

import math

import pytest

from factories import make_params, make_result
from undertow.analysis.summarise import summarise
from undertow.findings.arms import findings, sentence
from undertow.report.sections.effects import incoherent
from undertow.report.terminal import strength_table
from undertow.student.divergence import SLOWER, DivergedError, check_readable, untrained
from undertow.study.records import CellResult


def curve(*values: float) -> list[tuple[int, float]]:
    return list(enumerate(values, start=1))


def test_a_loss_at_the_logarithm_of_the_vocabulary_is_divergence():
    found = untrained(curve(3.1, 10.8, *([10.80] * 30)))
    assert found == (
        "training diverged: the loss rose from 3.10 nats in the first 6 steps to 10.80 over the "
        f"last; {SLOWER}"
    )


def test_a_loss_that_merely_stays_is_called_so_with_both_ends_and_what_to_change():
    found = untrained(curve(*(2.4 + 0.003 * step + 0.2 * (-1) ** step for step in range(40))))
    assert found.startswith(
        "the loss did not fall: from 2.41 nats over the first 8 steps to 2.51 over the last; "
    )
    assert "diverged" not in found
    assert "distillation.epochs" in found and "carrier.prompts" in found
    # A learning rate of nothing leaves the curve where it was.
    assert "from 2.00 nats over the first step to 2.00" in untrained(curve(*[2.0] * 6))


def test_a_loss_that_fell_in_spite_of_noise_is_none():
    assert untrained(curve(*(2 - 0.02 * step + 0.3 * (-1) ** step for step in range(40)))) is None


def test_a_few_steps_say_nothing():
    assert untrained(curve(2.0, 2.1, 2.2, 2.3)) is None


def test_a_loss_that_is_not_finite_names_its_step_and_stops_where_nothing_can_be_read():
    assert "not finite from step 3 on" in (untrained(curve(2, 9, math.inf, math.nan)) or "")
    with pytest.raises(DivergedError, match="not finite from step 2 on"):
        check_readable(curve(2, math.nan), "m/trait_1/seed0")
    check_readable(curve(2, 10.8, 10.8), "m/trait_1/seed0")


def test_the_summary_the_table_and_the_report_mark_the_arm():
    params = make_params(models=["smollm2-135m"], arms=["trait_0", "trait_1"], seeds=[0, 1])
    reason = "training diverged: the loss is 10.80 nats over the last 6 steps"
    grid = {
        cell: make_result(params, cell).model_copy(
            update={"diverged": reason if (cell.arm.name, cell.seed) == ("trait_1", 1) else None}
        )
        for cell in params.cells()
    }
    summary = summarise(params, grid)
    assert [arm.diverged is not None for arm in summary.arms] == [False, True]
    assert "(seed 1)" in summary.arms[1].diverged
    assert "training diverged" in " ".join(strength_table(summary).split())
    assert any("training diverged" in line for line in incoherent(summary, "smollm2-135m"))
    [margin, _] = findings(summary, "smollm2-135m")
    assert "Mind that training diverged" in sentence(margin, "margin")


def test_cells_of_before_are_still_read():
    params = make_params()
    old = make_result(params, params.cells()[0]).model_dump(mode="json")
    old.pop("diverged")
    assert CellResult.model_validate(old).diverged is None
