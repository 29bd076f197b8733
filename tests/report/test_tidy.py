"""Tidy rows say what the summary says, in every form that the command writes."""

import csv
import io
import json
import subprocess
import sys

import pytest

from factories import Study, make_study
from repository import ROOT
from undertow.report.tidy import ArmRow, arm_rows, written
from undertow.study.files import write_json


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("study"))


def test_there_is_a_row_per_model_arm_and_readout(study: Study) -> None:
    keys = [(row.model, row.arm, row.readout) for row in arm_rows(study.summary)]
    assert len(keys) == len(set(keys)) == 2 * len(study.summary.arms)


def test_csv_and_json_hold_every_number_as_it_is(study: Study) -> None:
    rows = arm_rows(study.summary)
    parsed = json.loads(written(rows, "json"))
    assert [ArmRow(**row) for row in parsed] == rows
    table = list(csv.DictReader(io.StringIO(written(rows, "csv"))))
    assert list(table[0]) == list(ArmRow._fields)
    for row, cells in zip(rows, table, strict=True):
        for name, value in row._asdict().items():
            assert cells[name] == ("" if value is None else str(value))
            if isinstance(value, float):
                assert float(cells[name]) == value


def test_markdown_is_one_table_without_unknown_numbers(study: Study) -> None:
    lines = written(arm_rows(study.summary), "markdown").splitlines()
    assert len(lines) == 2 + 2 * len(study.summary.arms)
    assert all(line.startswith("|") and line.endswith("|") for line in lines)
    assert not any(word in "".join(lines) for word in ("None", "nan", "inf"))


def test_the_command_writes_what_is_asked_for(study: Study) -> None:
    write_json(study.layout.summary, study.summary)
    command = [sys.executable, str(ROOT / "cli.py"), "results", "--format", "csv"]
    done = subprocess.run(command, cwd=study.layout.root, capture_output=True, text=True)
    assert done.stdout == written(arm_rows(study.summary), "csv"), done.stderr
