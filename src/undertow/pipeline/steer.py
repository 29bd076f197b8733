"""steer: the teacher answers the benign prompts (the carrier) and is read on the trait."""

from undertow.config import Cell
from undertow.lineage.stages import begin, finish
from undertow.pipeline.loading import Shelf
from undertow.pipeline.meter import manifest
from undertow.pipeline.reading import Reader, scored
from undertow.study.carriers import CarrierData
from undertow.study.files import fingerprint, write_rows
from undertow.study.layout import Study
from undertow.study.traits import TraitData, side_effect_prompts
from undertow.teacher import direction as directions
from undertow.teacher.steering import measure_shift, offsets, steer


def run(study: Study, cell: Cell, shelf: Shelf | None = None) -> None:
    """Write carrier.jsonl, teacher.jsonl, benign.jsonl and manifest.json of one cell."""
    params, layout = study.params, study.layout
    folder, work = layout.stage(cell, "steer"), begin(study, "steer", cell)
    trait = TraitData(layout, params.trait)
    prompts = CarrierData(layout, params.carrier.name).prompts(params.carrier.prompts)
    others = side_effect_prompts(study, trait)
    direction_file = layout.direction(cell.model) / "direction.safetensors"
    direction = directions.load_direction(direction_file)
    loaded = (shelf or Shelf()).load(study, cell.model)
    vectors = direction.of(cell.arm.direction, cell.seed)
    added = offsets(vectors, direction.layers, cell.arm.alpha)
    identity = fingerprint(
        params.model_spec(cell.model), direction_file, cell.arm.name, loaded.meter.device
    )
    shift = measure_shift(loaded.model, list(added)) if added else None
    reader = Reader(study, loaded.model, loaded.tokenizer, loaded.meter)
    with steer(loaded.model, added):
        carrier = reader.carrier(prompts, cell.seed, identity)
        teacher = reader.evaluation(trait, cell.seed, identity)
        benign = reader.benign(others, cell.seed, identity)
    benign = scored(study, loaded.model, loaded.tokenizer, benign)
    write_rows(folder / "carrier.jsonl", carrier)
    write_rows(folder / "teacher.jsonl", teacher)
    write_rows(folder / "benign.jsonl", benign)
    command = cell.command("steer")
    finish(study, work, manifest("steer", cell.key, command, loaded.meter, shift))
    reader.forget()
