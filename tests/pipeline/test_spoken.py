"""A stage says when it begins and what it has done, on stderr, and nothing where it fails."""

import time

import pytest

from factories import make_params, make_study
from undertow.errors import DataError
from undertow.pipeline.spoken import cell_stage
from undertow.study.files import write_json
from undertow.study.layout import Study
from undertow.study.progress import beating, counting
from undertow.study.records import Costs, Manifest


@pytest.fixture
def study(tmp_path) -> Study:
    params = make_params(models=("smollm2-135m",), seeds=(0,), runtime={"device": "cpu"})
    return make_study(tmp_path, params, loss_points=2).on_disk


def costs(**more) -> Costs:
    return Costs(seconds=12.34, device="cpu", peak_memory_bytes=1, **more)


def manifest(stage, cell, **more) -> Manifest:
    command = cell.command(stage)
    told = costs(**more)
    return Manifest(stage=stage, subject=cell.key, command=command, costs=told, versions={})


def test_a_line_before_and_a_line_after_with_rows_device_seconds_and_speed(study, capsys):
    cell = study.params.cell("smollm2-135m", "trait_1", 0)
    with cell_stage(study, "steer", cell):
        said = manifest("steer", cell, tokens_generated=1234, generated_per_second=56.7)
        write_json(study.layout.stage(cell, "steer") / "manifest.json", said)
    out, err = capsys.readouterr()
    begins, done = err.splitlines()
    assert out == ""
    assert "steer smollm2-135m/trait_1/seed0 begins: 50 benign and 40 evaluation" in begins
    assert begins.endswith("on cpu")
    assert "wrote results/cells/smollm2-135m/trait_1/0/steer" in done
    assert "12.3 s on cpu" in done and "1,234 tokens generated at 57 a second" in done


def test_a_cell_outside_the_grid_is_run_and_named(study, capsys):
    cell = study.params.cell("smollm2-135m", "trait_7", 0)
    with cell_stage(study, "judge", cell):
        pass
    err = capsys.readouterr().err
    assert "trait_7/seed0 is outside of the grid" in err
    with cell_stage(study, "judge", study.params.cell("smollm2-135m", "trait_1", 0)):
        pass
    assert "outside" not in capsys.readouterr().err


def test_a_stage_that_fails_is_not_said_to_be_done(study, capsys):
    with pytest.raises(DataError), cell_stage(study, "judge", study.params.cells()[0]):
        raise DataError("broken", "mend it")
    err = capsys.readouterr().err
    assert "begins" in err and "done" not in err


def test_a_long_stage_says_that_it_goes_on_where_no_bar_shows_it(study, capsys):
    with beating(lambda: "steer it", every=0.01):
        time.sleep(0.2)
    err = capsys.readouterr().err
    assert "steer it: running for 0 s" in err
    time.sleep(0.05)
    assert capsys.readouterr().err == ""


def test_counted_work_says_how_much_of_it_is_done(capsys):
    with counting("read", 5, "prompt", every=0.05) as more:
        more(2)
        time.sleep(0.2)
    assert "read, 2 of 5 prompts: running for 0 s" in capsys.readouterr().err
