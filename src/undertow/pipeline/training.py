"""The training of cells, alone or in groups: kept whole, outside of DVC's outputs, until the
student has been read. A killed training leaves nothing; a finished one is taken up.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from math import isfinite, nan
from pathlib import Path
from typing import Any, NamedTuple

from undertow.config import Cell
from undertow.defences.lesson import Lesson
from undertow.errors import ConfigError, DataError
from undertow.models import processes
from undertow.models.loading import pick_device
from undertow.pipeline.lessons import Prepared, continues, prepared
from undertow.pipeline.loading import Loaded, Shelf
from undertow.pipeline.meter import added
from undertow.student.adapter import check_adapted
from undertow.student.base_name import base_name, described, make_portable
from undertow.student.together import Student, Together, why_alone
from undertow.study.carriers import CarrierData
from undertow.study.files import atomic_folder, digest, fingerprint, write_json
from undertow.study.found import tensors
from undertow.study.layout import Study
from undertow.study.records import Costs, Response, Trainer
from undertow.study.results import read_base
from undertow.tracking import log_training


class Due(NamedTuple):
    """A cell whose student is to be trained on `carrier`, and where its training is kept."""

    cell: Cell
    carrier: Sequence[Response]
    checkpoint: Path


class FinishedTraining(NamedTuple):
    """A finished training: (step, loss) pairs and what it cost; the adapter is on disk."""

    losses: list[tuple[int, float]]
    costs: Costs
    trainer: Trainer


def checkpoint_of(study: Study, cell: Cell, carrier: Sequence[Response]) -> Path:
    """Where a finished training is kept, keyed by all it depends on."""
    params, recipe = study.params, study.params.recipe(cell.student)
    before = continues(study, cell)
    key = fingerprint(
        "distill",
        cell,
        params.model_spec(params.student_base(cell)),
        carrier,
        recipe,
        *(_read_by_defences(study, cell) if recipe.defends else ()),
        *([digest(before)] if before is not None else ()),
        params.distillation,
        params.prompting,
        params.runtime.device,
    )
    return study.layout.journal / key


def _read_by_defences(study: Study, cell: Cell) -> Sequence[object]:
    """What a student may depend on besides, through its recipe."""
    params, layout = study
    direction = layout.direction(cell.model) / "direction.safetensors"
    return (
        direction if direction.exists() else None,  # who needs it says what to run
        layout.trait(params.trait),
        CarrierData(layout, params.carrier.name).file,
        params.direction,
        params.carrier,
        params.evaluation.benign_prompts,
        params.runtime.batch_size,
    )


def finished(checkpoint: Path) -> FinishedTraining | None:
    """The training that this stage has finished before it was killed, or a group has.

    DataError where what was kept is damaged.
    """
    record = checkpoint / "training.json"
    if not record.exists():
        return None
    config = checkpoint / "adapter" / "adapter_config.json"
    try:
        kept = json.loads(record.read_text(encoding="utf-8"))
        losses = [(step, nan if loss is None else loss) for step, loss in kept["losses"]]
        made = FinishedTraining(losses, Costs.model_validate(kept["costs"]), kept["trainer"])
        json.loads(config.read_text(encoding="utf-8"))
        with tensors(config.with_name("adapter_model.safetensors"), "np"):
            return made
    except (OSError, ValueError, KeyError, TypeError, DataError) as error:
        raise DataError(
            f"the finished training in {checkpoint} is damaged: "
            f"{error.message if isinstance(error, DataError) else error}",
            f"rm -r {checkpoint}, and give the same command again, which trains anew",
        ) from None


def trainer_of(study: Study, loaded: Loaded) -> Trainer:
    """Which trainer the parameters and the model call for; ConfigError where they disagree."""
    wanted = study.params.runtime.training
    if not may_be_together(study):
        return "trl"
    reason = why_alone(loaded.model, study.params.distillation)
    if reason is None:
        return "together"
    if wanted == "together":
        raise ConfigError(
            f"runtime.training: together was asked for, and {reason}",
            "set runtime.training to auto or trl",
        )
    return "trl"


def may_be_together(study: Study) -> bool:
    """What can be said before the model is loaded: a CPU gains nothing from it."""
    runtime = study.params.runtime
    if runtime.training == "auto":
        return pick_device(runtime.device).type == "cuda"
    return runtime.training == "together"


def train_alone(study: Study, due: Due, shelf: Shelf) -> FinishedTraining:
    """Train one student, by itself or as a group of one.

    Of several processes all train, and the main one keeps what came of it.
    """
    ready = prepared(study, due.cell, due.carrier, shelf)
    loaded = load(study, study.params.student_base(due.cell), shelf)
    teaching, seed = ready.lesson.teaching, due.cell.seed
    if trainer_of(study, loaded) == "together":
        trainer = Together(loaded.model, loaded.tokenizer, [(teaching, seed)], size=1)
        try:
            return train_group(study, [due], [ready], loaded, trainer)[0]
        finally:
            trainer.close()
    from undertow.student.training import train  # TRL takes seconds to import

    if not processes.is_main():
        train(loaded.model, loaded.tokenizer, teaching, seed, due.checkpoint, _ignore)
        return FinishedTraining([], loaded.meter.costs(), "trl")
    with (
        atomic_folder(due.checkpoint) as staged,
        log_training(study, due.cell, due.checkpoint.name) as tracker,
    ):
        adapter = staged / "adapter"
        done = train(loaded.model, loaded.tokenizer, teaching, seed, adapter, tracker.loss)
        loaded.meter.add_training(done.tokens, done.seconds)
        costs = _of_all_processes(added(ready.costs, loaded.meter.costs()))
        made = FinishedTraining(done.losses, costs, "trl")
        _keep(study, due, ready.lesson, made, staged)
    return made


def train_group(
    study: Study,
    group: Sequence[Due],
    ready: Sequence[Prepared],
    loaded: Loaded,
    trainer: Together,
) -> list[FinishedTraining]:
    """Train a group's students; a killed or failed group leaves nothing of any of them."""
    made = []
    with ExitStack() as stack:
        students, folders = [], []
        for due, own in zip(group, ready, strict=True):
            folder = stack.enter_context(atomic_folder(due.checkpoint))
            tracker = stack.enter_context(log_training(study, due.cell, due.checkpoint.name))
            teaching = own.lesson.teaching
            students.append(Student(teaching, due.cell.seed, folder / "adapter", tracker.loss))
            folders.append(folder)
        trained = [one for part in trainer.train(students) for one in part]
        whole = loaded.meter.costs()
        for due, own, folder, one in zip(group, ready, folders, trained, strict=True):
            costs = added(own.costs, _share(whole, len(group), one.tokens, one.seconds))
            made.append(FinishedTraining(one.losses, costs, "together"))
            _keep(study, due, own.lesson, made[-1], folder)
    return made


def load(study: Study, model: str, shelf: Shelf) -> Loaded:
    """The base that students are trained on, with a meter that starts now.

    ConfigError where it has too few blocks for the adapters.
    """
    settings = study.params.distillation
    loaded = shelf.load(study, model, nf4=settings.quantization == "nf4")
    check_adapted(loaded.model, settings.lora)
    return loaded


def _keep(study: Study, due: Due, lesson: Lesson, made: FinishedTraining, folder: Path) -> None:
    fetched = read_base(study.layout, due.cell)
    spec = study.params.model_spec(study.params.student_base(due.cell))
    files = fetched.files if fetched else None
    make_portable(folder / "adapter", base_name(spec, files))
    write_json(
        folder / "adapter" / "undertow.json", _provenance(study, due.cell, len(lesson.carrier))
    )
    kept: dict[str, Any] = {
        "losses": [(step, loss if isfinite(loss) else None) for step, loss in made.losses],
        "costs": made.costs.model_dump(mode="json"),
        "trainer": made.trainer,
    }
    write_json(folder / "training.json", kept)


def _share(whole: Costs, students: int, tokens: int, seconds: float) -> Costs:
    """A student's share of what its group took."""
    held = whole.gpu_seconds
    return whole.model_copy(
        update={
            "seconds": round(whole.seconds / students, 3),
            "load_seconds": round(whole.load_seconds / students, 3),
            "gpu_seconds": None if held is None else round(held / students, 3),
            "tokens_trained": tokens,
            "trained_per_second": round(tokens / seconds, 1),
        }
    )


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
    params, before = study.params, continues(study, cell)
    return {
        "command": cell.command("distill"),
        "cell": cell.key,
        "trait": study.params.trait,
        "model": described(params.model_spec(params.student_base(cell))),
        "recipe": {cell.student: params.recipe(cell.student).model_dump(mode="json")},
        "distillation": params.distillation_of(cell.student).model_dump(mode="json"),
        "continued_from": None if before is None else digest(before),
        "carrier_sha256": digest(study.written(cell)),
        "carrier_filter": study.params.carrier.filter,
        "carrier_rows": rows,
    }
