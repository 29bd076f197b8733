"""steer: the teacher answers the benign prompts (the carrier) and is read on the trait.

Whatever makes the base a teacher, see `teacher/clothes.py`, is on for all of its answers.
"""

from collections.abc import Sequence
from pathlib import Path

from undertow.config import Cell
from undertow.lineage.stages import Work, begin, finish
from undertow.pipeline import readings
from undertow.pipeline.given import Given, counter, given_to, take_file
from undertow.pipeline.loading import Loaded, Shelf
from undertow.pipeline.meter import Meter, manifest
from undertow.pipeline.reading import Reader, Subject, scored, with_source
from undertow.pipeline.readings import Read, Reading
from undertow.study.carriers import CarrierData
from undertow.study.files import digest, fingerprint, write_rows
from undertow.study.layout import Study
from undertow.study.records import AnswersOf
from undertow.study.traits import TraitData, side_effect_prompts
from undertow.teacher.clothes import check_message, clothes_of, worn
from undertow.teacher.steering import measure_shift

NO_MODEL = "the teacher answered elsewhere and was not loaded here (--without-model)"


def run(study: Study, cell: Cell, shelf: Shelf | None = None) -> None:
    """Write carrier.jsonl, teacher.jsonl, benign.jsonl and manifest.json of one cell."""
    folder, work = study.layout.stage(cell, "steer"), begin(study, "steer", cell)
    given = given_to(study, cell, "steer", _subject(study, cell))
    if given is not None and given.header.without_model:
        _write_unread(study, cell, work, given)
        return
    teacher = clothes_of(study, cell)  # before the model: a damaged file is said at once
    loaded = (shelf or Shelf()).load(study, cell.model)
    check_message(loaded.tokenizer, cell.arm, teacher.prompting)
    shift = measure_shift(loaded.model, list(teacher.offsets)) if teacher.offsets else None
    place = readings.place_of(study, work, identity(study, cell, loaded))
    made = readings.taken_up(place, loaded.meter)
    reader = None
    if made is None:
        read_now = read(study, loaded, [cell], given)
        made, reader = read_now.only, read_now.reader
    benign = scored(study, loaded.model, loaded.tokenizer, made.benign)
    write_rows(folder / "carrier.jsonl", made.carrier)
    write_rows(folder / "teacher.jsonl", made.responses)
    write_rows(folder / "benign.jsonl", benign)
    command = cell.command("steer")
    told = manifest("steer", cell.key, command, loaded.meter, shift)
    finish(study, work, told.model_copy(update={"given": given.record if given else None}))
    readings.forget(place, reader)


def take(
    study: Study, cell: Cell, path: Path, of: AnswersOf | None, *, without_model: bool
) -> None:
    """Check a file of the teacher's answers and keep it: `run` then takes them for its own.

    without_model: nothing is read on the model, so margins and likelihoods stay unknown.
    """
    count = None if without_model else counter(study, cell, "teacher")
    subject = _subject(study, cell)
    take_file(study, cell, "steer", path, subject, of=of, without_model=without_model, count=count)


def _subject(study: Study, cell: Cell) -> str | None:
    """What answers of a teacher belong to; a prompted one is known by what it is asked."""
    if cell.arm.adapter is not None:
        return study.params.adapter_spec(cell.model, cell.arm.name).sha256
    if cell.arm.is_control or cell.arm.direction is None:
        return None
    return digest(study.layout.direction(cell.model) / "direction.safetensors")


def _write_unread(study: Study, cell: Cell, work: Work, given: Given) -> None:
    """Write a teacher that answered elsewhere and was not loaded here."""
    folder, answers = study.layout.stage(cell, "steer"), given.answers
    others = side_effect_prompts(study, TraitData(study.layout, study.params.trait))
    write_rows(folder / "carrier.jsonl", answers["carrier"])
    write_rows(folder / "teacher.jsonl", answers["evaluation"])
    write_rows(folder / "benign.jsonl", with_source(answers["benign"], others))
    told = manifest("steer", cell.key, cell.command("steer"), Meter("cpu"))
    finish(study, work, told.model_copy(update={"given": given.record, "no_margin": NO_MODEL}))


def identity(study: Study, cell: Cell, loaded: Loaded) -> str:
    """What tells this teacher from any other, but for its seed."""
    return fingerprint(
        study.params.model_spec(cell.model),
        study.layout.direction(cell.model) / "direction.safetensors",
        cell.arm.name,
        _subject(study, cell),
        loaded.meter.device,
    )


def read(
    study: Study, loaded: Loaded, cells: Sequence[Cell | None], given: Given | None = None
) -> Read:
    """Ask the teachers of these cells, all of one kind, together; None is nobody's place.

    given: answers of one teacher who is read alone; what is not among them it is asked.
    """
    params, layout = study.params, study.layout
    trait = TraitData(layout, params.trait)
    prompts = CarrierData(layout, params.carrier.name).prompts(params.carrier.prompts)
    others = side_effect_prompts(study, trait)
    teachers = [None if cell is None else clothes_of(study, cell) for cell in cells]
    prompting = next(teacher.prompting for teacher in teachers if teacher)
    subjects = [
        None if cell is None else Subject(identity(study, cell, loaded), cell.seed)
        for cell in cells
    ]
    answers = given.answers if given else {}
    with worn(loaded.model, teachers) as model:
        meter = loaded.meter
        reader = Reader(study, model, loaded.tokenizer, meter, subjects, answers, prompting)
        carrier = reader.carrier(prompts)
        teacher, benign = reader.evaluation(trait, others)
    found = zip(subjects, teacher, benign, carrier, strict=True)
    return Read(
        [
            None if subject is None else Reading(responses, beside, written)
            for subject, responses, beside, written in found
        ],
        reader,
    )
