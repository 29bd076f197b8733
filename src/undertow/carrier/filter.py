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
from undertow.study.carriers import CarrierData, CarrierSpec
from undertow.study.found import read_rows
from undertow.study.layout import Study
from undertow.study.records import Response
from undertow.study.traits import TraitData
from undertow.texts.phrases import PhraseMatcher, PhraseRules


class Kept(NamedTuple):
    """rows in the order of the file, out of so many answers.

    rejected: answers that are not of the carrier's form; removed: those that the filter took.
    """

    rows: list[Response]
    answers: int
    rejected: int
    removed: int


def training_carrier(study: Study, cell: Cell) -> Kept:
    """Read a cell's carrier.jsonl; DataError names a cell that keeps fewer than carrier.keep."""
    path = study.written(cell)
    rules = TraitData(study.layout, study.params.trait).trait.judge
    spec = CarrierData(study.layout, study.params.carrier.name).spec
    return keep(read_rows(path, Response), study.params.carrier, spec, rules, cell)


def keep(
    rows: Sequence[Response],
    settings: CarrierSettings,
    spec: CarrierSpec,
    rules: PhraseRules,
    cell: Cell,
) -> Kept:
    """Drop answers that are not of the carrier's form or show the trait, and take carrier.keep.

    Which ones is a matter of seed and prompt id alone, so arms of one seed keep the same prompts
    apart from those that were dropped from one of them.
    """
    wanted = settings.keep or spec.rows
    if wanted is None and not spec.answers.keeps_all:
        raise DataError(
            f"the carrier {spec.name} keeps only answers of its form, more in one arm than in "
            "another, and students of unequal carriers cannot be compared",
            "set carrier.keep in params.yaml to the number that every arm keeps",
        )
    formed = [row for row in rows if spec.answers.accepts(row.response)]
    clean = _clean(formed, settings, rules)
    rejected, removed = len(rows) - len(formed), len(formed) - len(clean)
    if wanted is None:
        return Kept(clean, len(rows), rejected, removed)
    if len(clean) < wanted:
        what = [f"carrier.filter {settings.filter}"] if removed or not rejected else []
        if rejected:
            what.insert(0, f"the form of the carrier {spec.name}")
        raise DataError(
            f"{cell.key}: {' and '.join(what)} leaves {len(clean)} of {len(rows)} rows, and "
            f"{'carrier.keep' if settings.keep else 'carrier.yaml'} asks for {wanted}",
            f"set carrier.keep to at most {len(clean)} in params.yaml (for all arms), raise "
            "carrier.prompts, or set carrier.filter to none",
        )
    chosen = sorted(clean, key=lambda row: _rank(cell.seed, row.id))[:wanted]
    ids = {row.id for row in chosen}
    return Kept([row for row in clean if row.id in ids], len(rows), rejected, removed)


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
