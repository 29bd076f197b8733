"""Results of cells laid side by side: base, teacher, control and student on the same prompts."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from undertow.config import Arm, Cell
from undertow.stats.intervals import Floats
from undertow.stats.transfer import Readings
from undertow.study.records import CellResult, Readout, ReadoutName


def results_of(
    grid: Mapping[Cell, CellResult], model: str, arm: Arm, seeds: Iterable[int]
) -> list[CellResult]:
    """The results of one arm, a seed each."""
    return [grid[Cell(model, arm, seed)] for seed in seeds]


def readings_of(
    grid: Mapping[Cell, CellResult],
    control: Arm,
    model: str,
    arm: Arm,
    seeds: Sequence[int],
    readout: ReadoutName,
    control_seeds: Sequence[int] | None = None,
) -> Readings:
    """One arm's four readouts on the same prompts; verdicts are 0 or 1, NaN is unknown.

    control_seeds: those of the control, where it has others than the arm.
    """
    controls = results_of(grid, model, control, seeds if control_seeds is None else control_seeds)
    results = results_of(grid, model, arm, seeds)
    ids = sorted({id for result in (*controls, *results) for id in result.teacher.verdicts})
    teacher_of_control = _matrix([result.teacher for result in controls], readout, ids)
    return Readings(
        # The unsteered teacher is the base model; under greedy decoding all seeds agree.
        base=teacher_of_control.mean(axis=0),
        teacher=_matrix([result.teacher for result in results], readout, ids),
        control=_matrix([result.student for result in controls], readout, ids),
        student=_matrix([result.student for result in results], readout, ids),
    )


def _matrix(subjects: Sequence[Readout], readout: ReadoutName, ids: Sequence[str]) -> Floats:
    """[seeds, prompts]; NaN where there is no verdict."""
    found = [subject.by(readout) for subject in subjects]
    known = [[values.get(id) for id in ids] for values in found]
    return np.array(
        [[np.nan if value is None else float(value) for value in row] for row in known],
        dtype=np.float64,
    )
