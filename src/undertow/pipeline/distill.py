"""distill: train the student on the carrier and read it on the trait, as the teacher was read."""

from undertow.carrier.filter import training_carrier
from undertow.config import Cell
from undertow.lineage.stages import begin, finish
from undertow.models import processes
from undertow.pipeline import training
from undertow.pipeline.loading import Shelf
from undertow.pipeline.meter import manifest
from undertow.pipeline.reading import Reader, scored
from undertow.readouts.activations import save_activations
from undertow.student.adapter import student_of
from undertow.student.divergence import check_readable, diverged
from undertow.study.files import (
    atomic_file,
    copy_folder,
    digest,
    remove_folder,
    write_rows,
    write_text,
)
from undertow.study.layout import Study
from undertow.study.sources import say
from undertow.study.traits import TraitData, side_effect_prompts


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
    checkpoint = training.checkpoint_of(study, cell, carrier)
    trained = training.finished(checkpoint) or training.train_alone(
        study, training.Due(cell, carrier, checkpoint), shelf
    )
    if not processes.is_main():
        return

    check_readable(trained.losses, cell.key)
    if (problem := diverged(trained.losses)) is not None:
        say(f"{cell.key}: {problem}; lower distillation.learning_rate in params.yaml")
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
    told = manifest("distill", cell.key, command, loaded.meter)
    finish(study, work, told.model_copy(update={"trainer": trained.trainer, "diverged": problem}))
    reader.forget()
    remove_folder(checkpoint)
