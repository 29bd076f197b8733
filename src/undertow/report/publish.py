"""What of a study anybody may see: its numbers and figures, and not a word that a model wrote."""

import gzip
from pathlib import Path

from undertow.analysis.conclude import conclude
from undertow.analysis.headline import headline
from undertow.analysis.judges import judge_evidence
from undertow.analysis.summary import Summary
from undertow.errors import ConfigError
from undertow.report.charts.line import line_figure
from undertow.report.charts.picture import sheet
from undertow.report.charts.rates import dose_figure
from undertow.report.charts.tau import tau_figure
from undertow.report.charts.worth import worth_figure
from undertow.report.report import render_report
from undertow.report.tables import estimate_tables, readings_table
from undertow.report.terminal import strength_table
from undertow.study.files import atomic_file, write_json, write_text
from undertow.study.layout import Layout, Study
from undertow.texts.addresses import public


def publish(study: Study, folder: Path) -> None:
    """Write report.html, table.txt, both JSON files, params.yaml, plots/ and the main figures.

    The table of single readings is by far the largest and is compressed, summary.json stands on
    one line; the same study gives the same bytes. Other files in the folder stay. Raises DataError
    where a cell of the grid has no result, ConfigError for a folder whose files of these names are
    the study's own.
    """
    layout = study.layout
    refuse_own(folder, layout)
    grid, summary = conclude(study)
    page = render_report(
        summary,
        study,
        responses=None,
        harmful=False,  # there is no text to hold back
        judges=judge_evidence(study, grid, summary),
    )
    write_text(folder / "report.html", page)
    write_text(folder / "table.txt", strength_table(summary) + "\n")
    for name, picture in pictures(summary).items():
        write_text(folder / name, picture)
    write_json(folder / "metrics.json", headline(summary))
    write_json(folder / "summary.json", summary, compact=True)
    write_text(folder / "params.yaml", public(layout.params.read_text(encoding="utf-8")))
    for name, table in estimate_tables(summary).items():
        write_text(folder / "plots" / name, table.to_csv())
    readings = folder / "plots" / "readings.csv.gz"
    with atomic_file(readings) as temporary:
        temporary.write_bytes(gzip.compress(readings_table(grid).to_csv().encode(), mtime=0))
    readings.with_suffix("").unlink(missing_ok=True)  # as versions before this one wrote it


def pictures(summary: Summary) -> dict[str, str]:
    """The main figures as SVG documents, by file name; without those that have nothing to show."""
    figures = {
        "line.svg": line_figure(summary),
        "tau.svg": tau_figure(summary),
        "dose.svg": dose_figure(summary),
        "defences.svg": worth_figure(summary),
    }
    return {
        name: sheet(figure.panels, figure.across)
        for name, figure in figures.items()
        if figure is not None
    }


def refuse_own(folder: Path, layout: Layout) -> None:
    """ConfigError where files of a study itself would be replaced."""
    target, own = folder.resolve(), layout.results.resolve()
    if target == layout.root.resolve() or own in (target, *target.parents):
        raise ConfigError(
            f"{folder} holds the study's own files, and some would be replaced",
            "name another folder, for example: python cli.py publish shown",
        )
