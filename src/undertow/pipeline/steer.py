"""steer: the teacher answers the benign prompts (the carrier) and is read on the trait."""

from collections.abc import Sequence
from pathlib import Path

from undertow.config import Cell
from undertow.lineage.stages import begin, finish
from undertow.pipeline import readings
from undertow.pipeline.loading import Loaded, Shelf
from undertow.pipeline.meter import manifest
from undertow.pipeline.reading import Reader, Subject, scored
from undertow.pipeline.readings import Read, Reading
from undertow.study.carriers import CarrierData
from undertow.study.files import fingerprint, write_rows
from undertow.study.layout import Study
from undertow.study.traits import TraitData, side_effect_prompts
from undertow.teacher import direction as directions
from undertow.teacher.several import steer_together
from undertow.teacher.steering import Offsets, measure_shift, offsets, steer


def run(study: Study, cell: Cell, shelf: Shelf | None = None) -> None:
    """Write carrier.jsonl, teacher.jsonl, benign.jsonl and manifest.json of one cell."""
    folder, work = study.layout.stage(cell, "steer"), begin(study, "steer", cell)
    added = _offsets(study, cell)  # before the model: a damaged file is said at once
    loaded = (shelf or Shelf()).load(study, cell.model)
    shift = measure_shift(loaded.model, list(added)) if added else None
    place = readings.place_of(study, work, identity(study, cell, loaded))
    made = readings.taken_up(place, loaded.meter)
    reader = None
    if made is None:
        read_now = read(study, loaded, [cell])
        made, reader = read_now.only, read_now.reader
    benign = scored(study, loaded.model, loaded.tokenizer, made.benign)
    write_rows(folder / "carrier.jsonl", made.carrier)
    write_rows(folder / "teacher.jsonl", made.responses)
    write_rows(folder / "benign.jsonl", benign)
    command = cell.command("steer")
    finish(study, work, manifest("steer", cell.key, command, loaded.meter, shift))
    readings.forget(place, reader)


def identity(study: Study, cell: Cell, loaded: Loaded) -> str:
    """What tells this teacher from any other, but for its seed."""
    return fingerprint(
        study.params.model_spec(cell.model),
        _direction_file(study, cell),
        cell.arm.name,
        loaded.meter.device,
    )


def read(study: Study, loaded: Loaded, cells: Sequence[Cell | None]) -> Read:
    """Ask the teachers of these cells together; None is a place that nobody takes."""
    params, layout = study.params, study.layout
    trait = TraitData(layout, params.trait)
    prompts = CarrierData(layout, params.carrier.name).prompts(params.carrier.prompts)
    others = side_effect_prompts(study, trait)
    added: list[Offsets] = [{} if cell is None else _offsets(study, cell) for cell in cells]
    subjects = [
        None if cell is None else Subject(identity(study, cell, loaded), cell.seed)
        for cell in cells
    ]
    reader = Reader(study, loaded.model, loaded.tokenizer, loaded.meter, subjects)
    alone = len(added) == 1
    with steer(loaded.model, added[0]) if alone else steer_together(loaded.model, added):
        carrier = reader.carrier(prompts)
        teacher = reader.evaluation(trait)
        benign = reader.benign(others)
    found = zip(subjects, teacher, benign, carrier, strict=True)
    return Read(
        [
            None if subject is None else Reading(responses, beside, written)
            for subject, responses, beside, written in found
        ],
        reader,
    )


def _direction_file(study: Study, cell: Cell) -> Path:
    return study.layout.direction(cell.model) / "direction.safetensors"


def _offsets(study: Study, cell: Cell) -> Offsets:
    direction = directions.load_direction(_direction_file(study, cell))
    vectors = direction.of(cell.arm.direction, cell.seed)
    return offsets(vectors, direction.layers, cell.arm.alpha)
