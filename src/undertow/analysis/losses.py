"""Where the training of control students ended: what says whether two recipes learned alike.

A recipe that is to be matched with plain students, as SGD is, is matched on the control alone: its
text shows no trait, so nothing is chosen by what is asked.
"""

from collections.abc import Mapping
from statistics import fmean

from undertow.config import Cell
from undertow.study.layout import Study
from undertow.study.records import CellResult
from undertow.study.results import loss_curve

SHARE = 0.2  # of the steps, the last ones: single steps differ by their rows


def control_losses(study: Study, cells: Mapping[Cell, CellResult]) -> dict[tuple[str, str], float]:
    """By model and recipe the control students' mean loss over the last steps, nats per token.

    As it was trained: of the tokens that the recipe left, with its penalty where it has one. A
    recipe of which a curve is not there is left out.
    """
    found: dict[tuple[str, str], list[float] | None] = {}
    for cell in cells:
        if not cell.arm.is_control:
            continue
        key = cell.model, cell.student
        known = found.setdefault(key, [])
        if not (study.layout.stage(cell, "distill") / "loss.csv").exists():
            found[key] = None
        elif known is not None and (curve := loss_curve(study.layout, cell)):
            last = curve[-max(1, int(SHARE * len(curve))) :]
            known.append(fmean(loss for _, loss in last))
    return {key: fmean(losses) for key, losses in found.items() if losses}
