"""A study as data frames says what its results files say, and needs neither torch nor a model."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import factories
import undertow
from repository import ROOT
from undertow.errors import DataError
from undertow.report.publish import publish
from undertow.study.files import write_json

TABLES = ("summary", "arms", "students", "readings", "audits", "costs")
NOTEBOOK = ROOT / "notebooks" / "example.ipynb"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> factories.Study:
    found = factories.make_study(tmp_path_factory.mktemp("study"))
    write_json(found.layout.summary, found.summary)
    return found


@pytest.fixture(scope="module")
def published(made: factories.Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    publish(made.on_disk, folder)
    return folder


def test_every_estimate_is_the_summary_s_own(made):
    study = undertow.open(made.layout.root)
    arms = study.arms().set_index(["model", "arm", "readout"])
    for arm in made.summary.arms:
        for readout in ("margin", "rate"):
            row, found = arms.loc[(arm.model, arm.arm, readout)], arm.by(readout)
            if arm.is_control:
                assert pd.isna(row["tau"])
                continue
            assert row["student_shift"] == found.student_shift.value
            assert row["student_low"] == found.student_shift.low
            assert pd.isna(row["tau"]) if found.tau.value is None else row["tau"] == found.tau.value
            assert found.tau.reason is None or row["tau_reason"] == found.tau.reason
    pooled = study.summary().set_index(["model", "readout"])
    for line in made.summary.lines:
        assert pooled.loc[(line.model, line.readout), "tau"] == line.tau.value
    assert len(study.students()) == 2 * len(made.grid)
    assert study.costs()["seconds"].iloc[-1] == made.summary.cost_totals[-1].seconds


def test_readings_are_numbers_of_every_prompt_and_seed(made):
    readings = undertow.open(made.layout.root).readings()
    expected = sum(
        value is not None
        for result in made.grid.values()
        for read in (result.teacher, result.student)
        for readout in ("margin", "rate")
        for value in read.by(readout).values()
    )
    assert len(readings) == expected
    assert readings["value"].dtype == float


def test_a_published_folder_has_the_same_tables_as_its_study(made, published):
    mine, theirs = undertow.open(made.layout.root), undertow.open(str(published))
    for name in TABLES:
        first, second = getattr(mine, name)(), getattr(theirs, name)()
        assert list(first) == list(second)
        assert len(first) == len(second), name
    assert list(theirs.arms()["student"]) == list(mine.arms()["student"])
    # Both say which tables there are where one is asked for that is not.
    with pytest.raises(DataError, match="does not exist") as raised:
        theirs.plot("nothing")
    assert "shifts" in str(raised.value)


def test_every_table_says_in_one_sentence_what_a_row_is():
    from undertow.frames import Frames

    for name in (*TABLES, "plot"):
        assert getattr(Frames, name).__doc__.strip().endswith(".")


def test_a_folder_without_a_study_is_named(tmp_path):
    with pytest.raises(DataError, match="holds no study"):
        undertow.open(tmp_path)


def test_nothing_of_it_imports_torch_and_importing_the_package_does_not_import_pandas(published):
    program = (
        "import sys, undertow\n"
        "assert not {'torch', 'pandas'} & set(sys.modules)\n"
        f"study = undertow.open({str(published)!r})\n"
        f"[getattr(study, name)() for name in {TABLES!r}]\n"
        "assert not {'torch', 'transformers', 'mlflow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT / "src")


def test_the_example_notebook_draws_the_main_figure(monkeypatch):
    monkeypatch.chdir(NOTEBOOK.parent)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    names: dict[str, object] = {}
    for number, cell in enumerate(code, start=1):
        exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, cell {number}", "exec"), names)
    drawn = names["chart"].to_dict()
    points = names["points"]
    shown = [rows for rows in drawn["datasets"].values() if len(rows) == len(points)]
    # Two models, five strengths and two random directions.
    assert len(points) == 8
    assert {row["arm"] for row in shown[0]} == set(points["arm"])
    assert not points[["teacher", "student", "low", "high"]].isna().any().any()


def test_the_notebook_is_kept_without_outputs():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            assert not cell.get("outputs"), path
            assert cell.get("execution_count") is None, path
