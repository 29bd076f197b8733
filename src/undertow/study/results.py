"""The results files, read.

A reader names the file and the command that writes it.
"""

from pathlib import Path

from undertow.config import Cell
from undertow.errors import DataError
from undertow.study.layout import Layout, Study
from undertow.study.records import Calibration, CellResult, Manifest


def read_manifest(folder: Path) -> Manifest:
    """manifest.json of a stage's folder."""
    return Manifest.model_validate_json((folder / "manifest.json").read_text(encoding="utf-8"))


def read_cell(layout: Layout, cell: Cell) -> CellResult:
    """cell.json of one cell; DataError says which command writes it."""
    path = layout.stage(cell, "judge") / "cell.json"
    if not path.exists():
        raise DataError(
            f"no result for {cell.key}: {path} does not exist",
            f"dvc repro, or: {cell.command('judge')}",
        )
    return CellResult.model_validate_json(path.read_text(encoding="utf-8"))


def read_grid(study: Study) -> dict[Cell, CellResult]:
    """All cells of the grid in params.yaml, never those that merely lie in the results folder.

    A strength that was removed from params leaves files that still look up to date; a glob
    would bring them back.
    """
    params, layout = study
    return {cell: read_cell(layout, cell) for cell in params.cells()}


def read_cross(study: Study) -> dict[Cell, CellResult]:
    """All cross cells that params.yaml asks for; empty where it asks for none."""
    params, layout = study
    return {cell: read_cell(layout, cell) for cell in params.cross_cells()}


def loss_curve(layout: Layout, cell: Cell) -> list[tuple[int, float]]:
    """(step, loss) pairs of a student's training, from loss.csv."""
    text = (layout.stage(cell, "distill") / "loss.csv").read_text(encoding="utf-8")
    pairs = (line.split(",") for line in text.split("\n")[1:] if line)
    return [(int(step), float(loss)) for step, loss in pairs]


def read_calibrations(layout: Layout, judge_fingerprint: str) -> list[Calibration]:
    """Every calibration of exactly this judge; a judge whose rules changed has none."""
    folder = layout.results / "calibration"
    paths = sorted(folder.glob(f"*.{judge_fingerprint[:16]}.json"))
    found = [Calibration.model_validate_json(path.read_text(encoding="utf-8")) for path in paths]
    return [one for one in found if one.judge_fingerprint == judge_fingerprint]
