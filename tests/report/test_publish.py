"""A published study has its numbers and figures, and nothing that a model wrote."""

import gzip
import html
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pandas
import pytest

import factories
import undertow
from repository import ROOT
from undertow.errors import ConfigError
from undertow.report.publish import publish
from undertow.report.report import render_report
from undertow.report.sections.samples import read_samples
from undertow.report.tables import readings_table
from undertow.study.found import read_rows
from undertow.study.records import Response

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> factories.Study:
    return factories.make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def folder(made: factories.Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("published") / "study"
    target.mkdir()
    (target / "README.md").write_text("Mine.", encoding="utf-8")
    (target / "plots").mkdir()
    (target / "plots" / "mine.csv").write_text("a,b", encoding="utf-8")
    (target / "plots" / "readings.csv").write_text("of a version before", encoding="utf-8")
    publish(made.on_disk, target)
    return target


def text_of(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


def found_in(wrote: set[str], files: Iterable[Path]) -> list[str]:
    pages = [unquote(html.unescape(text_of(path))) for path in files]
    return [text for text in wrote if any(text in page for page in pages)]


def test_no_word_of_a_model_is_in_it(made: factories.Study, folder: Path, tmp_path: Path) -> None:
    wrote = {
        row.response
        for name in ("carrier", "teacher", "student")
        for path in made.layout.results.rglob(f"{name}.jsonl")
        for row in read_rows(path, Response)
    }
    assert not found_in(wrote, (path for path in folder.rglob("*") if path.is_file()))
    revealed = tmp_path / "report.html"
    samples = read_samples(made.on_disk)
    page = render_report(made.summary, made.on_disk, responses=samples, harmful=False)
    revealed.write_text(page, encoding="utf-8")
    assert found_in(wrote, [revealed])


def test_readings_are_compressed_into_the_same_bytes_and_read_as_they_are(
    made: factories.Study, folder: Path, tmp_path: Path
) -> None:
    publish(made.on_disk, tmp_path / "again")
    ours, again = (each / "plots" / "readings.csv.gz" for each in (folder, tmp_path / "again"))
    assert ours.read_bytes() == again.read_bytes()
    assert text_of(ours) == readings_table(made.grid).to_csv()
    pandas.testing.assert_frame_equal(pandas.read_csv(ours), undertow.open(folder).readings())


def test_the_study_s_own_files_are_never_replaced(made: factories.Study) -> None:
    results = made.layout.results
    before = sorted(results.rglob("*"))
    for own in (made.layout.root, results, results / "plots"):
        with pytest.raises(ConfigError, match="study's own files"):
            publish(made.on_disk, own)
    assert sorted(results.rglob("*")) == before


def test_the_command_writes_to_the_folder_that_it_names(
    made: factories.Study, tmp_path: Path
) -> None:
    command = [sys.executable, str(ROOT / "cli.py"), "publish", str(tmp_path / "shown")]
    done = subprocess.run(command, cwd=made.layout.root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "shown" / "report.html").exists()
    (tmp_path / "file").touch()
    refused = subprocess.run(
        [*command[:-1], str(tmp_path / "file")],
        cwd=made.layout.root,
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 2
    # Typer draws a box as wide as the terminal and breaks the sentence where it likes.
    assert "is a file" in " ".join(refused.stderr.replace("\u2502", " ").split())


def test_it_holds_tables_and_figures_and_leaves_other_files_alone(
    made: factories.Study, folder: Path
) -> None:
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {
        *("README.md", "report.html", "table.txt", "line.svg", "tau.svg", "dose.svg"),
        *("metrics.json", "summary.json", "params.yaml"),
        *(f"plots/{table}.csv" for table in ("mine", "tau", "shifts", "rates", "mechanism")),
        *("plots/line.csv", "plots/readings.csv.gz"),
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
