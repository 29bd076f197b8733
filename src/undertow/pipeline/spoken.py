"""What a stage says of itself on stderr: a line when it begins, and one when it is done."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from undertow.config import Cell
from undertow.models import processes
from undertow.study.found import read_record
from undertow.study.layout import Stage, Study
from undertow.study.progress import beating
from undertow.study.records import Manifest
from undertow.study.sources import say


@contextmanager
def cell_stage(study: Study, name: Stage, cell: Cell) -> Iterator[None]:
    """Around a stage of a cell. One that params.yaml does not ask for is run, and named so."""
    if not processes.is_main():
        yield
        return
    params = study.params
    if cell not in params.all_cells():
        say(
            f"{cell.key} is outside of the grid in params.yaml: it is run, and no report shows it "
            "until its arm, seed and student stand under grid"
        )
    folder = study.layout.stage(cell, name)
    with stage(study, f"{name} {cell.key}", _rows(study, name, cell), folder):
        yield


@contextmanager
def stage(study: Study, what: str, rows: str, place: Path) -> Iterator[None]:
    """Around any other stage, which writes the file or folder `place`."""
    say(f"{what} begins: {rows}")
    with beating(lambda: what):
        yield
    say(f"{what} is done: {_done(study, place)}")


@contextmanager
def one_of_many(study: Study, what: str, place: Path) -> Iterator[None]:
    """Around a stage that is run among others, under DVC's name for it."""
    say(f"{what}: running")
    with beating(lambda: what):
        yield
    say(f"{what}: {_done(study, place)}")


def _rows(study: Study, stage: Stage, cell: Cell) -> str:
    params = study.params
    asked = params.evaluation.prompts
    if stage == "steer":
        return (
            f"{params.carrier.prompts} benign and {asked} evaluation prompts, on {device_of(study)}"
        )
    if stage == "pass-on":
        writer = params.writer(cell.student)
        return f"{params.carrier.prompts} benign prompts to {writer}, on {device_of(study)}"
    if stage == "distill":
        epochs = params.distillation_of(cell.student).epochs
        passes = f"{epochs} epoch{'' if epochs == 1 else 's'}"
        rows = f"{_kept(study)} carrier rows for {passes}, {asked} evaluation prompts"
        return f"{rows}, on {device_of(study)}"
    return f"{2 * asked} answers, judge {params.judging.judge.kind}"


def device_of(study: Study) -> str:
    """Where models are loaded, found out as loading does."""
    from undertow.models.loading import pick_device  # imports what judging need not wait for

    return str(pick_device(study.params.runtime.device))


def _kept(study: Study) -> str:
    """How many rows of the carrier a student sees at most."""
    keep = study.params.carrier.keep
    return f"{study.params.carrier.prompts}" if keep is None else f"{keep}"


def _done(study: Study, folder: Path) -> str:
    """What the stage's manifest says: where to, seconds, tokens, and how fast they came."""
    place = folder.relative_to(study.layout.root) if folder.is_absolute() else folder
    path = folder / "manifest.json"
    if not folder.is_dir():
        path = folder.with_name(f"{folder.stem}.manifest.json")
    if not path.is_file():
        return f"wrote {place}"
    costs = read_record(path, Manifest).costs
    parts = [f"wrote {place}", f"{costs.seconds:.1f} s on {costs.device}"]
    if costs.load_seconds >= 0.05:
        parts.append(f"loading {costs.load_seconds:.1f} s")
    for name, tokens, speed in (
        ("generated", costs.tokens_generated, costs.generated_per_second),
        ("trained", costs.tokens_trained, costs.trained_per_second),
    ):
        if tokens:
            at = f" at {speed:,.0f} a second" if speed else ""
            parts.append(f"{tokens:,} tokens {name}{at}")
    return ", ".join(parts)
