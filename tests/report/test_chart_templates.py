"""The templates of `dvc plots` are the report's layers, and each panel shows its own rows."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import vl_convert
from dvc_render.vega import VegaRenderer
from dvc_render.vega_templates import Template

from drawings import Drawn
from factories import Study, make_params, make_study
from undertow.report.charts.templates import templates
from undertow.report.tables import TidyTable, estimate_tables, loss_table
from undertow.study.results import loss_curve

ROOT = Path(__file__).parents[2]
REVISIONS = ("main", "workspace")
# The oldest that the renderer has; DVC brings 5.2.
VEGA_LITE = "5.8"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    arms = ("trait_0", "trait_0.25", "trait_0.5", "trait_1", "random_1")
    return make_study(tmp_path_factory.mktemp("study"), make_params(arms=arms))


@pytest.fixture(scope="module")
def tables(study: Study) -> dict[str, TidyTable]:
    losses = {cell: loss_curve(study.layout, cell) for cell in study.grid}
    return estimate_tables(study.summary) | {"loss.csv": loss_table(losses)}


def rows_of(table: TidyTable) -> list[dict[str, str]]:
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return [row | {"rev": revision} for revision in REVISIONS for row in rows]


def filled(name: str, rows: list[dict[str, str]], x: str, y: str) -> Drawn:
    """The template as DVC fills it, drawn."""
    template = Template(json.loads(templates()[f"undertow_{name}.json"]), name=name)
    labels = {"x_label": "the x label", "y_label": "the y label", "title": "the title"}
    renderer = VegaRenderer(rows, name, x=x, y=y, revs_with_datapoints=list(REVISIONS), **labels)
    renderer.template = template
    spec: dict[str, Any] = renderer.get_filled_template()
    assert "<DVC" not in json.dumps(spec)
    return Drawn(vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE))


def told(panel: Drawn, field: str) -> list[float]:
    """The points' values of a field, from their labels."""
    labels = [mark.get("aria-label", "") for mark in panel.marks("points")]
    found = [re.search(rf"(?:^|; ){field}: ([^;]+)", label) for label in labels]
    return sorted(float(f[1].replace("\N{MINUS SIGN}", "-")) for f in found if f)


def test_the_files_are_what_the_layers_make() -> None:
    """Else: python -m undertow.report.charts.templates"""
    found = {path.name: path.read_text() for path in (ROOT / ".dvc" / "plots").glob("*.json")}
    assert found == templates()


@pytest.mark.parametrize(
    ("name", "by", "order", "y"),
    [
        ("tau", "readout", ("margin", "rate"), "tau"),
        ("rates", "subject", ("teacher", "student"), "rate"),
    ],
)
def test_every_panel_shows_the_rows_that_its_heads_name(
    tables: dict[str, TidyTable], name: str, by: str, order: tuple[str, ...], y: str
) -> None:
    rows = rows_of(tables[f"{name}.csv"])
    drawn = filled(name, rows, "strength", y)
    models = sorted({row["model"] for row in rows})
    heads = drawn.texts("role-column-header"), drawn.texts("role-row-header")
    assert len(drawn.panels) == 4, heads
    values = []
    for panel, (value, model) in zip(
        drawn.panels, [(v, m) for v in order for m in models], strict=True
    ):
        own = [row for row in rows if (row[by], row["model"]) == (value, model)]
        assert told(panel, y) == pytest.approx(sorted(float(row[y]) for row in own), abs=1e-4)
        counts = panel.count("bars_y", "caps_y", "arrows_y", "levels")
        assert counts["bars_y"] == len(own)
        assert counts["caps_y"] + counts["arrows_y"] == 2 * len(own)
        assert counts["levels"] == (2 if name == "tau" else 0)
        # A line per revision, along the trait alone.
        assert len(panel.marks("joined")) == len(REVISIONS)
        values.append(told(panel, y))
    assert len({tuple(each) for each in values}) == 4


def test_an_empty_field_is_undefined_and_not_0(tables: dict[str, TidyTable]) -> None:
    rows = [row for row in rows_of(tables["tau.csv"]) if row["rev"] == "main"]
    one = [r for r in rows if (r["model"], r["readout"]) == (rows[0]["model"], "margin")]
    middle = next(row for row in one if row["strength"] == "0.5")
    middle |= {"tau": "", "low": "", "high": ""}
    drawn = filled("tau", rows, "strength", "tau")
    [panel] = [panel for panel in drawn.panels if panel.marks("gaps")]
    assert len(told(panel, "tau")) == len(one) - 1
    # The line broke at it into two single points.
    assert all("L" not in (path.get("d") or "") for path in panel.marks("joined"))


def test_losses_are_a_line_per_cell(study: Study, tables: dict[str, TidyTable]) -> None:
    drawn = filled("loss", rows_of(tables["loss.csv"]), "step", "loss")
    cells = len(study.grid)
    counts = [len(panel.marks("curves")) for panel in drawn.panels]
    assert sum(counts) == cells * len(REVISIONS) and len(set(counts)) == 1


@pytest.mark.skipif(shutil.which("dvc") is None, reason="no dvc on the PATH")
def test_dvc_accepts_the_templates(tables: dict[str, TidyTable], tmp_path: Path) -> None:
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    (tmp_path / ".dvc" / "plots").mkdir(exist_ok=True)
    for name, text in templates().items():
        (tmp_path / ".dvc" / "plots" / name).write_text(text)
    shown = (ROOT / "dvc.yaml").read_text().split("\nplots:\n")[1]
    (tmp_path / "dvc.yaml").write_text(f"plots:\n{shown}")
    for name, table in tables.items():
        path = tmp_path / "results" / "plots" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(table.to_csv())
    subprocess.run(["dvc", "plots", "show", "-q", "--out", "shown"], cwd=tmp_path, check=True)
    page = (tmp_path / "shown" / "index.html").read_text()
    assert page.count("vegaEmbed(") == 4
    assert "<DVC_METRIC" not in page
    assert "transfer ratio tau" in page
