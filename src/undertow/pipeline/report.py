"""report: every number and picture of a study, and its MLflow runs, from the results files."""

from undertow import tracking
from undertow.analysis.conclude import conclude
from undertow.analysis.headline import headline
from undertow.analysis.judges import judge_evidence
from undertow.analysis.summary import Summary
from undertow.report.report import render_report
from undertow.report.sections.samples import read_samples
from undertow.report.tables import write_plot_tables
from undertow.study.files import write_json, write_text
from undertow.study.layout import Study
from undertow.study.results import loss_curve
from undertow.study.traits import TraitData


def run(study: Study, reveal: bool = False) -> Summary:
    """Write summary.json, metrics.json, plots/ and report.html, then bring MLflow up to date.

    A tracking store that cannot be used is a line on stderr: the results are written, and a view
    of them can be made later.
    """
    params, layout = study.params, study.layout
    grid, summary = conclude(study)
    trait = TraitData(layout, params.trait).trait
    write_json(layout.summary, summary)
    write_json(layout.metrics, headline(summary))
    curves = {cell: loss_curve(layout, cell) for cell in grid}
    write_plot_tables(layout.plots, summary, curves, grid)
    page = render_report(
        summary,
        study,
        responses=read_samples(study),
        harmful=trait.harmful,
        reveal=reveal,
        judges=judge_evidence(study, grid, summary),
    )
    write_text(layout.report, page)
    try:
        tracking.sync(study, summary, grid)
    except tracking.TrackingError as error:
        tracking.warn(f"not all runs were written; {error.message}; {error.remedy}")
    return summary
