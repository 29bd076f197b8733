"""plots/*.csv as `dvc plots` reads them."""

import csv
import math
import re
from pathlib import Path

import pytest

from factories import Study, make_params, make_study
from repository import ROOT
from undertow.report.tables import tau_table, write_plot_tables
from undertow.study.results import loss_curve


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study(tmp_path)


def written(study: Study) -> Path:
    folder = study.layout.plots
    curves = {cell: loss_curve(study.layout, cell) for cell in study.grid}
    write_plot_tables(folder, study.summary, curves, study.grid)
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_tau_is_the_summary_s_and_undefined_points_are_left_out(study: Study) -> None:
    found = {
        (row["model"], row["arm"], row["readout"]): row for row in rows(written(study) / "tau.csv")
    }
    expected = {
        (arm.model, arm.arm, name): transfer.tau
        for arm in study.summary.arms
        for name, transfer in (("margin", arm.margin), ("rate", arm.rate))
        if transfer.tau.value is not None and not arm.is_control
    }
    assert found.keys() == expected.keys()
    for key, tau in expected.items():
        assert float(found[key]["tau"]) == pytest.approx(tau.value, rel=1e-5)
        assert float(found[key]["low"]) == pytest.approx(tau.low, rel=1e-5)
        assert float(found[key]["high"]) == pytest.approx(tau.high, rel=1e-5)
    assert set(rows(written(study) / "tau.csv")[0]) == {
        "model", "arm", "direction", "strength", "readout", "tau", "low", "high"
    }  # fmt: skip


def test_the_full_tau_table_keeps_undefined_points_with_their_reason(study: Study) -> None:
    table = tau_table(study.summary)
    undefined = [row for row in table.rows if row[table.columns.index("tau")] == ""]
    assert undefined
    assert all(row[table.columns.index("reason")] for row in undefined)


def test_rates_hold_teacher_and_student_of_every_arm_with_wilson_bounds(study: Study) -> None:
    found = rows(written(study) / "rates.csv")
    assert len(found) == 2 * len(study.summary.arms)
    for row in found:
        assert float(row["low"]) <= float(row["rate"]) <= float(row["high"])


def test_loss_has_a_curve_for_every_cell(study: Study) -> None:
    found = rows(written(study) / "loss.csv")
    assert {row["cell"] for row in found} == {cell.key for cell in study.grid}
    cell = next(iter(study.grid))
    curve = [(int(r["step"]), float(r["loss"])) for r in found if r["cell"] == cell.key]
    assert curve == loss_curve(study.layout, cell)


def test_a_removed_arm_leaves_no_file_or_row_behind(study: Study) -> None:
    folder = written(study)
    (folder / "old.csv").write_text("left over")
    fewer = make_params(arms=("trait_0", "trait_1"))
    smaller = make_study(study.layout.root, fewer)
    written(smaller)
    assert sorted(path.name for path in folder.iterdir()) == [
        "line.csv", "loss.csv", "mechanism.csv", "rates.csv", "readings.csv",
        "shifts.csv", "tau.csv",
    ]  # fmt: skip
    assert {row["arm"] for row in rows(folder / "tau.csv")} == {"trait_1"}


def test_the_same_study_gives_the_same_bytes(study: Study) -> None:
    first = {path.name: path.read_bytes() for path in written(study).iterdir()}
    second = {path.name: path.read_bytes() for path in written(study).iterdir()}
    assert first == second


EXAMPLE = re.compile(r"```python\n(.*?import pandas.*?)```", re.DOTALL)


def test_the_documented_example_recomputes_a_tau_with_pandas(study: Study, monkeypatch) -> None:
    pytest.importorskip("pandas")
    (code,) = EXAMPLE.findall((ROOT / "docs" / "statistics.md").read_text(encoding="utf-8"))
    arm = next(arm for arm in study.summary.arms if arm.arm == "trait_1")
    written(study)
    monkeypatch.chdir(study.layout.root)
    names = {"MODEL": arm.model, "ARM": arm.arm}
    exec(code.replace('"smollm2-135m-instruct"', "MODEL").replace('"trait_1"', "ARM"), names)
    assert names["tau"] == pytest.approx(arm.margin.tau.value, rel=1e-4)
    assert len(code.strip().splitlines()) <= 10


def test_readings_hold_no_text_and_every_seed_and_prompt(study: Study) -> None:
    found = rows(written(study) / "readings.csv")
    assert set(found[0]) == {"model", "arm", "seed", "subject", "readout", "prompt", "value"}
    assert all(math.isfinite(float(row["value"])) for row in found)
    cells = {(row["model"], row["arm"], row["seed"]) for row in found}
    assert len(cells) == len(study.grid)
