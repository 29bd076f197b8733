"""The summary reads the grid in params.yaml, and unknown stays unknown."""

import json
import shutil

import pytest
from pydantic import ValidationError

from factories import make_params, make_study
from undertow.analysis.headline import headline
from undertow.analysis.summarise import summarise
from undertow.analysis.summary import Summary
from undertow.errors import DataError
from undertow.study.results import read_grid


def test_a_prompt_without_a_verdict_leaves_the_ratio_but_not_the_margin(tmp_path):
    study = make_study(tmp_path, make_params())
    cell, result = next(iter(study.grid.items()))
    id = list(result.student.verdicts)[-1]
    unknown = result.student.model_copy(update={"verdicts": result.student.verdicts | {id: None}})
    grid = dict(study.grid) | {cell: result.model_copy(update={"student": unknown})}
    before = {arm.arm: arm for arm in study.summary.views[cell.model].arms}
    after = {arm.arm: arm for arm in summarise(study.params, grid).views[cell.model].arms}
    # The first cell is the control's, on which every arm of its model leans.
    for name, arm in after.items():
        assert arm.rate.prompts == before[name].rate.prompts - 1
        assert arm.rate.dropped == before[name].rate.dropped + 1
        assert arm.margin == before[name].margin


def test_a_missing_cell_names_the_command_that_makes_it(tmp_path):
    study = make_study(tmp_path, make_params())
    cell = list(study.grid)[1]
    shutil.rmtree(study.layout.stage(cell, "judge"))
    with pytest.raises(DataError, match=f"--model {cell.model} --arm {cell.arm.name}"):
        read_grid(study.on_disk)


def test_a_removed_arm_is_not_read_back_from_its_files(tmp_path):
    study = make_study(tmp_path, make_params())
    fewer = study.params.grid.model_copy(update={"arms": study.params.grid.arms[:2]})
    params = study.params.model_copy(update={"grid": fewer})
    summary = summarise(params, read_grid(study._replace(params=params).on_disk))
    assert {arm.arm for arm in summary.arms} == set(fewer.arms)


def test_the_headline_has_no_control_and_null_where_tau_is_undefined(tmp_path):
    study = make_study(tmp_path, make_params())
    for model, arms in headline(study.summary).items():
        by_name = {arm.arm: arm for arm in study.summary.views[model].arms}
        assert "trait_0" not in arms
        pooled = arms.pop("pooled")
        assert pooled["tau"] == study.summary.views[model].lines["rate"].tau.value
        for name, values in arms.items():
            assert values["tau"] == by_name[name].rate.tau.value
            assert values["tau_margin"] == by_name[name].margin.tau.value


def test_a_teacher_that_answers_alike_whatever_the_seed_is_counted_once(tmp_path):
    study = make_study(tmp_path, make_params())
    model = study.params.grid.models[0]
    mine = [cell for cell in study.grid if cell.model == model and cell.arm.is_control]
    assert len(mine) > 1
    same = study.grid[mine[0]].teacher
    grid = dict(study.grid) | {
        cell: study.grid[cell].model_copy(update={"teacher": same}) for cell in mine
    }
    [control] = [arm for arm in summarise(study.params, grid).views[model].arms if arm.is_control]
    scored = sum(verdict is not None for verdict in same.verdicts.values())
    assert control.teacher_rate.scored == scored
    assert control.student_rate.scored > scored


def test_a_summary_prepares_each_model_once_and_anew_for_other_arms(tmp_path):
    summary = make_study(tmp_path).summary
    model = summary.models[0]
    view = summary.views[model]
    assert summary.views[model] is view
    assert view.control is view.arms[0] and view.arms[1:] == view.steered
    assert [arm.direction for arm in view.steered] == ["trait", "trait", "random"]
    fewer = summary.model_copy(update={"arms": view.arms[:2]})
    assert fewer.models == [model] and fewer.views[model].arms == view.arms[:2]
    assert summary.views[model] is view


def test_views_leave_no_trace_in_the_file_or_in_comparisons(tmp_path):
    summary = make_study(tmp_path).summary
    text = summary.model_dump_json()
    assert summary.views
    assert summary.model_dump_json() == text
    assert Summary.model_validate_json(text) == summary


def test_an_unknown_key_in_a_transfer_of_the_file_is_refused(tmp_path):
    raw = json.loads(make_study(tmp_path).summary.model_dump_json())
    raw["arms"][0]["rate"]["tua"] = None
    with pytest.raises(ValidationError, match="tua"):
        Summary.model_validate(raw)
