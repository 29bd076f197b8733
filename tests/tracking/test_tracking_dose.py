"""What the curve runs say of the dose-response: the verdict always, a threshold where it is one."""

from pathlib import Path

from factories import write_cell
from studies import HINGE, LINE, counted
from undertow.analysis.summarise import summarise
from undertow.study.layout import Layout, Study
from undertow.tracking.content import contents
from undertow.tracking.metrics import thresholds


def test_curve_runs_carry_the_verdict_and_only_a_threshold_s_numbers(tmp_path: Path) -> None:
    params, grid = counted({"hinged": HINGE, "straight": LINE})
    layout = Layout(tmp_path)
    for cell in params.cells():
        write_cell(layout, params, cell, loss_points=2)
    summary = summarise(params, grid)
    curves = [
        run for run in contents(Study(params, layout), summary, grid) if run.tags["kind"] == "curve"
    ]
    assert len(curves) == 6
    for run in curves:
        dose = summary.views[run.tags["model"]].dose
        assert dose is not None
        assert run.tags["dose_verdict"] == dose.verdict
        assert run.tags["dose_reason"] == dose.reason
        logged = {point.name: point.value for point in run.points if "threshold" in point.name}
        if dose.verdict == "threshold":
            assert logged == {
                "threshold": dose.threshold.value,
                "threshold_low": dose.threshold.low,
                "threshold_high": dose.threshold.high,
            }
        else:
            assert logged == {}
    # Another fit of the same cells is another run: its key must not stay the same.
    refit = summary.model_copy(
        update={"doses": tuple(d.model_copy(update={"verdict": "none"}) for d in summary.doses)}
    )
    keys = {run.key for run in curves}
    assert not keys & {run.key for run in contents(Study(params, layout), refit, grid)}
    assert thresholds(None) == {}
