"""An interval of tau that has no end is a null end in every file, and report goes on."""

import json
import shutil

from factories import make_params, make_study
from repository import ROOT
from studies import first, with_students
from undertow.pipeline import report
from undertow.study.files import write_json
from undertow.study.layout import Layout, Study


def test_report_survives_an_unbounded_tau(tmp_path):
    """The teacher's shift only just excludes 0, so resampled ratios run away to both sides."""
    params = make_params(
        models=["tiny"],
        arms=["trait_0", "trait_1"],
        seeds=[0],
        tracking={"enabled": False},
        statistics={"resamples": 1000},
    )
    study = make_study(tmp_path, params)
    shutil.copy(
        Layout(ROOT).trait("pessimism") / "trait.yaml",
        study.layout.trait("pessimism") / "trait.yaml",
    )
    teachers = {"trait_0": first(0, 40), "trait_1": first(4, 40)}
    students = {("tiny", "trait_0", 0): first(0, 40), ("tiny", "trait_1", 0): first(20, 40)}
    for cell, result in with_students(params, students, teachers).items():
        write_json(study.layout.stage(cell, "judge") / "cell.json", result)
    report.run(Study(params, study.layout))
    for path in (study.layout.summary, study.layout.metrics):
        text = path.read_text()
        json.loads(text, parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))
    assert study.layout.report.exists()
