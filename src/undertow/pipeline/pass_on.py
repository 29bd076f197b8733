"""pass-on: a student, unsteered, answers the benign prompts, and so writes a later round's carrier.

Prompts, sampling and seed are those that the steered teacher had.
"""

from collections.abc import Sequence
from pathlib import Path

from undertow.config import Cell
from undertow.errors import ConfigError, DataError
from undertow.lineage.stages import begin, finish
from undertow.pipeline import readings
from undertow.pipeline.loading import Loaded, Shelf
from undertow.pipeline.meter import manifest
from undertow.pipeline.pupils import Pupil, answering
from undertow.pipeline.reading import Reader, Subject
from undertow.pipeline.readings import Read, Reading
from undertow.study.carriers import CarrierData
from undertow.study.files import digest, write_rows
from undertow.study.layout import Study


def run(study: Study, cell: Cell, shelf: Shelf | None = None) -> None:
    """Write carrier.jsonl and manifest.json of one cell of a later round."""
    folder, adapter = study.layout.stage(cell, "pass-on"), writer(study, cell)
    work = begin(study, "pass-on", cell)
    loaded = (shelf or Shelf()).load(study, study.params.student_base(cell))
    place = readings.place_of(study, work, digest(adapter))
    made = readings.taken_up(place, loaded.meter)
    reader = None
    if made is None:
        read_now = read(study, loaded, [Pupil(adapter, cell.seed)])
        made, reader = read_now.only, read_now.reader
    write_rows(folder / "carrier.jsonl", made.carrier)
    finish(study, work, manifest("pass-on", cell.key, cell.command("pass-on"), loaded.meter))
    readings.forget(place, reader)


def writer(study: Study, cell: Cell) -> Path:
    """The adapter of the student that writes; ConfigError or DataError where there is none."""
    before = study.params.writer_of(cell)
    if before is None:
        raise ConfigError(
            f"{cell.student!r} is no later round: its carrier is the steered teacher's",
            "name a student of grid.rounds in params.yaml with --student; the teacher's text is "
            f"written by: {cell.command('steer')}",
        )
    adapter = study.layout.stage(before, "distill") / "adapter"
    if not adapter.exists():
        raise DataError(f"{adapter} does not exist, and its student is to write", _train(before))
    return adapter


def _train(cell: Cell) -> str:
    return f"dvc repro, or: {cell.command('distill')}"


def read(study: Study, loaded: Loaded, pupils: Sequence[Pupil | None]) -> Read:
    """Let these students of one base write together; None is a place that nobody takes."""
    params = study.params
    prompts = CarrierData(study.layout, params.carrier.name).prompts(params.carrier.prompts)
    subjects = [
        None if pupil is None else Subject(digest(pupil.adapter), pupil.seed) for pupil in pupils
    ]
    with answering(loaded.model, pupils) as students:
        reader = Reader(study, students, loaded.tokenizer, loaded.meter, subjects)
        written = reader.carrier(prompts)
    found = zip(subjects, written, strict=True)
    return Read(
        [None if subject is None else Reading([], [], rows) for subject, rows in found], reader
    )
