"""Which cells two snapshots do not have in common, and what their stages read differently."""

from collections.abc import Set

from undertow.compare.records import CellChange
from undertow.compare.revisions import Snapshot
from undertow.config import PLAIN, Cell
from undertow.lineage.lock import causes
from undertow.study.records import CellResult, Readout


def cell_changes(before: Snapshot, after: Snapshot) -> tuple[list[CellChange], int]:
    """The cells that differ, and the number of those that do not."""
    changes = []
    ran = {(cell.model, cell.student) for side in (before, after) for cell in side.others}
    old, new = (_cells(side, ran) for side in (before, after))
    ordered = {**new, **old}
    for cell in ordered:
        if cell not in old:
            changes.append(CellChange(cell=cell.key, state="appeared", causes=(), detail=""))
        elif cell not in new:
            changes.append(CellChange(cell=cell.key, state="vanished", causes=(), detail=""))
        elif change := _change(before, after, cell):
            changes.append(change)
    return changes, len(ordered) - len(changes)


def _cells(side: Snapshot, ran: Set[tuple[str, str]]) -> dict[Cell, None]:
    """Of a grid: all plain ones, and those of other recipes and rounds that either side ran."""
    cells = side.params.all_cells()
    return {c: None for c in cells if c.student == PLAIN or (c.model, c.student) in ran}


def _change(before: Snapshot, after: Snapshot, cell: Cell) -> CellChange | None:
    """How a cell of both grids differs; None where it is the same result."""
    first, second = before.result(cell), after.result(cell)
    why = tuple(causes(before.lock, after.lock, cell))
    if first is None or second is None:
        hashes = [side.lock.hash_of(side.lock.folder(cell, "judge")) for side in (before, after)]
        neither = first is None and second is None
        if neither and hashes[0] == hashes[1] is not None:
            return None
        where = "on either side" if neither else "before" if first is None else "after"
        return CellChange(cell=cell.key, state="unknown", causes=why, detail=f"no result {where}")
    if first == second:
        return None
    if (first.teacher, first.student) == (second.teacher, second.student):
        return CellChange(
            cell=cell.key, state="same readouts", causes=why, detail="run again, read the same"
        )
    return CellChange(
        cell=cell.key, state="other readouts", causes=why, detail=_detail(first, second)
    )


def _detail(first: CellResult, second: CellResult) -> str:
    """How many of the prompts that both sides have read differ, by subject."""
    texts = []
    for subject in ("teacher", "student"):
        old: Readout = getattr(first, subject)
        new: Readout = getattr(second, subject)
        shared = old.verdicts.keys() & new.verdicts.keys()
        verdicts = sum(old.verdicts.get(id) != new.verdicts.get(id) for id in shared)
        known = shared & old.margins.keys() & new.margins.keys()
        moved = [abs(old.margins[id] - new.margins[id]) for id in known]
        margins = sum(step > 0 for step in moved)
        if verdicts or margins:
            texts.append(
                f"{subject}: {verdicts} verdicts and {margins} margins of {len(shared)} prompts, "
                f"by at most {max(moved, default=0.0):.2g} nats"
            )
    return "; ".join(texts) or "other evaluation prompts"
