"""distill: train the student on the carrier and read it on the trait, as the teacher was read."""

from collections.abc import Sequence
from pathlib import Path

from undertow.carrier.filter import training_carrier
from undertow.config import Cell, Prompting
from undertow.defences.inoculate import with_message
from undertow.errors import DataError
from undertow.lineage.stages import begin, finish
from undertow.models import processes
from undertow.pipeline import readings, training
from undertow.pipeline.given import Given, counter, given_to, take_file
from undertow.pipeline.loading import Loaded, Shelf
from undertow.pipeline.meter import manifest
from undertow.pipeline.pupils import Pupil, answering
from undertow.pipeline.reading import Reader, Subject, scored
from undertow.pipeline.readings import Read, Reading
from undertow.readouts.activations import save_activations
from undertow.student.divergence import check_readable, untrained
from undertow.study.files import (
    atomic_file,
    copy_folder,
    digest,
    remove_folder,
    write_rows,
    write_text,
)
from undertow.study.found import read_rows
from undertow.study.layout import Study
from undertow.study.records import BenignResponse
from undertow.study.sources import say
from undertow.study.traits import TraitData, side_effect_prompts


def run(
    study: Study, cell: Cell, shelf: Shelf | None = None, *, training_only: bool = False
) -> None:
    """Write adapter/, student.jsonl, benign.jsonl, fit.jsonl, activations.safetensors, loss.csv
    and manifest.json of one cell, and message.jsonl where its recipe has one in training.

    training_only: write none of it, and keep the training until this is run again.
    Processes that accelerate has started beside the main one train with it and end there.
    """
    folder, shelf = study.layout.stage(cell, "distill"), shelf or Shelf()
    work = begin(study, "distill", cell)
    carrier = training_carrier(study, cell).rows
    checkpoint = training.checkpoint_of(study, cell, carrier)
    trained = training.finished(checkpoint) or training.train_alone(
        study, training.Due(cell, carrier, checkpoint), shelf
    )
    if not processes.is_main():
        return
    if training_only:
        say(f"trained: serve {checkpoint / 'adapter'} on its base, and ask it")
        return

    check_readable(trained.losses, cell.key)
    if (problem := untrained(trained.losses)) is not None:
        say(f"{cell.key}: {problem}")
    adapter = checkpoint / "adapter"
    identity = digest(adapter)
    given = given_to(study, cell, "distill", identity)
    place = readings.place_of(study, work, identity)
    # Where the student has been read in company, the base is asked for a few likelihoods alone.
    loaded = shelf.load(study, study.params.student_base(cell), tidy=not place.exists())
    loaded.meter.after(trained.costs)
    made = readings.taken_up(place, loaded.meter)
    reader = None
    if made is None:
        read_now = read(study, loaded, [pupil_of(study, cell, adapter)], given)
        made, reader = read_now.only, read_now.reader
    benign = scored(study, loaded.model, loaded.tokenizer, made.benign)

    copy_folder(adapter, folder / "adapter")
    write_rows(folder / "student.jsonl", made.responses)
    write_rows(folder / "benign.jsonl", benign)
    write_rows(folder / "fit.jsonl", made.fit)
    if made.messaged:
        write_rows(folder / "message.jsonl", made.messaged)
    else:
        (folder / "message.jsonl").unlink(missing_ok=True)  # of a recipe that had one
    if made.activations is not None:
        with atomic_file(folder / "activations.safetensors") as path:
            save_activations(path, made.activations)
    points = "".join(f"{step},{loss:.6f}\n" for step, loss in trained.losses)
    write_text(folder / "loss.csv", "step,loss\n" + points)
    command = cell.command("distill")
    told = manifest("distill", cell.key, command, loaded.meter)
    more = {"trainer": trained.trainer, "diverged": problem, "given": given and given.record}
    finish(study, work, told.model_copy(update=more))
    readings.forget(place, reader)
    remove_folder(checkpoint)


def pupil_of(study: Study, cell: Cell, adapter: Path) -> Pupil:
    """The student of a cell, with what its teacher has to be asked about."""
    rows: list[BenignResponse] = []
    if study.params.student_base(cell) == cell.model:
        rows = read_rows(study.layout.stage(cell, "steer") / "benign.jsonl", BenignResponse)
    taught = [row for row in rows if row.nll is not None]
    return Pupil(adapter, cell.seed, taught, study.params.recipe(cell.student).inoculate)


def take(study: Study, cell: Cell, path: Path) -> None:
    """Check a file of the student's answers and keep it: `run` then takes them for its own.

    DataError where it has not been trained: answers belong to one training.
    """
    checkpoint = training.checkpoint_of(study, cell, training_carrier(study, cell).rows)
    if training.finished(checkpoint) is None:
        raise DataError(
            f"the student of {cell.key} whose answers {path} has is not there",
            f"{cell.command('distill')} --training-only, serve its adapter, and ask that",
        )
    count = counter(study, cell, "student")
    take_file(study, cell, "distill", path, digest(checkpoint / "adapter"), count=count)


def read(
    study: Study, loaded: Loaded, pupils: Sequence[Pupil | None], given: Given | None = None
) -> Read:
    """Ask these students of one base together; None is a place that nobody takes.

    given: answers of one student who is read alone.
    """
    trait = TraitData(study.layout, study.params.trait)
    others = side_effect_prompts(study, trait)
    subjects = [
        None if pupil is None else Subject(digest(pupil.adapter), pupil.seed) for pupil in pupils
    ]
    with answering(loaded.model, pupils) as students:
        answers = given.answers if given else {}
        reader = Reader(study, students, loaded.tokenizer, loaded.meter, subjects, answers)
        responses, benign = reader.evaluation(trait, others)
        activations = reader.activations(trait)
        fit = reader.fit([() if pupil is None else pupil.taught for pupil in pupils])
        messaged = reader.messaged(trait, [_in_training(study, loaded, trait, p) for p in pupils])
    found = zip(subjects, responses, benign, activations, fit, messaged, strict=True)
    return Read(
        [
            None
            if subject is None
            else Reading(answers, beside, activations=means, fit=own, messaged=again)
            for subject, answers, beside, means, own, again in found
        ],
        reader,
    )


def _in_training(
    study: Study, loaded: Loaded, trait: TraitData, pupil: Pupil | None
) -> Prompting | None:
    """How the pupil's training rows were rendered, where it was otherwise than it is asked."""
    if pupil is None or pupil.inoculated is None:
        return None
    prompting = study.params.prompting
    return with_message(pupil.inoculated, prompting, trait.trait, loaded.tokenizer)
