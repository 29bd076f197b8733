"""A tau whose interval has no end: null in every file, infinity in every view."""

import json
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest

from factories import make_params, make_study
from undertow.analysis.headline import headline
from undertow.analysis.summary import Summary
from undertow.report.report import render_report
from undertow.report.sections.samples import read_samples
from undertow.report.tables import write_plot_tables
from undertow.report.terminal import strength_table
from undertow.stats.intervals import Estimate
from undertow.study.files import write_json


def unbounded(summary: Summary) -> Summary:
    """The same study, but no tau has an upper end."""
    arms = tuple(
        arm.model_copy(update={"margin": replace(arm.margin, tau=Estimate(1.0, 0.25, inf))})
        for arm in summary.arms
    )
    return summary.model_copy(update={"arms": arms})


def refused(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def test_an_end_that_is_infinite_is_null_in_the_files(tmp_path: Path) -> None:
    summary = unbounded(make_study(tmp_path, make_params(seeds=(0,))).summary)
    for name, value in (("summary.json", summary), ("metrics.json", headline(summary))):
        write_json(tmp_path / name, value)
        json.loads((tmp_path / name).read_text(), parse_constant=refused)
    read = Summary.model_validate_json((tmp_path / "summary.json").read_text())
    tau = next(arm for arm in read.arms if arm.arm == "trait_1").margin.tau
    assert (tau.low, tau.high) == (0.25, None)
    assert tau.ends == (0.25, inf) and tau.excludes_zero


def test_table_page_and_plots_show_it_without_an_end(tmp_path: Path) -> None:
    study = make_study(tmp_path, make_params(seeds=(0,)))
    summary = unbounded(study.summary)
    assert "[0.25, inf]" in strength_table(summary)
    page = render_report(
        summary, study.on_disk, responses=read_samples(study.on_disk), harmful=False
    )
    assert "\N{INFINITY}" in page
    write_plot_tables(tmp_path / "plots", summary, {}, study.grid)
    assert "inf" not in (tmp_path / "plots" / "tau.csv").read_text()


@pytest.mark.parametrize("end", [inf, -inf, float("nan")])
def test_an_estimate_holds_no_number_that_json_lacks(end: float) -> None:
    assert Estimate(1.0, end, end) == Estimate(1.0)
