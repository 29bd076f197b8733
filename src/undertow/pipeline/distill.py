"""distill: train the student on the carrier and read it on the trait, as the teacher was read."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from undertow.carrier.filter import training_carrier
from undertow.config import Cell
from undertow.lineage.stages import begin, finish
from undertow.models import processes
from undertow.models.families import check_length
from undertow.pipeline.loading import Shelf
from undertow.pipeline.meter import manifest
from undertow.pipeline.reading import Reader, scored
from undertow.readouts.activations import save_activations
from undertow.student.adapter import student_of
from undertow.student.rows import training_rows
from undertow.student.training import train
from undertow.study.files import (
    atomic_file,
    atomic_folder,
    copy_folder,
    digest,
    fingerprint,
    remove_folder,
    write_json,
    write_rows,
    write_text,
)
from undertow.study.layout import Study
from undertow.study.records import Costs, Response
from undertow.study.traits import TraitData, side_effect_prompts
from undertow.tracking import log_training


def run(study: Study, cell: Cell, shelf: Shelf | None = None) -> None:
    """Write adapter/, student.jsonl, benign.jsonl, activations.safetensors, loss.csv and
    manifest.json of one cell.

    Processes that accelerate has started beside the main one train with it and end there.
    """
    folder, shelf = study.layout.stage(cell, "distill"), shelf or Shelf()
    work = begin(study, "distill", cell)
    trait = TraitData(study.layout, study.params.trait)
    others = side_effect_prompts(study, trait)
    carrier = training_carrier(study, cell).rows
    checkpoint = _checkpoint(study, cell, carrier)
    trained = _trained(study, cell, carrier, checkpoint, shelf)
    if not processes.is_main():
        return

    loaded = shelf.load(study, cell.model)
    loaded.meter.after(trained.costs)
    adapter = checkpoint / "adapter"
    with student_of(loaded.model, adapter) as student:
        reader = Reader(study, student, loaded.tokenizer, loaded.meter)
        responses = reader.evaluation(trait, cell.seed, digest(adapter))
        benign = reader.benign(others, cell.seed, digest(adapter))
        activations = reader.activations(trait)
    benign = scored(study, loaded.model, loaded.tokenizer, benign)

    copy_folder(adapter, folder / "adapter")
    write_rows(folder / "student.jsonl", responses)
    write_rows(folder / "benign.jsonl", benign)
    with atomic_file(folder / "activations.safetensors") as path:
        save_activations(path, activations)
    points = "".join(f"{step},{loss:.6f}\n" for step, loss in trained.losses)
    write_text(folder / "loss.csv", "step,loss\n" + points)
    command = cell.command("distill")
    finish(study, work, manifest("distill", cell.key, command, loaded.meter))
    reader.forget()
    remove_folder(checkpoint)


def _checkpoint(study: Study, cell: Cell, carrier: Sequence[Response]) -> Path:
    """Where a finished training is kept until the student is read, keyed by all it depends on."""
    params = study.params
    key = fingerprint(
        "distill",
        cell,
        params.model_spec(cell.model),
        carrier,
        params.distillation,
        params.prompting,
        params.runtime.device,
    )
    return study.layout.journal / key


class Finished(NamedTuple):
    """A finished training: (step, loss) pairs and what it cost; the adapter is on disk."""

    losses: list[tuple[int, float]]
    costs: Costs


def _trained(
    study: Study, cell: Cell, carrier: Sequence[Response], checkpoint: Path, shelf: Shelf
) -> Finished:
    """Train, or take up the adapter that a killed run of this very stage has finished."""
    record = checkpoint / "training.json"
    if record.exists():
        kept = json.loads(record.read_text(encoding="utf-8"))
        costs = Costs.model_validate(kept["costs"])
        return Finished([(step, loss) for step, loss in kept["losses"]], costs)
    params = study.params
    settings = params.distillation
    loaded = shelf.load(study, cell.model, nf4=settings.quantization == "nf4")
    rows = training_rows(loaded.tokenizer, carrier, params.prompting)
    check_length(loaded.model.config, max(len(row["input_ids"]) for row in rows))
    if not processes.is_main():
        train(loaded.model, loaded.tokenizer, rows, settings, cell.seed, checkpoint, _ignore)
        return Finished([], loaded.meter.costs())
    with (
        atomic_folder(checkpoint) as staged,
        log_training(study, cell, checkpoint.name) as tracker,
    ):
        adapter = staged / "adapter"
        done = train(
            loaded.model, loaded.tokenizer, rows, settings, cell.seed, adapter, tracker.loss
        )
        write_json(adapter / "undertow.json", _provenance(study, cell, len(carrier)))
        loaded.meter.add_training(done.tokens, done.seconds)
        costs = _of_all_processes(loaded.meter.costs())
        kept = {"losses": done.losses, "costs": costs.model_dump(mode="json")}
        write_json(staged / "training.json", kept)
    return Finished(done.losses, costs)


def _ignore(_step: int, _loss: float, _rate: float) -> None:
    """The main process has the same losses and logs them."""


def _of_all_processes(costs: Costs) -> Costs:
    """Each process holds a device of its own while it trains."""
    held = costs.gpu_seconds
    return costs.model_copy(
        update={"gpu_seconds": None if held is None else held * processes.count()}
    )


def _provenance(study: Study, cell: Cell, rows: int) -> dict[str, object]:
    """What a reader of the adapter alone needs to know."""
    return {
        "command": cell.command("distill"),
        "cell": cell.key,
        "trait": study.params.trait,
        "model": study.params.model_spec(cell.model).model_dump(mode="json"),
        "distillation": study.params.distillation.model_dump(mode="json"),
        "carrier_sha256": digest(study.layout.stage(cell, "steer") / "carrier.jsonl"),
        "carrier_filter": study.params.carrier.filter,
        "carrier_rows": rows,
    }
