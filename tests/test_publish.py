"""A published study has its numbers and figures, and nothing that a model wrote."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

import factories
from undertow.publish import publish
from undertow.records import read_rows
from undertow.results import Response
from undertow.study import Study

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> factories.Study:
    return factories.make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def folder(made: factories.Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("published") / "study"
    target.mkdir()
    (target / "README.md").write_text("Mine.", encoding="utf-8")
    publish(Study(made.params, made.layout), target)
    return target


def test_no_word_of_a_model_is_in_it(made: factories.Study, folder: Path) -> None:
    wrote = {
        row.response
        for name in ("carrier", "teacher", "student")
        for path in made.layout.results.rglob(f"{name}.jsonl")
        for row in read_rows(path, Response)
    }
    assert len(wrote) > 20
    shown = [path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file()]
    assert not [text for text in wrote if any(text in page for page in shown)]


def test_it_holds_tables_and_figures_and_leaves_other_files_alone(
    made: factories.Study, folder: Path
) -> None:
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {
        *("README.md", "report.html", "table.txt", "tau.svg", "dose.svg"),
        *("metrics.json", "params.yaml"),
        *(f"plots/{table}.csv" for table in ("tau", "shifts", "rates", "mechanism")),
    }
    assert (folder / "README.md").read_text(encoding="utf-8") == "Mine."
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert list(metrics) == list(made.params.grid.models)


def test_a_figure_is_an_svg_document_with_all_panels_inside(
    made: factories.Study, folder: Path
) -> None:
    sheet = ElementTree.parse(folder / "tau.svg").getroot()
    assert sheet.tag == f"{SVG}svg"
    panels = sheet.findall(f"{SVG}svg")
    assert len(panels) == 2 * len(made.params.grid.models)
    places = {(panel.get("x"), panel.get("y")) for panel in panels}
    assert len(places) == len(panels)
    wide, high = (float(end) for end in (sheet.get("viewBox") or "").split()[2:])
    for panel in panels:
        assert float(panel.get("x", 0)) + float(panel.get("width", 0)) < wide
        assert float(panel.get("y", 0)) + float(panel.get("height", 0)) < high
    style = sheet.find(f"{SVG}style")
    assert style is not None
    assert "--student" in (style.text or "")
