"""A study for notebooks: its numbers as pandas data frames, one function a table.

Reads results files alone; imports no torch. Units: rates are shares, margins are nats.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import NamedTuple, TypeVar

import pandas as pd

from undertow.analysis.summary import Summary
from undertow.errors import DataError
from undertow.report import tidy
from undertow.report.tables import ReadingRow, reading_rows
from undertow.study.found import read_record
from undertow.study.layout import Layout, Study
from undertow.study.results import read_grid

Row = TypeVar("Row", bound=NamedTuple)


@dataclass(frozen=True)
class Frames:
    """A study's tables. `study` is None for a folder that `publish` wrote."""

    folder: Path
    study: Study | None = field(repr=False)

    @classmethod
    def at(cls, path: str | PathLike[str]) -> "Frames":
        """The study, or the published folder, at a path; DataError where there is neither."""
        folder = Path(path).resolve()
        published = (folder / "plots").is_dir() and (folder / "metrics.json").is_file()
        if published:
            return cls(folder, None)
        if not Layout(folder).params.is_file():
            raise DataError(
                f"{folder} holds no study and nothing that was published",
                "give the folder of a params.yaml, or one that python cli.py publish wrote",
            )
        return cls(folder, Study.open(folder))

    def summary(self) -> pd.DataFrame:
        """One row per model and readout: pooled tau, largest strength, and the verdicts on it."""
        return _frame(tidy.model_rows(self._summary), tidy.ModelRow)

    def arms(self) -> pd.DataFrame:
        """One row per model, arm and readout: levels, both shifts and tau with intervals."""
        return _frame(tidy.arm_rows(self._summary), tidy.ArmRow)

    def students(self) -> pd.DataFrame:
        """One row per model, arm, seed and readout: a student's level, shift and tau."""
        return _frame(tidy.student_rows(self._summary), tidy.StudentRow)

    def audits(self) -> pd.DataFrame:
        """One row per arm: whether the trait can be seen in what its students were trained on."""
        return _frame(tidy.audit_rows(self._summary), tidy.AuditRow)

    def costs(self) -> pd.DataFrame:
        """One row per model and stage, and one of the whole study: seconds, tokens, memory, USD."""
        return _frame(tidy.cost_rows(self._summary), tidy.CostRow)

    def readings(self) -> pd.DataFrame:
        """One row per reading: model, arm, seed, teacher or student, readout, prompt id, value."""
        if self.study is None:
            return self.plot("readings")
        return _frame(reading_rows(read_grid(self.study)), ReadingRow)

    def plot(self, name: str) -> pd.DataFrame:
        """A table of plots/ by its name, for example 'shifts'; DataError names those there are."""
        folder = self.folder / "plots" if self.study is None else self.study.layout.plots
        tables = {each.name.partition(".")[0]: each for each in folder.glob("*.csv*")}
        path = tables.get(name)
        if path is None:
            there = ", ".join(sorted(tables)) or "none"
            raise DataError(
                f"{folder / name}.csv does not exist", f"name one of these tables: {there}"
            )
        return pd.read_csv(path, dtype={"seed": "Int64"} if name == "line" else None)

    @property
    def _summary(self) -> Summary:
        if self.study is not None:
            return read_record(self.study.layout.summary, Summary)
        path = self.folder / "summary.json"
        if not path.is_file():
            raise DataError(
                f"{self.folder} was published without summary.json",
                "publish the study again, or read a table of plots/: study.plot('shifts')",
            )
        return read_record(path, Summary)


def _frame(rows: Sequence[Row], kind: type[Row]) -> pd.DataFrame:
    """Columns also where there is no row; whole columns of None stay objects."""
    return pd.DataFrame(list(rows), columns=list(kind._fields))
