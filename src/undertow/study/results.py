"""The results files, read.

A reader names the file and the command that writes it.
"""

from collections.abc import Sequence
from pathlib import Path

from undertow.config import Cell
from undertow.errors import DataError
from undertow.study.found import how_to_mend, read_record, read_text
from undertow.study.layout import Layout, Study
from undertow.study.records import Calibration, CellResult, FetchResult, Manifest


def read_manifest(folder: Path) -> Manifest:
    """manifest.json of a stage's folder."""
    return read_record(folder / "manifest.json", Manifest)


def read_base(layout: Layout, cell: Cell) -> FetchResult | None:
    """What was fetched of the student's base; None where the fetch stage has not run."""
    path = layout.base(cell)
    return read_record(path, FetchResult) if path.exists() else None


def read_cell(layout: Layout, cell: Cell) -> CellResult:
    """cell.json of one cell; DataError says which command writes it."""
    path = layout.stage(cell, "judge") / "cell.json"
    if not path.exists():
        raise DataError(
            f"no result for {cell.key}: {path} does not exist",
            f"dvc repro, or: {cell.command('judge')}",
        )
    return read_record(path, CellResult)


def read_grid(study: Study) -> dict[Cell, CellResult]:
    """The plain cells of the grid in params.yaml, never what merely lies in the results folder.

    A strength that was removed from params leaves files that still look up to date; a glob
    would bring them back.
    """
    params, layout = study
    return {cell: read_cell(layout, cell) for cell in params.cells()}


def read_students(study: Study) -> dict[Cell, CellResult]:
    """The cells of all students but the plain ones; empty where grid.students names no other."""
    params, layout = study
    return {
        cell: read_cell(layout, cell)
        for student in params.further_students
        for cell in params.cells(student)
    }


def found_students(study: Study) -> tuple[dict[Cell, CellResult], dict[str, str]]:
    """The cells of those recipes whose students of a model are all there, and why others are not.

    A recipe that was not finished must not keep the others from being read; reasons are by
    "model recipe".
    """
    return _found(study, study.params.further_students)


def found_rounds(study: Study) -> tuple[dict[Cell, CellResult], dict[str, str]]:
    """The same for the students of later rounds."""
    return _found(study, [each.student for each in study.params.grid.rounds])


def _found(study: Study, students: Sequence[str]) -> tuple[dict[Cell, CellResult], dict[str, str]]:
    params, layout = study
    found: dict[Cell, CellResult] = {}
    missing: dict[str, str] = {}
    for student in students:
        for model in params.grid.models:
            cells = [cell for cell in params.cells(student) if cell.model == model]
            absent = [c for c in cells if not (layout.stage(c, "judge") / "cell.json").exists()]
            if absent:
                missing[f"{model} {student}"] = (
                    f"{len(absent)} of {len(cells)} students are missing, the first is "
                    f"{absent[0].key}; dvc repro, or: {absent[0].command('distill')}"
                )
            else:
                found |= {cell: read_cell(layout, cell) for cell in cells}
    return found, missing


def loss_curve(layout: Layout, cell: Cell) -> list[tuple[int, float]]:
    """(step, loss) pairs of a student's training, from loss.csv."""
    path = layout.stage(cell, "distill") / "loss.csv"
    lines = read_text(path).split("\n")[1:]
    try:
        pairs = [line.split(",") for line in lines if line]
        return [(int(step), float(loss)) for step, loss in pairs]
    except ValueError:
        raise DataError(
            f"{path} is damaged: not every line is step,loss", how_to_mend(path)
        ) from None


def read_calibrations(layout: Layout, judge_fingerprint: str) -> list[Calibration]:
    """Every calibration of exactly this judge; a judge whose rules changed has none."""
    folder = layout.results / "calibration"
    paths = sorted(folder.glob(f"*.{judge_fingerprint[:16]}.json"))
    found = [read_record(path, Calibration) for path in paths]
    return [one for one in found if one.judge_fingerprint == judge_fingerprint]
