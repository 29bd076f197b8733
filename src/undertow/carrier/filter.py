"""The rows of a carrier that a student is trained on: filtered, and equally many in every arm.

The carrier file stays whole; the filter is applied where it is read.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from undertow.carrier.traces import floats, shows_trait
from undertow.config import CarrierSettings, Cell
from undertow.errors import DataError
from undertow.judging.offline import PhraseJudge
from undertow.study.found import read_rows
from undertow.study.layout import Study
from undertow.study.records import Response
from undertow.study.traits import TraitData
from undertow.texts.phrases import PhraseMatcher, PhraseRules


class Kept(NamedTuple):
    """rows in the order of the file; removed counts those that the filter took away."""

    rows: list[Response]
    removed: int


def training_carrier(study: Study, cell: Cell) -> Kept:
    """Read a cell's carrier.jsonl; DataError names a cell that keeps fewer than carrier.keep."""
    path = study.layout.stage(cell, "steer") / "carrier.jsonl"
    rules = TraitData(study.layout, study.params.trait).trait.judge
    return keep(read_rows(path, Response), study.params.carrier, rules, cell)


def keep(
    rows: Sequence[Response], settings: CarrierSettings, rules: PhraseRules, cell: Cell
) -> Kept:
    """Drop rows that show the trait and take carrier.keep of the others.

    Which ones is a matter of seed and prompt id alone, so arms of one seed keep the same prompts
    apart from those that the filter took from one of them.
    """
    clean = _clean(rows, settings, rules)
    removed = len(rows) - len(clean)
    if settings.keep is None:
        return Kept(clean, removed)
    if len(clean) < settings.keep:
        raise DataError(
            f"{cell.key}: carrier.filter {settings.filter} leaves {len(clean)} of {len(rows)} "
            f"rows, and carrier.keep asks for {settings.keep}",
            f"set carrier.keep to at most {len(clean)} in params.yaml (for all arms), raise "
            "carrier.prompts, or set carrier.filter to none",
        )
    chosen = sorted(clean, key=lambda row: _rank(cell.seed, row.id))[: settings.keep]
    ids = {row.id for row in chosen}
    return Kept([row for row in clean if row.id in ids], removed)


def _clean(
    rows: Sequence[Response], settings: CarrierSettings, rules: PhraseRules
) -> list[Response]:
    match settings.filter:
        case "none":
            shown = np.zeros(len(rows))
        case "phrases":
            matcher = PhraseMatcher(rules)
            shown = floats([bool(matcher.hits(row.response).present) for row in rows])
        case "judge":
            shown = shows_trait(rows, PhraseJudge(rules))
    # No verdict is NaN, and such a row (an empty answer) shows nothing.
    return [row for row, value in zip(rows, shown, strict=True) if not value > 0]


def _rank(seed: int, id: str) -> bytes:
    """A random place that depends on nothing but seed and prompt."""
    return hashlib.sha256(f"{seed}:{id}".encode()).digest()
